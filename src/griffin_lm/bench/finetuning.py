"""Fine-tuning that shows: one task, two small models, three ways; before and after.

The task is reading, not arithmetic: given the last line of a worked solution of GSM8K, such as
"Natalia sold 48+24 = 72 clips altogether.", say the final answer, "72". A model of a million
parameters cannot learn the arithmetic of these problems; that it answers with a number of the text,
with the right one, and then stops, it learns or does not learn by these rows alone.
"""

import json
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..errors import DataError
from ..inference import LanguageModel, load, save
from ..mixers import GlobalAttention
from ..models import Griffin, ModelConfig, build
from ..shapes import JSON
from ..training.data.examples import Examples, read_examples
from ..training.data.packing import Piece, batch_of
from ..training.finetuning.config import FinetuneConfig
from ..training.finetuning.run import open_base, prepare
from ..training.loss import token_losses
from .machine import machine

Say = Callable[[str], None]
_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")
_LONGEST = 12  # tokens of an answer that are compared; none of the rows has more

# Llama 3's layout at fledgling's size and with its vocabulary
LLAMA = ModelConfig(
    vocab=2048,
    width=128,
    mlp_width=352,
    layers=4,
    pattern=(GlobalAttention(heads=4, head_dim=32, kv_heads=2, rope_base=500_000.0),),
    norm_eps=1e-5,
    mlp="swiglu",
    mlp_bias=False,
    norm_weight="plain",
    scale_embeddings=False,
)


@dataclass(frozen=True)
class Options:
    """limit: rows of each kind at most; 0: all. test: held-out rows. epochs: over the rows."""

    limit: int = 0
    test: int = 400
    epochs: float = 3.0
    pretraining_epochs: float = 3.0
    seed: int = 0


# rates that small models want; LoRA's by its usual factor of ten or so above
ARMS: dict[str, tuple[bool, str | None, float]] = {
    "full": (False, None, 1e-3),
    "lora": (True, None, 5e-3),
    "qlora": (True, "int4", 5e-3),
}


def measure(source: Path, options: Options, say: Say = print) -> JSON:
    """Everything; source: the folder with gsm8k_train.jsonl and gsm8k_test.jsonl.

    Raises DataError where these are not there.
    """
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        rows = {split: list(_rows(source / f"gsm8k_{split}.jsonl")) for split in ("train", "test")}
        kept = {split: [row for row in found if row.asks] for split, found in rows.items()}
        train = kept["train"][: options.limit or None]
        test = kept["test"][: options.test]
        data, held_out = work / "train.jsonl", work / "test.jsonl"
        _write(data, [row.turns() for row in train])
        _write(held_out, [row.turns() for row in test])
        texts = work / "texts.jsonl"
        _write(texts, [{"text": row.text} for row in rows["train"][: options.limit or None]])
        figures: JSON = {
            "machine": machine(),
            "task": {
                "train": len(train),
                "test": len(test),
                "left_out": {split: len(rows[split]) - len(kept[split]) for split in rows},
                "last_number": sum(row.last_number == row.answer for row in test) / len(test),
                "example": [train[0].line, train[0].answer],
            },
            "options": {"epochs": options.epochs, "seed": options.seed},
            "models": [],
        }
        llama, how = _llama(work / "llama", texts, options, say)
        for name, path, origin in (
            ("fledgling", "fledgling", "bundled"),
            ("llama-1m", str(llama), how),
        ):
            arms = [_arm(arm, path, data, held_out, options, say) for arm in ARMS]
            model = load(path, dtype="float32").model
            size = sum(p.numel() for p in model.parameters())
            figures["models"].append(
                {"name": name, "parameters": size, "origin": origin, "arms": arms}
            )
    return figures


# ---- rows


@dataclass(frozen=True)
class _Row:
    """A worked solution: its text, its last line, and the final answer."""

    text: str
    line: str
    answer: str

    @property
    def asks(self) -> bool:
        """Whether the last line holds the answer, so that reading it can find it."""
        return self.answer in _NUMBER.findall(self.line)

    @property
    def last_number(self) -> str:
        """What a rule without a model would say."""
        found = _NUMBER.findall(self.line)
        return found[-1] if found else ""

    def turns(self) -> JSON:
        """As a row of `griffin finetune`."""
        user, model = ("user", self.line), ("assistant", self.answer)
        return {"messages": [{"role": role, "content": text} for role, text in (user, model)]}


def _rows(path: Path) -> Iterator[_Row]:
    if not path.is_file():
        raise DataError(f"there is no {path}; give the folder with GSM8K's two .jsonl files")
    for line in path.read_text(encoding="utf-8").splitlines():
        solution, _, answer = json.loads(line)["answer"].partition("\n#### ")
        text = re.sub(r"<<.*?>>", "", solution)  # calculator annotations
        yield _Row(text, text.splitlines()[-1].strip(), answer.strip())


def _write(path: Path, rows: list[JSON]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


# ---- arms


def _arm(arm: str, source: str, data: Path, held_out: Path, options: Options, say: Say) -> JSON:
    """One way to fine-tune one model."""
    adapter, quantize, rate = ARMS[arm]
    config = FinetuneConfig(
        epochs=options.epochs, rows=8, length=256, peak_rate=rate, seed=options.seed
    )
    base = open_base(source, adapter=adapter, quantize=quantize)
    tokenizer = base.lm.tokenizer
    asked = read_examples(held_out, tokenizer, tokenizer.turn)
    before = _judge(base.lm.model, asked)
    run = prepare(base, data, Path("unused"), config, adapter=adapter)
    began = time.perf_counter()
    losses: list[float] = []
    while run.tuner.share < 1:
        losses.append(run.tuner.step().loss)
        if len(losses) % 50 == 0:
            mean = sum(losses[-50:]) / 50
            say(f"{Path(source).name} {arm}: {run.tuner.share:.0%}, loss {mean:.3f}")
    seconds = time.perf_counter() - began
    after = _judge(base.lm.model.eval(), asked)
    trained = sum(p.numel() for p in base.lm.model.parameters() if p.requires_grad)
    say(f"{Path(source).name} {arm}: {before} before, {after} after, {seconds:.0f} s")
    return {
        "arm": arm,
        "dtype": str(base.lm.model.embed.weight.dtype).removeprefix("torch."),
        "trained": trained,
        "rank": config.rank if adapter else None,
        "rate": rate,
        "steps": run.tuner.steps,
        "tokens": run.tuner.tokens,
        "seconds": round(seconds, 1),
        "before": before,
        "after": after,
    }


@torch.no_grad()
def _judge(model: Griffin, examples: Examples) -> JSON:
    """Mean loss of answer tokens (nats); the share of answers said exactly, the end included."""
    total, count, exact = 0.0, 0, 0
    rows = sorted(range(len(examples)), key=examples.size)
    for at in range(0, len(rows), 32):
        some = rows[at : at + 32]
        length = max(examples.size(row) for row in some)
        batch = batch_of(
            [[Piece(row, 0, examples.size(row) - 1)] for row in some], examples, length
        )
        hidden, _ = model.hidden(batch.tokens, batch.starts, batch.valid)
        found = token_losses(model.head, hidden, batch.targets, batch.weight)
        total, count = total + float(found.total), count + int(batch.weight.sum())
        exact += _exact(model, examples, some)
    return {"loss": round(total / count, 4), "exact": round(exact / len(rows), 4)}


def _exact(model: Griffin, examples: Examples, rows: list[int]) -> int:
    """How many of these rows the model answers to the token, always taking the likeliest."""
    asked: list[list[int]] = []
    wanted: list[list[int]] = []
    for row in rows:
        ids = examples.read(row, 0, examples.size(row)).tolist()
        first = int(examples.counts(row, 0, len(ids)).argmax())
        asked.append(ids[:first])
        wanted.append(ids[first:])
    longest = max(map(len, asked))
    tokens = torch.tensor([ids + [0] * (longest - len(ids)) for ids in asked])
    valid = torch.tensor([[i < len(ids) for i in range(longest)] for ids in asked])
    logits, state = model(tokens, valid=valid, logits="last")
    said: list[torch.Tensor] = []
    for _ in range(min(_LONGEST, max(map(len, wanted)))):
        assert logits is not None
        said.append(logits.argmax(-1))
        logits, state = model(said[-1][:, None], state=state, logits="last")
    answers = torch.stack(said, 1).tolist()
    return sum(mine[: len(w)] == w for mine, w in zip(answers, wanted, strict=True))


def _llama(folder: Path, texts: Path, options: Options, say: Say) -> tuple[str, str]:
    """A Llama 3 of a million parameters that has read the solutions; where, and how it was made."""
    tokenizer = load("fledgling").tokenizer
    folder.mkdir(parents=True)
    model = build(LLAMA, seed=options.seed)
    save(LanguageModel(model, tokenizer), folder)
    config = FinetuneConfig(
        epochs=options.pretraining_epochs, rows=8, length=256, peak_rate=3e-3, split="split"
    )
    base = open_base(str(folder), adapter=False)
    run = prepare(base, texts, folder / "run", config, adapter=False)
    losses: list[float] = []
    while run.tuner.share < 1:
        losses.append(run.tuner.step().loss)
        if len(losses) % 100 == 0:
            say(f"llama reads: {run.tuner.share:.0%}, loss {sum(losses[-100:]) / 100:.3f}")
    save(LanguageModel(base.lm.model, tokenizer), folder)
    how = (
        f"random, then {run.tuner.tokens:,} tokens of the training split's solutions as plain text "
        f"(loss {sum(losses[-20:]) / len(losses[-20:]):.2f})"
    )
    return str(folder), how


# ---- the page


HEADS = (
    "model",
    "trained",
    "parameters",
    "loss before",
    "after",
    "exact before",
    "after",
    "tokens",
)


def section(figures: JSON) -> str:
    """The markdown section of these figures."""
    task, options = figures["task"], figures["options"]
    line, answer = task["example"]
    lines = [
        "## Fine-tuning that shows",
        "",
        f"`{figures.get('command', 'griffin bench finetune SFT')}`",
        "",
        "Given the last line of a worked solution of GSM8K, say the final answer. That is reading, "
        "not arithmetic: the number stands in the line, among others. For example "
        f'"{line}": {answer}. {task["train"]:,} rows to learn from, gone through '
        f"{options['epochs']:g} times; {task['test']:,} held out, of GSM8K's own test split (rows "
        "whose last line lacks the answer are left out on both sides). Saying the line's last "
        f"number is right for {task['last_number']:.0%} of them. An answer is exact if every token "
        "is, the end of the turn included.",
        "",
        "| " + " | ".join((*HEADS, "minutes")) + " |",
        "|---|---|" + "--:|" * (len(HEADS) - 1),
    ]
    for model in figures["models"]:
        for arm in model["arms"]:
            before, after = arm["before"], arm["after"]
            cells = (
                f"{model['name']} ({model['parameters']:,})",
                _word(arm),
                f"{arm['trained']:,}",
                f"{before['loss']:.2f}",
                f"{after['loss']:.3f}",
                f"{before['exact']:.1%}",
                f"{after['exact']:.1%}",
                f"{arm['tokens']:,}",
                f"{arm['seconds'] / 60:.1f}",
            )
            lines.append("| " + " | ".join(cells) + " |")
    lines += ["", *(f"- {model['name']}: {model['origin']}." for model in figures["models"]), ""]
    lines.append(
        "Loss: nats a token of the answer. One seed; adapters are judged beside the base that they "
        f"were trained on. Machine: {figures['machine']['processor']}, shared with other work, so "
        "the minutes are an upper bound."
    )
    return "\n".join(lines) + "\n"


def _word(arm: dict[str, Any]) -> str:
    if arm["arm"] == "full":
        return "all weights"
    kind = "LoRA" if arm["arm"] == "lora" else "QLoRA (int4 base)"
    return f"{kind}, rank {arm['rank']}"
