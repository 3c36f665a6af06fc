"""What a run will learn, before its first step: the mask token by token, and numbers."""

from dataclasses import dataclass

from rich.text import Text
from torch import nn

from ...errors import DataError
from ...text import Tokenizer
from ..data.examples import Examples
from .config import FinetuneConfig

_SHOWN = 160  # tokens of a row
_HEAD = 60  # of them from its beginning, where it is longer


@dataclass(frozen=True)
class Summary:
    """rows: to learn from. inputs: tokens read in an epoch. answers: tokens that count in it.

    cut: rows longer than a row of a batch; lost: those that lose every answer by it, and are left
    out; malformed: lines left out. longest: tokens.
    """

    rows: int
    inputs: int
    answers: int
    cut: int
    lost: int
    malformed: int
    longest: int
    length: int
    split: str

    def lines(self) -> list[str]:
        """For people; the last lines say what to do where something is lost."""
        lines = [
            f"{self.rows:,} rows, {self.inputs:,} tokens, {self.answers:,} of them answers "
            f"({self.answers / max(1, self.inputs):.0%}), longest {self.longest:,}"
        ]
        if self.malformed:
            lines.append(f"{self.malformed} malformed lines were left out")
        if self.cut and self.split == "cut":
            lines.append(
                f"{self.cut} rows are longer than {self.length} and are cut there; {self.lost} of "
                f"them lose every answer and are left out (--set length={self.longest - 1}: none)"
            )
        elif self.cut:
            lines.append(
                f"{self.cut} rows are longer than {self.length} and are split into pieces, each of "
                f"which begins without what came before (--set length={self.longest - 1}: none is)"
            )
        return lines


def fitted(examples: Examples, config: FinetuneConfig) -> tuple[Examples, Summary]:
    """The rows that have an answer within the config's length, and the numbers of all.

    Raises DataError where no row has one.
    """
    length = config.length
    cuts = config.split == "cut"
    sizes = [examples.size(row) for row in range(len(examples))]
    lost = examples.unanswered(length if cuts else max(sizes))
    if len(lost) == len(examples):
        raise DataError(
            f"no row has an answer within the first {length} tokens (the longest has "
            f"{max(sizes)}); set a longer length: --set length={max(sizes) - 1}"
        )
    kept = examples.without(lost) if lost else examples
    limit = length if cuts else max(sizes)
    summary = Summary(
        rows=len(kept),
        inputs=sum(min(kept.size(row) - 1, limit) for row in range(len(kept))),
        answers=sum(int(kept.counts(row, 1, limit + 1).sum()) for row in range(len(kept))),
        cut=sum(size - 1 > length for size in sizes),
        lost=len(lost),
        malformed=examples.malformed,
        longest=max(sizes),
        length=length,
        split=config.split,
    )
    return kept, summary


def mask_preview(examples: Examples, row: int, tokenizer: Tokenizer, length: int) -> Text:
    """A row: "|" between its tokens, what is learned within «», bold where there is colour.

    Tokens beyond `length` + 1 are not shown: they are not learned from.
    """
    stop = min(examples.size(row), length + 1)
    ids = examples.read(row, 0, stop).tolist()
    answer = examples.counts(row, 0, stop).tolist()
    hidden = range(_HEAD, stop - (_SHOWN - _HEAD)) if stop > _SHOWN else range(0)
    text, inside = Text(), False
    for place, (token, counts) in enumerate(zip(ids, answer, strict=True)):
        if place in hidden:
            if place == hidden.start:
                text.append(f" … {len(hidden)} tokens … ", "dim")
            continue
        if inside and not counts:
            text.append("»", "bold green")
        if place:
            text.append("|", "dim")
        if counts and not inside:
            text.append("«", "bold green")
        inside = counts
        text.append(_shown(token, tokenizer), "bold green" if counts else "")
    if inside:
        text.append("»", "bold green")
    return text


def _shown(token: int, tokenizer: Tokenizer) -> str:
    """A token as one looks at it: control pieces by name, line ends as a sign."""
    if token in tokenizer.special_ids:
        return tokenizer.piece(token) or f"<{token}>"
    text = tokenizer.decode([token], continues=True)
    if "\ufffd" in text or not text:
        text = tokenizer.piece(token) or f"<{token}>"
    return text.replace("\n", "⏎").replace("\r", "␍")


def parameter_lines(model: nn.Module, adapted: bool) -> list[str]:
    """How many numbers are trained, and what memory that takes, activations apart."""
    parameters = list(model.parameters())
    trained = sum(p.numel() for p in parameters if p.requires_grad)
    packed = sum(buffer.nbytes for buffer in model.buffers())
    frozen = sum(p.nbytes for p in parameters if not p.requires_grad) + packed
    own = sum(p.nbytes for p in parameters if p.requires_grad)
    what = "of the adapter" if adapted else "all"
    return [
        f"{trained:,} parameters are trained ({what})",
        f"memory: {_mb(frozen)} frozen, {_mb(own)} trained, {_mb(3 * own)} for gradients and "
        "moments; activations come on top",
    ]


def _mb(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size < 1e9 else f"{size / 1e9:,.2f} GB"
