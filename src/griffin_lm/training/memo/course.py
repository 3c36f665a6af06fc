"""The course as a feed: streams of memo documents, weighted, led on by how answers went."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import sentencepiece
import torch
from torch import Tensor

from ...errors import ConfigError
from ...evals.books import read_books
from ...evals.memo_text import single_pieces
from ..batch import Batch, World
from ..config import TrainConfig
from ..schedule import decay_progress
from .corpus import token_cache
from .curriculum import Curriculum
from .documents import NO_ANSWER, NOTHING, VALUE, MemoTokens
from .streams import Streams
from .vocabulary import train_vocabulary

_SHORTEST_WINDOW = 4


@dataclass(frozen=True, kw_only=True)
class MemoCourse:
    """Settings of the course; `--data` is a folder of books (.jsonl, .bz2, .gz).

    Wants `loss_over="batches"`, since its weights are shares of the loss, and `accumulate=1`: its
    rows go on from batch to batch.
    """

    held_out: tuple[str, ...] = ()  # ids of books that are never trained on
    vocabulary_sample: int = 12_000_000  # characters of training text for the tokenizer

    prose_weight: float = 0.6  # of the loss on everything but answers, while recall is learned
    prose_weight_after: float = 1.0  # once the longest gap is `solved_gap`
    solved_gap: int = 32768
    answer_floor: int = 8  # answers are averaged over at least this many

    memo_fields: int = 3
    first_gap: int = 128
    last_gap: int = 32768
    passing: float = 0.87

    window_dropout: float = 0.6  # share of rows and steps with a short window
    window_dropout_last: float = 0.1  # to which it falls with the learning rate
    short_window: int = 16  # the short ones are drawn from 4 up to this

    def open(self, config: TrainConfig, data: Path, out: Path, world: World) -> "MemoFeed":
        """Trains the tokenizer and makes the token cache in `out` where they are not there."""
        if config.loss_over != "batches":
            raise ConfigError('the memo course weighs its tokens itself: set loss_over="batches"')
        if world.size > 1:
            raise ConfigError("the memo course trains in one process; run it without torchrun")
        vocabulary = prepare_vocabulary(self, config.model_config().vocab, data, out)
        prose = token_cache(data, out / "tokens", self.held_out, vocabulary).train
        memo = MemoTokens(vocabulary, single_pieces(vocabulary.encode))
        course = Curriculum(self.memo_fields, self.first_gap, self.last_gap, self.passing)
        return MemoFeed(
            self, config, Streams(config.rows, prose, memo, course, config.seed), course
        )


class Labels(NamedTuple):
    """What each target token is, (B, T) each: see `documents.Document`."""

    kind: Tensor
    field: Tensor
    gap: Tensor


class MemoFeed:
    """Batches whose rows never end; told of every answer, it asks from further away."""

    def __init__(
        self, settings: MemoCourse, config: TrainConfig, streams: Streams, course: Curriculum
    ) -> None:
        self.settings, self.config = settings, config
        self.streams, self.course = streams, course
        self.solved = False
        self.batches = 0
        self._sums = torch.zeros(4, dtype=torch.float64)  # loss and number, of prose and answers

    def take(self, share: float) -> Batch:
        """The next `length` tokens of every row; answers and prose weighted apart.

        An answer's first token counts 1 / max(answers, `answer_floor`), the rest `prose_weight`
        together, so that with no answer in a batch their loss is 0.
        """
        settings = self.settings
        cut = self.streams.take(self.config.length)
        asked = cut.kind != NO_ANSWER
        count = int(asked.sum())
        prose = settings.prose_weight_after if self.solved else settings.prose_weight
        each = torch.tensor(
            [prose / max(1, asked.numel() - count), 1 / max(count, settings.answer_floor)]
        )
        return Batch(
            tokens=cut.inputs,
            starts=cut.starts,
            valid=torch.ones_like(cut.starts),
            targets=cut.targets,
            weight=each[asked.long()],
            window=self.windows(share),
            labels=Labels(cut.kind, cut.field, cut.gap),
            carries=True,
        )

    def windows(self, share: float) -> Tensor:
        """(B,) int64: attention windows for one batch, some of them short."""
        settings, pattern = self.settings, self.config.model_config().pattern
        full = max((getattr(mixer, "window", 0) for mixer in pattern), default=0)
        down = decay_progress(self.config, share)
        dropout = settings.window_dropout + down * (
            settings.window_dropout_last - settings.window_dropout
        )
        random, rows = self.streams.random, self.config.rows
        short = random.integers(_SHORTEST_WINDOW, settings.short_window + 1, rows)
        return torch.from_numpy(short).where(
            torch.from_numpy(random.random(rows)) < dropout, torch.tensor(full)
        )

    def observe(self, batch: Batch, loss: Tensor, right: Tensor) -> str | None:
        """Tells the curriculum how every answer went; a line when it advances, and now and then."""
        labels: Labels = batch.labels
        loss, right = loss.cpu(), right.cpu()
        asked = labels.kind != NO_ANSWER
        answers = zip(
            labels.kind[asked].tolist(),
            labels.field[asked].tolist(),
            labels.gap[asked].tolist(),
            right[asked].tolist(),
            strict=True,
        )
        for kind, field, gap, was_right in answers:
            self.course.record(kind, field, gap, was_right)
        change = self.course.advance()
        full = self.course.fields == self.settings.memo_fields
        self.solved = self.solved or (full and self.course.longest >= self.settings.solved_gap)
        count = int(asked.sum())
        self._sums += torch.tensor(
            [loss[~asked].sum(), asked.numel() - count, loss[asked].sum(), count],
            dtype=torch.float64,
        )
        self.batches += 1
        return change or (self.table() if self.batches % self.config.log_every == 0 else None)

    def table(self) -> str:
        """Where the course stands: recall by field and distance, and of "no such note"."""
        course = self.course
        return (
            f"{course.fields} fields, gap {course.longest} | {course.table(VALUE)} | none "
            f"{course.table(NOTHING)}"
        )

    def figures(self) -> dict[str, float | int]:
        """Mean losses of prose and answers since the last call, and the course's place."""
        prose, tokens, answers, count = self._sums.tolist()
        self._sums.zero_()
        return {
            "prose": prose / max(1, tokens),
            "answers": answers / max(1, count),
            "fields": self.course.fields,
            "longest_gap": self.course.longest,
        }

    def where(self) -> str:
        """For messages."""
        return f"batch {self.batches} of the course, longest gap {self.course.longest}"

    def to_dict(self) -> dict[str, Any]:
        """Streams, course, whether it was solved."""
        return {
            "streams": self.streams.to_dict(),
            "course": self.course.to_dict(),
            "solved": self.solved,
            "batches": self.batches,
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """The inverse of to_dict."""
        self.streams.restore(saved["streams"])
        self.course.restore(saved["course"])
        self.solved, self.batches = bool(saved["solved"]), int(saved["batches"])


def prepare_vocabulary(
    settings: MemoCourse, size: int, data: Path, out: Path
) -> sentencepiece.SentencePieceProcessor:
    """The tokenizer in `out`, trained first if it isn't there."""
    path = out / "tokenizer.model"
    if not path.exists():
        out.mkdir(parents=True, exist_ok=True)
        texts = (book.text for book in read_books(data) if book.id not in settings.held_out)
        train_vocabulary(texts, path, size, settings.vocabulary_sample)
    return sentencepiece.SentencePieceProcessor(model_file=str(path))
