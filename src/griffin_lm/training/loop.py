"""The training loop: carried state, truncated back-propagation, a curriculum led by recall."""

import csv
import math
import sys
import time
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ..errors import TrainingError
from ..evals.books import read_books
from ..evals.memo_text import single_pieces
from ..models.griffin import Griffin, build
from ..models.state import State
from . import checkpoint
from .config import TrainConfig
from .corpus import token_cache
from .curriculum import Curriculum
from .memo import NO_ANSWER, NOTHING, VALUE, MemoTokens
from .optim import make_optimizer, slow_channels
from .schedule import decay_progress, learning_rate
from .streams import Batch, Streams
from .vocabulary import train_vocabulary

_SHORTEST_WINDOW = 4


class Run:
    """One training run: what `train` drives, step by step."""

    def __init__(self, config: TrainConfig, data: Path, out: Path) -> None:
        self.config, self.out = config, out
        self.vocabulary = prepare_vocabulary(config, data, out)
        self.values = single_pieces(self.vocabulary.encode)
        corpus = token_cache(data, out / "tokens", config.held_out, self.vocabulary)
        self.course = Curriculum(
            config.memo_fields, config.first_gap, config.last_gap, config.passing
        )
        memo = MemoTokens(self.vocabulary, self.values)
        self.streams = Streams(config.rows, corpus.train, memo, self.course, config.seed)
        self.model = build(config.model_config(), seed=config.seed)
        slow_channels(self.model, config)
        self.optimizer = make_optimizer(self.model, config)
        self.state: State = self.model.empty_state(config.rows)
        self.step, self.tokens, self.seconds = 0, 0, 0.0
        self.solved = False
        self.hidden, self.losses = self.model.hidden, self._losses
        if config.compile:
            for block in self.model.blocks:
                block.compile(dynamic=False)
            self.losses = torch.compile(self._losses, dynamic=False)

    @property
    def share(self) -> float:
        """How much of the run is done, 0 to 1: by tokens, or by the clock if that is further on."""
        by_clock = self.seconds / self.config.seconds if self.config.seconds > 0 else 0.0
        return max(self.tokens / self.config.tokens, by_clock)

    def windows(self) -> Tensor:
        """(B,) int64: this step's attention windows, some of them short."""
        config = self.config
        full = max((getattr(mixer, "window", 0) for mixer in self.model.config.pattern), default=0)
        down = decay_progress(config, self.share)
        share = config.window_dropout + down * (config.window_dropout_last - config.window_dropout)
        random = self.streams.random
        short = random.integers(_SHORTEST_WINDOW, config.short_window + 1, config.rows)
        return torch.from_numpy(short).where(
            torch.from_numpy(random.random(config.rows)) < share, torch.tensor(full)
        )

    def _losses(self, hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Cross entropy (B, T) fp32, and whether the target had the largest logit."""
        logits = self.model.head(hidden).float()
        loss = cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
        return loss.view_as(targets), logits.detach().argmax(-1) == targets

    def advance(self) -> dict[str, float]:
        """One optimiser step. Raises TrainingError, before any update, if the loss isn't finite."""
        config, began = self.config, time.perf_counter()
        batch = self.streams.take(config.length)
        with torch.autocast("cpu", torch.bfloat16, enabled=config.bf16):
            hidden, state = self.hidden(
                batch.inputs, starts=batch.starts, state=self.state, window=self.windows()
            )
            each, right = self.losses(hidden, batch.targets)
        asked = batch.kind != NO_ANSWER
        count = int(asked.sum())
        answers = torch.where(asked, each, 0).sum() / max(count, config.answer_floor)
        prose = torch.where(asked, 0, each).sum() / max(1, asked.numel() - count)
        weight = config.prose_weight_after if self.solved else config.prose_weight
        loss = answers + weight * prose
        if not math.isfinite(float(loss.detach())):
            raise TrainingError(
                f"the loss is {float(loss.detach())} at step {self.step}; weights are not updated. "
                f"Resume from {self.out / checkpoint.NAME} with a smaller --set peak_rate"
            )
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(config, self.step, self.share)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.state = state.detach()
        self._mark(batch, asked, right)
        self.step += 1
        self.tokens += batch.inputs.numel()
        self.seconds += time.perf_counter() - began
        answer = float(answers.detach()) * max(count, config.answer_floor) / max(1, count)
        return {"prose": float(prose.detach()), "answers": answer, "norm": float(norm)}

    def _mark(self, batch: Batch, asked: Tensor, right: Tensor) -> None:
        """Tells the curriculum how every answer of the step went."""
        labels = zip(
            batch.kind[asked].tolist(),
            batch.field[asked].tolist(),
            batch.gap[asked].tolist(),
            right[asked].tolist(),
            strict=True,
        )
        for kind, field, gap, was_right in labels:
            self.course.record(kind, field, gap, was_right)
        if change := self.course.advance():
            print(f"step {self.step}, {self.seconds:.0f} s: {change}", flush=True)
        full = self.course.fields == self.config.memo_fields
        self.solved = self.solved or (full and self.course.longest >= self.config.solved_gap)

    def to_dict(self) -> dict[str, Any]:
        """Everything that going on needs."""
        return {
            "model": self.model.state_dict(),
            "config": self.model.config.to_dict(),
            "optimizer": self.optimizer.state_dict(),
            "state": checkpoint.state_to_list(self.state),
            "course": self.course.to_dict(),
            "streams": self.streams.to_dict(),
            "progress": [self.step, self.tokens, self.seconds, self.solved],
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """The inverse of to_dict."""
        if saved["config"] != self.model.config.to_dict():
            raise TrainingError(
                f"{self.out / checkpoint.NAME} is of another model; choose another --out"
            )
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.state = checkpoint.state_from_list(self.model, saved["state"])
        self.course.restore(saved["course"])
        self.streams.restore(saved["streams"])
        self.step, self.tokens, self.seconds, self.solved = saved["progress"]


def prepare_vocabulary(
    config: TrainConfig, data: Path, out: Path
) -> sentencepiece.SentencePieceProcessor:
    """The tokenizer in `out`, trained first if it isn't there."""
    path = out / "tokenizer.model"
    if not path.exists():
        out.mkdir(parents=True, exist_ok=True)
        texts = (book.text for book in read_books(data) if book.id not in config.held_out)
        size = config.model_config().vocab
        train_vocabulary(texts, path, size, config.vocabulary_sample)
    return sentencepiece.SentencePieceProcessor(model_file=str(path))


def train(config: TrainConfig, data: Path, out: Path, resume: bool = False) -> Griffin:
    """Trains to the end of the config's budget; `out` keeps the tokenizer, tokens, log and run.

    resume: go on from out/training.pt if there is one. Without it such a file is refused.
    """
    run = Run(config, data, out)
    saved = checkpoint.load(out)
    if saved is not None:
        if not resume:
            raise TrainingError(f"{out} holds a run; go on with --resume auto or choose another")
        run.restore(saved)
        print(f"going on from step {run.step}", flush=True)
    log = Log(out / "log.csv", run)
    last_saved = time.monotonic()
    try:
        while run.share < 1:
            log.add(run.advance())
            if time.monotonic() - last_saved > config.save_every:
                checkpoint.save(out, run.to_dict())
                last_saved = time.monotonic()
    except KeyboardInterrupt:
        checkpoint.save(out, run.to_dict())
        print(f"\nsaved at step {run.step}; go on with --resume auto", file=sys.stderr)
        raise
    checkpoint.save(out, run.to_dict())
    return run.model


class Log:
    """Means of the steps since the last line: to the terminal, and to a CSV file."""

    def __init__(self, path: Path, run: Run) -> None:
        self.path, self.run = path, run
        self.waiting: list[dict[str, float]] = []
        self.since = (time.perf_counter(), run.tokens)

    def add(self, row: dict[str, float]) -> None:
        """One step's figures."""
        self.waiting.append(row)
        if len(self.waiting) < self.run.config.log_every:
            return
        run, count = self.run, len(self.waiting)
        mean = {name: sum(row[name] for row in self.waiting) / count for name in row}
        now, (then, tokens) = time.perf_counter(), self.since
        rate = (run.tokens - tokens) / max(1e-9, now - then)
        self.waiting, self.since = [], (now, run.tokens)
        left = run.seconds * (1 - run.share) / max(1e-9, run.share)
        print(
            f"{run.step} {run.tokens / 1e6:.2f}M prose {mean['prose']:.3f} answers "
            f"{mean['answers']:.2f} norm {mean['norm']:.2f} | {run.course.fields} fields, gap "
            f"{run.course.longest} | {run.course.table(VALUE)} | none "
            f"{run.course.table(NOTHING)} | {rate:.0f} tok/s, {left:.0f} s left",
            flush=True,
        )
        columns = {
            "step": run.step,
            "tokens": run.tokens,
            "seconds": round(run.seconds, 1),
            **{name: round(value, 4) for name, value in mean.items()},
            "fields": run.course.fields,
            "longest_gap": run.course.longest,
            "tokens_per_s": round(rate),
        }
        fresh = not self.path.exists()
        with self.path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(columns))
            if fresh:
                writer.writeheader()
            writer.writerow(columns)
