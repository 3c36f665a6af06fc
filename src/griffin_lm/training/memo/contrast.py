"""Longer recall without training: a recurrence gate that is left alone by prose and not by notes.

    python -m griffin_lm.training.memo.contrast CHECKPOINT BOOKS OUT

What the first recurrence of fledgling keeps of a note decays: its gate, at rest in most tokens of
prose (sigmoid(-10)), opens a little at one in a hundred, which takes more from the state than all
the others together. At a note it stands wide open (sigmoid(5)). So there is room between, and the
gate's logits z are stretched away from a point p just below where they stand at a note:

    z' = z + s (z - p),   which is   W' = (1 + s) W,   b' = (1 + s) b - s p

Notes are written as before, all other tokens take e^(s (p - z)) times less from the state. Prose,
which the fast channels serve, is predicted as before. CHECKPOINT's gates were learned; which
channels are changed, and each one's p, is measured on the books it was trained on (those that its
training.json does not hold out).
"""

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from ...checkpoints import save_model
from ...errors import ConfigError, DataError, GriffinError
from ...evals.memo_text import note_text, single_pieces
from ...inference import load
from ...mixers.rg_lru import RGLRUCell
from ...models import Griffin
from ...ops.rg_lru.definition import C
from ...text import Tokenizer
from .corpus import split

STRETCH = 0.5  # s; 1 to 3 recalled no more of the training books' notes
HALF_LIFE = 500  # tokens of prose; channels that hold for less are left as they are
BELOW = 1.0  # p is so far below the mean logit at a note
ROWS, LENGTH, SKIPPED = 64, 2048, 8  # of prose; the first tokens of a row are not looked at
NOTES, LEAD = 64, 40  # notes with values of their own, after so many tokens of prose


@torch.no_grad()
def stretch_gate(
    model: Griffin, layer: int, prose: Tensor, noted: Tensor, stretch: float = STRETCH
) -> list[int]:
    """Changes the recurrence gate of one layer in place; the channels that it changed.

    prose (B, T), noted (N, LEAD + a note): token rows. A channel is changed if it holds for
    HALF_LIFE in prose and its gate is open (z > 0) at the token of the notes at which what is
    written differs most from note to note.
    """
    cell: Any = getattr(model.blocks[layer].mixer, "cell", None)
    if not isinstance(cell, RGLRUCell) or cell.config.complex:
        raise ConfigError(f"layer {layer} has no real RG-LRU: name a recurrent layer")
    z = cell.a_gate(_inputs(model, cell, prose)[:, SKIPPED:]).flatten(0, 1)
    rate = C * softplus(cell.Lambda)
    x = _inputs(model, cell, noted)[:, LEAD:]
    opened = cell.a_gate(x)
    share = -torch.expm1(-2 * rate * opened.sigmoid())  # 1 - a^2
    written = share.sqrt() * cell.x_gate(x).sigmoid() * x
    most = written.var(0).argmax(0)  # (R,): a token of the notes
    at_note = opened.mean(0).gather(0, most[None])[0]
    half_life = math.log(2) / (rate * z.sigmoid()).mean(0)
    chosen = (half_life > HALF_LIFE) & (at_note > 0)
    s = torch.where(chosen, stretch, 0.0).view_as(cell.a_gate.b)
    cell.a_gate.w.mul_(1 + s[:, None])
    cell.a_gate.b.mul_(1 + s).sub_(s * (at_note - BELOW).view_as(s))
    return chosen.nonzero()[:, 0].tolist()


def _inputs(model: Griffin, cell: RGLRUCell, tokens: Tensor) -> Tensor:
    """(B, T, R): what goes into a cell while the model reads rows of tokens."""
    seen: list[Tensor] = []
    hook = cell.register_forward_pre_hook(lambda module, given: seen.append(given[0].float()))
    try:
        model(tokens, logits=None)
    finally:
        hook.remove()
    return seen[0]


def rows_of(books: list[np.ndarray], tokenizer: Tokenizer, seed: int = 0) -> tuple[Tensor, Tensor]:
    """(prose (ROWS, LENGTH), noted (NOTES, LEAD + a note)) from token arrays of books."""

    def encode(text: str) -> list[int]:
        return tokenizer.encode(text, bos=False, markers=True)

    books = [book for book in books if len(book) > LENGTH]
    if not books:
        raise DataError(f"no book is {LENGTH} tokens long")
    random = np.random.default_rng(seed)
    values = {field: list(found) for field, found in single_pieces(encode).items()}

    def prose(length: int) -> np.ndarray:
        book = books[int(random.integers(len(books)))]
        at = int(random.integers(len(book) - length))
        return book[at : at + length].astype(np.int64)

    def note() -> list[int]:
        return encode(
            note_text(
                {field: some[int(random.integers(len(some)))] for field, some in values.items()}
            )
        )

    plain = np.stack([prose(LENGTH) for _ in range(ROWS)])
    noted = np.stack([np.concatenate([prose(LEAD), note()]) for _ in range(NOTES)])
    return torch.from_numpy(plain), torch.from_numpy(noted)


def hold_longer(checkpoint: Path, books: Path, out: Path) -> dict[str, Any]:
    """A checkpoint whose first layer holds notes for longer, in OUT; the facts of its making."""
    lm = load(checkpoint, device="cpu", dtype="float32")
    facts: dict[str, Any] = json.loads((checkpoint / "training.json").read_text(encoding="utf-8"))
    train, _ = split(books, tuple(facts["held_out"]))
    tokens = [np.array(lm.tokenizer.encode(book.text, bos=False)) for book in train]
    channels = stretch_gate(lm.model, 0, *rows_of(tokens, lm.tokenizer))
    about = {"instruction_tuned": True}
    save_model(lm.model.to(torch.bfloat16), out, tokenizer=lm.tokenizer, about=about)
    facts["gate_stretched"] = {"layer": 0, "by": STRETCH, "channels": channels}
    (out / "training.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return facts


if __name__ == "__main__":
    try:
        print(json.dumps(hold_longer(*(Path(word) for word in sys.argv[1:4])), indent=1))
    except TypeError:
        sys.exit("usage: python -m griffin_lm.training.memo.contrast CHECKPOINT BOOKS OUT")
    except GriffinError as error:
        sys.exit(str(error))
