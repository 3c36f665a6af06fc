"""A needle by distance, for any model: five digits planted in prose, and how likely they are later.

Each row reads BOS, some prose, the needle, and prose up to the longest distance. At every distance
the state is forked and asked; the digits planted and nine other numbers are scored as answers. So
a model too small to say the number still shows how much of it is left: `gain`, by how many nats the
planted digits are likelier than the others, and `best`, in how many rows they are the likeliest of
the ten. A model that remembers nothing has a gain of 0 and is right once in ten rows.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..inference.reading import read_rows
from ..models import Griffin, State
from ..text import Tokenizer
from .gaps import cut, long_texts
from .likelihood import Score, score_continuations

NEEDLE = "\n\nThe pass key is {key}. Remember it: {key} is the pass key.\n\n"
QUESTION = "\n\nWhat is the pass key? The pass key is"
CHOICES = 10


@dataclass(frozen=True, kw_only=True)
class NeedleCell:
    """At a distance in tokens, over n rows: see the file's head.

    nats: of the planted digits, a row's mean; others: of the other numbers. greedy: rows in which
    every digit planted was the likeliest next token.
    """

    distance: int
    n: int
    best: int
    greedy: int
    nats: float
    others: float

    @property
    def gain(self) -> float:
        """Nats by which the planted digits are likelier than the others."""
        return self.others - self.nats


@torch.inference_mode()
def measure_needle(
    model: Griffin,
    tokenizer: Tokenizer,
    prose: Sequence[np.ndarray],
    distances: Sequence[int],
    rows: int = 32,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, whole: None,
) -> list[NeedleCell]:
    """A cell for each distance. prose: token arrays of texts; each row begins somewhere in one.

    Where none is long enough, in all of them in a row. Raises DataError where they are too short.
    """
    distances = sorted(distances)
    texts = long_texts(prose, distances[-1])
    random, device = np.random.default_rng(seed), model.embed.weight.device
    bos = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    question = tokenizer.encode(QUESTION, bos=False, continues=True)
    keys = [random.choice(np.arange(10_000, 100_000), CHOICES, replace=False) for _ in range(rows)]
    answers = [[_answer(tokenizer, question, int(key)) for key in row] for row in keys]
    openings: list[list[int]] = []
    gaps: list[np.ndarray] = []
    for row in range(rows):
        text = texts[row % len(texts)]
        lead, following = cut(text, distances[-1], random)
        needle = NEEDLE.format(key=keys[row][0])
        note = tokenizer.encode(needle, bos=False, continues=True)
        openings.append([*bos, *lead, *note])
        gaps.append(following)
    state = read_rows(model, openings, model.empty_state(rows), donate=True)
    gap, cells, at = np.stack(gaps), list[NeedleCell](), 0
    for distance in distances:
        part = gap[:, at:distance].tolist()
        state = read_rows(
            model,
            part,
            state,
            donate=True,
            progress=lambda done, _, at=at: progress(at + done, distances[-1]),
        )
        at = distance
        asked = torch.tensor(question, device=device).expand(rows, -1)
        logits, after = model(asked, state=state, logits="last")
        assert isinstance(logits, Tensor)
        cells.append(_cell(distance, _scores(model, logits, after, answers)))
    return cells


def _answer(tokenizer: Tokenizer, question: list[int], key: int) -> list[int]:
    """The ids that follow the question's where the digits follow it."""
    return tokenizer.encode(f"{QUESTION} {key}", bos=False, continues=True)[len(question) :]


def _scores(
    model: Griffin, logits: Tensor, state: State, answers: Sequence[Sequence[list[int]]]
) -> list[list[Score]]:
    """Per row, a score for each of its answers."""
    owners = [row for row, some in enumerate(answers) for _ in some]
    flat = [answer for some in answers for answer in some]
    found = iter(score_continuations(model, logits, state, owners, flat))
    return [[next(found) for _ in some] for some in answers]


def _cell(distance: int, scores: Sequence[Sequence[Score]]) -> NeedleCell:
    logprobs = np.array([[score.logprob for score in row] for row in scores])
    return NeedleCell(
        distance=distance,
        n=len(scores),
        best=int((logprobs.argmax(1) == 0).sum()),
        greedy=sum(row[0].greedy for row in scores),
        nats=round(float(-logprobs[:, 0].mean()), 4),
        others=round(float(-logprobs[:, 1:].mean()), 4),
    )


def needle_table(cells: Sequence[NeedleCell]) -> str:
    """A Markdown table, a row per distance."""
    lines = [
        f"| tokens since the needle | n | likeliest of {CHOICES} | said greedily | nats "
        "| nats of other numbers | gain |",
        "|" + "---|" * 7,
    ]
    lines += [
        f"| {cell.distance:,} | {cell.n} | {cell.best / cell.n:.2f} | {cell.greedy / cell.n:.2f} "
        f"| {cell.nats:.2f} | {cell.others:.2f} | {cell.gain:+.2f} |"
        for cell in cells
    ]
    return "\n".join(lines)


def to_json(cells: Sequence[NeedleCell]) -> list[dict[str, Any]]:
    """Plain values."""
    return [asdict(cell) | {"gain": round(cell.gain, 4)} for cell in cells]
