"""Questions asked a hundred thousand tokens after the note: the second step to a longer recall.

    python -m griffin_lm.training.memo.far CHECKPOINT BOOKS OUT

Gates that are shut in prose (`retention`) leave a state of another scale behind than the readers
learned. Training by passages seldom meets a question so far from its note. Here novels with a note,
and without, are read once, without gradients, and the states kept at some distances; then questions
are trained from those states, beside short passages that hold the model to what it was (the
Kullback-Leibler divergence from it in prose, and notes nearby). The states grow stale as weights
change, by little: what comes of it is measured from the beginning of a text (`griffin evaluate`).
CHECKPOINT knows memos; its training.json says how many books it learned from, which must be those
of BOOKS, and which of them it may not learn from.
"""

import json
import math
import sys
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div

from ...checkpoints import save_model
from ...errors import DataError, GriffinError
from ...evals.memo_text import FIELDS, NO_NOTE, note_text, question_text, single_pieces
from ...inference import load
from ...models import Griffin, State
from ...text import Tokenizer
from . import retention
from .corpus import split

DISTANCES = (512, 4096, 16_384, 32_768, 49_152, 65_536, 81_920, 100_000, 114_000)
NOTED, PLAIN = 44, 20  # rows that are read so far, with a note and without
STEPS, RATE, CLIP = 400, 5e-4, 1.0
FAR, NEAR, AS_BEFORE = 0.5, 0.3, 1.0  # weights in the loss, of each far batch, near ones, and KL
_LEAD, _CHUNK = 32, 512  # tokens of prose before a note; tokens read per call
_PASSAGE = 200  # tokens of a near row
_ROWS, _LENGTH = 160, 2048  # of prose that gates are fitted to
_NOTES = 500  # rows with a note and a question that they are faithful to


class Texts:
    """Rows of tokens out of books: prose, notes and questions, all drawn by one generator."""

    def __init__(self, books: Sequence[np.ndarray], tokenizer: Tokenizer, seed: int = 0) -> None:
        self.books = [book for book in books if len(book) > _LENGTH]
        if not self.books:
            raise DataError(f"no book is {_LENGTH} tokens long")
        self.tokenizer = tokenizer
        self.random = np.random.default_rng(seed)
        self.values = {
            name: list(some.items()) for name, some in single_pieces(self.encode).items()
        }
        self.questions = [self.encode(question_text(name)) for name in FIELDS]
        self.refusal = self.encode(question_text(FIELDS[0]) + NO_NOTE)[len(self.questions[0])]
        self.bos = [] if tokenizer.bos_id is None else [tokenizer.bos_id]

    def encode(self, text: str) -> list[int]:
        """Tokens of a text in which markers are markers, without BOS."""
        return self.tokenizer.encode(text, bos=False, markers=True)

    def prose(self, length: int) -> list[int]:
        """A run of tokens from a random place of a random book."""
        long_enough = [book for book in self.books if len(book) > length]
        if not long_enough:
            raise DataError(f"no book is {length} tokens long")
        book = long_enough[int(self.random.integers(len(long_enough)))]
        at = int(self.random.integers(len(book) - length))
        return book[at : at + length].tolist()

    def note(self) -> tuple[list[int], list[int]]:
        """(a note's tokens, the first token of the answer to each field's question)."""
        drawn = {
            name: some[int(self.random.integers(len(some)))] for name, some in self.values.items()
        }
        words = {name: word for name, (word, _) in drawn.items()}
        return self.encode(note_text(words)), [token for _, token in drawn.values()]

    def noted(self, rows: int) -> tuple[Tensor, Tensor]:
        """(tokens (N, T), which of them belong to a note or to a question (N, T))."""
        tokens: list[list[int]] = []
        asked: list[list[bool]] = []
        for _ in range(rows):
            note, _ = self.note()
            question = self.questions[int(self.random.integers(len(FIELDS)))]
            parts = [(self.prose(40), False), (note, True), (self.prose(60), False)]
            parts += [(question, True), (self.prose(1), True), (self.prose(60), False)]
            tokens.append([token for part, _ in parts for token in part])
            asked.append([marked for part, marked in parts for _ in part])
        shortest = min(len(row) for row in tokens)
        return (
            torch.tensor([row[:shortest] for row in tokens]),
            torch.tensor([row[:shortest] for row in asked]),
        )

    def near(self, rows: int) -> tuple[Tensor, Tensor]:
        """(passages (N, _PASSAGE) that end with a question, first tokens of their answers (N))."""
        tokens: list[list[int]] = []
        answers: list[int] = []
        for _ in range(rows):
            note, right = self.note()
            asked = int(self.random.integers(len(FIELDS)))
            noted = self.random.random() < 0.7
            since = self.prose(int(self.random.integers(1, 90)))
            row = [*(note if noted else []), *since, *self.questions[asked]]
            tokens.append(self.prose(_PASSAGE - len(row)) + row)
            answers.append(right[asked] if noted else self.refusal)
        return torch.tensor(tokens), torch.tensor(answers)


class FarStates:
    """States of long texts, NOTED of them with a note near their beginning, at each distance."""

    def __init__(
        self,
        model: Griffin,
        texts: Texts,
        distances: Sequence[int],
        said: Callable[[str], None],
        rows: tuple[int, int],
    ) -> None:
        noted, plain = rows
        self.noted, self.distances, self.texts = noted, distances, texts
        begun: list[list[int]] = []
        answers: list[list[int]] = []
        for row in range(noted + plain):
            note, right = texts.note()
            begun.append(texts.bos + texts.prose(_LEAD) + (note if row < noted else []))
            answers.append(right if row < noted else [texts.refusal] * len(FIELDS))
        self.answers = torch.tensor(answers)
        length = distances[-1] + _CHUNK
        self.gaps = torch.tensor([texts.prose(length) for _ in range(noted + plain)])
        self.states: list[State] = []
        with torch.no_grad():
            beginnings = [model(torch.tensor(rows), logits=None)[1] for rows in _by_length(begun)]
            state, at = State.concat(beginnings), 0
            for distance in distances:
                while at < distance:
                    chunk = self.gaps[:, at : min(at + _CHUNK, distance)]
                    _, state = model(chunk, state=state, logits=None)
                    at += chunk.shape[1]
                self.states.append(state)
                said(f"read {distance} tokens")

    def batch(self, noted: int = 11, plain: int = 5) -> tuple[State, Tensor, Tensor]:
        """(states, tokens that lead to a question and ask it, first tokens of the answers)."""
        random = self.texts.random
        at, asked = (int(random.integers(len(some))) for some in (self.distances, FIELDS))
        with_note = random.permutation(self.noted)[:noted]
        without = self.noted + random.permutation(len(self.answers) - self.noted)[:plain]
        rows = torch.from_numpy(np.sort(np.concatenate([with_note, without])))
        begin = self.distances[at]
        lead = self.gaps[rows, begin : begin + int(random.integers(1, 48))]
        question = torch.tensor(self.texts.questions[asked]).expand(len(rows), -1)
        tokens = torch.cat([lead, question], 1)
        return self.states[at][rows], tokens, self.answers[rows, asked]


def _by_length(rows: list[list[int]]) -> list[list[list[int]]]:
    """Neighbours of one length, together."""
    groups: list[list[list[int]]] = []
    for row in rows:
        if not groups or len(groups[-1][0]) != len(row):
            groups.append([])
        groups[-1].append(row)
    return groups


def train_readers(
    model: Griffin, before: Griffin, far: FarStates, said: Callable[[str], None], steps: int
) -> dict[str, float]:
    """Trains all but the embedding, in place; the last steps' means.

    before: what the model is held to in passages.
    """
    model.embed.requires_grad_(False)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.Adam(weights, lr=RATE, betas=(0.9, 0.98))
    seen: dict[str, list[float]] = {"far": [], "far_right": [], "near": [], "moved": []}
    means: dict[str, float] = {}
    for step in range(steps):
        warm = min(1.0, (step + 1) / 20)
        optimizer.param_groups[0]["lr"] = RATE * warm * (1 + math.cos(math.pi * step / steps)) / 2
        loss = torch.zeros(())
        for _ in range(2):
            state, tokens, answers = far.batch()
            logits = _logits(model, tokens, state)
            loss = loss + FAR * cross_entropy(logits, answers)
            seen["far"].append(float(cross_entropy(logits.detach(), answers)))
            seen["far_right"].append(float((logits.argmax(-1) == answers).float().mean()))
        tokens, answers = far.texts.near(8)
        logits = model(tokens)[0]
        with torch.no_grad():
            was = before(tokens)[0]
        assert logits is not None and was is not None
        now, was = (found.float()[:, :-1].log_softmax(-1) for found in (logits, was))
        moved = kl_div(now, was, log_target=True, reduction="none").sum(-1).mean()
        near = cross_entropy(logits[:, -1].float(), answers)
        loss = loss + NEAR * near + AS_BEFORE * moved
        seen["near"].append(float(near.detach()))
        seen["moved"].append(float(moved.detach()))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, CLIP)
        optimizer.step()
        means = {name: float(np.mean(found[-100:])) for name, found in seen.items()}
        if (step + 1) % 50 == 0:
            said(f"step {step + 1}: " + ", ".join(f"{n} {x:.4f}" for n, x in means.items()))
    model.embed.requires_grad_(True)
    return means


def _logits(model: Griffin, tokens: Tensor, state: State) -> Tensor:
    logits = model(tokens, state=state, logits="last")[0]
    assert logits is not None
    return logits.float()


def recall_farther(
    checkpoint: Path, books: Path, out: Path, said: Callable[[str], None] = print
) -> dict[str, Any]:
    """A checkpoint that recalls notes from farther back, in OUT; the facts of its making."""
    lm = load(checkpoint, device="cpu", dtype="float32")
    file = checkpoint / "training.json"
    facts: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    train, _ = split(books, tuple(facts["held_out"]))
    if len(train) != facts["train_books"]:
        raise DataError(
            f"{books} has {len(train)} books to learn from, and this checkpoint learned from "
            f"{facts['train_books']}: name the same ones"
        )
    tokens = [np.array(lm.tokenizer.encode(book.text, bos=False)) for book in train]
    texts, before = Texts(tokens, lm.tokenizer), deepcopy(lm.model)
    prose = torch.tensor([texts.prose(_LENGTH) for _ in range(_ROWS)])
    noted, asked = texts.noted(_NOTES)
    fits: list[retention.Fit] = []
    for layer, block in enumerate(lm.model.blocks):
        if hasattr(block.mixer, "cell"):
            fits += retention.shut_gates(lm.model, layer, prose, noted, asked, retention.STEPS)
            said(f"layer {layer}: {sum(fit.layer == layer for fit in fits)} channels")
    far = FarStates(lm.model, texts, DISTANCES, said, (NOTED, PLAIN))
    means = train_readers(lm.model, before, far, said, STEPS)
    about = {"instruction_tuned": True}
    save_model(lm.model.to(torch.bfloat16), out, tokenizer=lm.tokenizer, about=about)
    channels = {
        str(n): sum(fit.layer == n for fit in fits) for n in sorted({f.layer for f in fits})
    }
    facts["gates_shut_in_prose"] = {"channels": channels}
    facts["asked_far"] = {"distances": list(DISTANCES), "steps": STEPS} | means
    (out / "training.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return facts


if __name__ == "__main__":
    try:
        given, books, out = (Path(word) for word in sys.argv[1:])
        recall_farther(given, books, out)
    except ValueError:
        sys.exit("usage: python -m griffin_lm.training.memo.far CHECKPOINT BOOKS OUT")
    except GriffinError as error:
        sys.exit(str(error))
