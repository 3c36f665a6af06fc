"""Memo recall by distance: a note is planted in prose, the text goes on, and questions are asked.

Each row reads BOS, some prose, the note, and prose up to the longest distance. At every distance
the state is forked and each field asked on a fork, so no question is ever part of what is read.
Rows without the note read the same prose and must answer "There is no such note.". The first token
of the answer decides, as the largest of all logits (greedy).
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError
from ..models import Griffin, State
from ..text import Tokenizer
from .gaps import cut, long_texts
from .memo_text import FIELDS, MARKS, NO_NOTE, note_text, question_text, single_pieces

_CHUNK = 512  # tokens read per call
DISTANCES = (64, 256, 1024, 4096, 16384)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One figure: at this many tokens after the note, this field, asked in n rows.

    noted: rows with the note (the value is right), or without (the refusal is right).
    """

    distance: int
    field: str
    noted: bool
    n: int
    right: int

    @property
    def share(self) -> float:
        """right / n."""
        return self.right / self.n


@torch.inference_mode()
def measure_recall(
    model: Griffin,
    tokenizer: Tokenizer,
    prose: Sequence[np.ndarray],
    distances: Sequence[int] = DISTANCES,
    rows: int = 32,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    fields: Sequence[str] = FIELDS,
) -> list[Cell]:
    """Recall at each distance, with and without a note, `rows` rows each; batch 2 * rows.

    prose: token arrays of texts; each row begins at a random place of one of them, or of all of
    them in a row where none is long enough. Raises DataError if they are too short together.
    fields: that a note has and questions ask for.
    """

    def encode(text: str) -> list[int]:
        return tokenizer.encode(text, bos=False, markers=True)

    distances = sorted(distances)
    pieces = single_pieces(encode)
    values = {field: list(pieces[field].items()) for field in fields}
    random = np.random.default_rng(seed)
    texts = long_texts(prose, distances[-1])
    gap_rows, openings, wanted = _rows(texts, values, random, rows, distances[-1], encode)
    device = model.embed.weight.device
    bos = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    noted = [bos + lead + note for lead, note in openings]
    plain = [bos + lead for lead, _ in openings]
    state = State.concat([_read_all(model, noted), _read_all(model, plain)])
    gaps = torch.from_numpy(np.concatenate([gap_rows, gap_rows]).astype(np.int64)).to(device)
    refusal = encode(question_text(fields[0]) + NO_NOTE)[len(encode(question_text(fields[0])))]
    cells: list[Cell] = []
    at = 0
    for distance in distances:
        while at < distance:
            chunk = gaps[:, at : min(at + _CHUNK, distance)]
            _, state = model(chunk, state=state, logits=None, donate=True)
            at += chunk.shape[1]
            if progress is not None:
                progress(at, distances[-1])
        for place, field in enumerate(fields):
            question = torch.tensor(encode(question_text(field)), device=device)
            logits, _ = model(question.expand(2 * rows, -1), state=state, logits="last")
            assert logits is not None
            said = logits.argmax(-1).cpu()
            right = int((said[:rows] == wanted[:, place]).sum())
            refused = int((said[rows:] == refusal).sum())
            cells.append(Cell(distance=distance, field=field, noted=True, n=rows, right=right))
            cells.append(Cell(distance=distance, field=field, noted=False, n=rows, right=refused))
    return cells


def knows_memos(tokenizer: Tokenizer) -> bool:
    """Whether a vocabulary has the markers and values of fledgling's memos."""
    if any(tokenizer.special_id(mark) is None for mark in MARKS):
        return False
    try:
        single_pieces(lambda text: tokenizer.encode(text, bos=False, markers=True))
    except DataError:
        return False
    return True


def _rows(
    texts: Sequence[np.ndarray],
    values: dict[str, list[tuple[str, int]]],
    random: np.random.Generator,
    rows: int,
    longest: int,
    encode: Callable[[str], list[int]],
) -> tuple[np.ndarray, list[tuple[list[int], list[int]]], Tensor]:
    """(prose after the note (rows, longest), (prose before, note) per row, ids asked for)."""
    gaps: list[np.ndarray] = []
    openings: list[tuple[list[int], list[int]]] = []
    wanted: list[list[int]] = []
    for row in range(rows):
        text = texts[row % len(texts)]
        lead, gap = cut(text, longest, random)
        drawn = {field: some[int(random.integers(len(some)))] for field, some in values.items()}
        note = encode(note_text({field: word for field, (word, _) in drawn.items()}))
        openings.append((lead, note))
        gaps.append(gap)
        wanted.append([token for _, token in drawn.values()])
    return np.stack(gaps), openings, torch.tensor(wanted)


def _read_all(model: Griffin, rows: list[list[int]]) -> State:
    """The state after rows of different lengths."""
    longest = max(len(row) for row in rows)
    tokens = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    valid = torch.tensor([[True] * len(row) + [False] * (longest - len(row)) for row in rows])
    device = model.embed.weight.device
    return model(tokens.to(device), valid=valid.to(device), logits=None)[1]


def recall_table(cells: Sequence[Cell]) -> str:
    """A Markdown table: a row per distance, columns of fields, with a note and without."""
    head = [*FIELDS, *(f"{field}, no note" for field in FIELDS)]
    lines = [
        "| tokens since the note | n | " + " | ".join(head) + " |",
        "|" + "---|" * (len(head) + 2),
    ]
    for distance in sorted({cell.distance for cell in cells}):
        here = {(cell.field, cell.noted): cell for cell in cells if cell.distance == distance}
        shares = [f"{here[field, noted].share:.2f}" for noted in (True, False) for field in FIELDS]
        count = here[FIELDS[0], True].n
        lines.append(f"| {distance:,} | {count} | " + " | ".join(shares) + " |")
    return "\n".join(lines)


def to_json(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """Plain values."""
    return [asdict(cell) | {"share": round(cell.share, 4)} for cell in cells]
