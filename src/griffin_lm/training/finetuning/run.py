"""`griffin finetune`: from a model's name and a file of rows to an adapter or new weights."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn

from ...checkpoints import read_parameters, saved_quantization
from ...checkpoints.adapters import FOLDER
from ...errors import ConfigError
from ...inference import LanguageModel, load, save
from ...inference.converting import convert
from ...inference.loading import computes_in_bfloat16, pick_device
from ...inference.resolution import find
from ...models import Griffin
from ...shapes import JSON
from ..batch import World
from ..data.examples import Examples, read_examples
from ..data.feeds import PackedFeed
from ..data.packing import Packer, Piece, Row
from ..data.shards import Progress
from ..randomness import seed_everything
from . import lora
from .config import RATES, FinetuneConfig
from .preview import Summary, fitted, mask_preview, parameter_lines
from .targets import Targets
from .tuner import Finetuner

MODEL, MERGED = "model", "merged"  # folders in --out


@dataclass(frozen=True)
class Base:
    """A loaded model and where it came from.

    lm: its weights as they are trained upon. fingerprint: of the source's own. path: of its files.
    name: what it was asked for by. dtype: of the files. quantize: how its matrices were rounded.
    """

    lm: LanguageModel
    fingerprint: str
    path: Path
    name: str
    dtype: torch.dtype
    quantize: str | None = None

    @classmethod
    def of(cls, lm: LanguageModel, path: Path, name: str, quantize: str | None = None) -> "Base":
        """A model that was just loaded from `path`."""
        saved = saved_quantization(path)
        if saved is not None:  # also where nobody asked for it
            quantize = "+".join(sorted(set(saved.kinds.values())))
            return cls(lm, saved.source, path, name, saved.dtype, quantize)
        dtype = next(read_parameters(path, lm.config)[1])[1].dtype
        return cls(lm, lm.model.origin.model(), path, name, dtype, quantize)


@dataclass(frozen=True)
class Prepared:
    """A run before its first step. targets: of LoRA; None: all weights are trained."""

    base: Base
    tuner: Finetuner
    config: FinetuneConfig
    examples: Examples
    summary: Summary
    targets: Targets | None

    def describe(self, console: Console) -> None:
        """Prints the mask of the first row, the summary, and what is trained."""
        model, tokenizer = self.base.lm.model, self.base.lm.tokenizer
        console.print("the first row; what is learned stands within «»:", highlight=False)
        preview = mask_preview(self.examples, 0, tokenizer, self.config.length)
        console.print(preview, soft_wrap=True)
        lines = [*self.summary.lines(), *parameter_lines(model, self.targets is not None)]
        if self.targets is not None:
            lines += self.targets.lines(model.config.layers)
        for line in lines:
            console.print(line, soft_wrap=True, highlight=False, markup=False)

    def run(self, resume: bool) -> int:
        """As Trainer.run; the tokenizer stands beside the checkpoints."""
        self.tuner.processes.first(self._place_tokenizer)
        return self.tuner.run(resume)

    def _place_tokenizer(self) -> None:
        self.tuner.out.mkdir(parents=True, exist_ok=True)
        self.base.lm.tokenizer.save(self.tuner.out)

    def finish(self, merge: bool) -> list[Path]:
        """Writes what was learned into the run's folder; returns the folders, last what to use.

        Where several processes train together, all of them call it and the first one writes.
        """
        learned = self.tuner.learned()
        write = partial(self._write_adapter, merge=merge) if self.targets else self._write_model
        return [
            self.tuner.out / name for name in self.tuner.processes.first(partial(write, learned))
        ]

    def _write_model(self, learned: dict[str, Tensor]) -> list[str]:
        base = self.base
        tuned = base.lm.instruction_tuned or self.examples.conversations > 0
        model = Griffin(base.lm.config, "meta", base.dtype)
        weights = {name: tensor.to(base.dtype) for name, tensor in learned.items()}
        model.load_state_dict(weights, assign=True)
        whole = LanguageModel(model, base.lm.tokenizer, tuned, base.lm.further_stops)
        save(whole, self.tuner.out / MODEL)
        return [MODEL]

    def _write_adapter(self, learned: dict[str, Tensor], merge: bool) -> list[str]:
        base, out, targets = self.base, self.tuner.out, self.targets
        assert targets is not None
        tuned = base.lm.instruction_tuned or self.examples.conversations > 0
        facts: JSON = {
            "steps": self.tuner.steps,
            "tokens": self.tuner.tokens,
            "quantize": base.quantize,
        }
        about = lora.facts_of(base.fingerprint, base.name, tuned, facts)
        model, config = base.lm.model, self.config
        lora.save_adapter(model, targets, out / FOLDER, config, base.name, about, learned)
        if not merge:
            return [FOLDER]
        convert(
            base.path, out / MERGED, "griffin", overwrite=True, name=base.name,
            config=base.lm.config, adapter=out / FOLDER,
        )  # fmt: skip
        return [FOLDER, MERGED]


def prepare(
    base: Base,
    data: Path,
    out: Path,
    config: FinetuneConfig,
    *,
    adapter: bool,
    max_bad: int = 10,
    progress: Progress | None = None,
    world: World | None = None,
) -> Prepared:
    """Reads the rows and makes the model ready: a run that waits for its first step.

    adapter: LoRA, the model's own weights frozen; else all of them are trained, in fp32.
    world: this process's place among those that `joined` brought together.

    Raises ConfigError for settings that contradict each other, DataError for rows that cannot be
    used (named by file and line), MissingExtra where peft is missing.
    """
    lm = base.lm
    if not adapter and base.quantize is not None:
        raise ConfigError("rounded weights are frozen: say --lora as well, or leave out --quantize")
    if adapter:
        lora.require_peft()
    elif lm.model.embed.weight.dtype not in (torch.float32, torch.float64):
        raise ConfigError(
            f"all weights are trained in float32, not in {lm.model.embed.weight.dtype}, in which "
            "small steps round to none; leave out --dtype, or say --lora"
        )
    found = read_examples(data, lm.tokenizer, lm.tokenizer.turn, max_bad=max_bad, progress=progress)
    examples, summary = fitted(found, config)
    device = lm.model.embed.weight.device
    config = _settled(config, summary, adapter, device)
    seed_everything(config.seed)
    lm.model.requires_grad_(not adapter)
    targets = lora.adapt(lm.model, config) if adapter else None
    world = world or World(device=device)
    feed = PackedFeed(
        examples, config.rows, config.length, config.seed, world, config.split, config.bins
    )
    if not config.pack:
        feed.packer = OneEach(examples, config.length, config.seed, config.split, config.bins)
    kind = _kind(config, targets, base.quantize)
    check: Callable[[nn.Module], None] | None = None
    if targets is not None:
        check = partial(lora.check_gradients, targets=targets)
    tuner = Finetuner(lm.model, feed, config, out, base.fingerprint, kind, check, world)
    return Prepared(base, tuner, config, examples, summary, targets)


class OneEach(Packer):
    """Rows of one piece, the rest padding."""

    def _place(self, piece: Piece) -> Row | None:
        return [piece]


def _settled(
    config: FinetuneConfig, summary: Summary, adapter: bool, device: torch.device
) -> FinetuneConfig:
    """With numbers where the config leaves the choice open."""
    rows = summary.inputs / config.length  # of an epoch
    return replace(
        config,
        tokens=config.tokens or max(1, round(config.epochs * summary.inputs)),
        peak_rate=config.peak_rate or RATES[adapter],
        bins=config.bins or max(1, min(64, int(rows / 4))),
        bf16=config.bf16 and computes_in_bfloat16(device),
    )


def _kind(config: FinetuneConfig, targets: Targets | None, quantize: str | None) -> JSON:
    """What must be the same when a run goes on."""
    if targets is None:
        return {"trained": "all weights"}
    made: dict[str, Any] = {"trained": "an adapter", "rank": config.rank, "alpha": config.alpha}
    made |= {"dropout": config.dropout, "adapted": list(targets.adapted), "quantize": quantize}
    return made


def open_base(
    source: str,
    *,
    adapter: bool,
    device: str = "auto",
    dtype: str = "auto",
    quantize: str | None = None,
    offline: bool | None = None,
    **options: Any,
) -> Base:
    """Loads what is fine-tuned; arguments as of `griffin.load`.

    adapter: the weights stay frozen, in any dtype and rounded if asked for (embedding and head are
    not: their errors would reach every logit); else they are in fp32. 4 bits on a GPU are
    bitsandbytes' NF4. Raises as `griffin.load`.
    """
    where = pick_device(device)
    nf4 = quantize == "int4" and where.type == "cuda"
    if not adapter and dtype == "auto":
        dtype = "float32"
    path = find(source, offline, watch=options.get("watch"))
    lm = load(
        source,
        device="cpu" if nf4 else device,
        dtype=dtype,
        quantize=None if nf4 else quantize,
        rounded="layers.",
        offline=offline,
        **options,
    )
    base = Base.of(lm, path, source, quantize)
    if nf4:
        from .four_bits import to_nf4

        to_nf4(lm.model, where)
    return base
