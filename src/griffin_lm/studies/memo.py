"""Memo and needle by distance: small models taught to keep one value, and the bundled model."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from sentencepiece import SentencePieceProcessor

from ..evals.memo_text import FIELDS, single_pieces
from ..evals.needle import measure_needle
from ..evals.recall import measure_recall
from ..evals.report import read_texts
from ..inference import load
from ..inference.resolution import BUNDLED
from ..models import Griffin
from ..shapes import JSON
from ..text import Tokenizer, load_tokenizer
from ..training.batch import Batch
from ..training.memo.curriculum import Curriculum
from ..training.memo.documents import NO_ANSWER, MemoTokens, memo_document
from .architectures import LABELS, Shape, inner_parameters, sized
from .fit import Draw, Recipe, batch_of, fit, trainer_for
from .page import verdict
from .study import Cell, Done, Line, Panel, Place, Table, of_kind
from .texts import books_file, novels

TRIAL = "memo"  # of its cells
FIRST_GAP = 8
PROSE = 0.6  # weight of all prose of a batch beside that of all its answers
BOOKS = ("ENG18471", "ENG18540", "ENG18621", "ENG18911", "ENG18952", "ENG19080")  # fledgling's own


@dataclass(frozen=True, kw_only=True)
class Memo:
    """How the small models are taught, and at which distances all are asked.

    longest: gap in training; it doubles from FIRST_GAP to this in the first half of the steps, for
    all alike. far: distances of the bundled model, which has three fields. farthest: the longest
    for models with global attention. rows: asked, each with and without a note.
    """

    shape: Shape
    recipe: Recipe
    longest: int
    distances: tuple[int, ...]
    far: tuple[int, ...]
    farthest: int
    rows: int
    rate: float = 0.004
    seed: int = 0
    characters: int = 12_000_000
    architectures: tuple[str, ...] = ("griffin", "hawk", "mqa", "local")


def plan(memo: Memo) -> list[Cell]:
    """A cell for each architecture, and the bundled model's."""
    asked = {"trial": TRIAL, "rows": memo.rows, "seed": memo.seed}
    taught = asked | {
        "shape": vars(memo.shape),
        "recipe": asdict(memo.recipe),
        "longest": memo.longest,
        "rate": memo.rate,
        "distances": list(memo.distances),
    }
    cells = [
        Cell(f"memo-{name}-rate{memo.rate:g}-seed{memo.seed}", taught | {"architecture": name})
        for name in memo.architectures
    ]
    own = asked | {"architecture": "fledgling", "distances": list(memo.far)}
    return [*cells, Cell("memo-fledgling", own)]


def measure(memo: Memo, cell: Cell, place: Place) -> JSON:
    """Shares of right answers and the needle's gain, by distance."""
    name = cell.settings["architecture"]
    if name == "fledgling":
        lm = load("fledgling", device=place.device, dtype="float32")
        return {
            "state_bytes": lm.model.empty_state(1).nbytes,
            "parameters": inner_parameters(lm.model.config),
            **_asked(
                memo, lm.model, lm.tokenizer, _held_out(place, lm.tokenizer), FIELDS, memo.far
            ),
        }
    tokenizer = load_tokenizer(BUNDLED["fledgling"])
    corpus = novels(place.data, memo.characters, True)
    config = sized(name, memo.shape)
    draw = rows_of(corpus.train, memo)
    trainer = trainer_for(config, draw, memo.recipe, memo.rate, memo.seed, place)
    trained = fit(trainer, memo.recipe.steps)
    model: Griffin = trainer.model
    grows = bool(model.empty_state(1).bytes_per_token)
    distances = [d for d in memo.distances if not grows or d <= memo.farthest]
    return {
        "parameters": inner_parameters(config),
        "state_bytes": model.empty_state(1).nbytes,
        "texts": corpus.source,
        **_asked(memo, model, tokenizer, corpus.test, FIELDS[:1], distances),
        **trained,
    }


def rows_of(prose: np.ndarray, memo: Memo) -> Draw:
    """Rows filled with documents of one field, the last one cut off."""
    vocabulary = SentencePieceProcessor(model_file=str(BUNDLED["fledgling"] / "tokenizer.model"))
    words = MemoTokens(vocabulary, single_pieces(vocabulary.encode))
    recipe = memo.recipe

    def draw(random: np.random.Generator, step: int) -> Batch:
        course = Curriculum(fields=1)
        course.longest = gap_at(step, recipe.steps, memo.longest)
        tokens = np.zeros((recipe.rows, recipe.length + 1), dtype=np.int64)
        starts = np.zeros(tokens.shape, dtype=bool)
        answers = np.zeros(tokens.shape, dtype=bool)
        for row in range(recipe.rows):
            at = 0
            while at <= recipe.length:
                document = memo_document(prose, words, course, random)
                count = min(len(document.tokens), recipe.length + 1 - at)
                tokens[row, at : at + count] = document.tokens[:count]
                answers[row, at : at + count] = document.kind[:count] != NO_ANSWER
                starts[row, at] = True
                at += count
        due, prosaic = answers[:, 1:], ~answers[:, 1:] & ~starts[:, 1:]
        weight = due / max(1, due.sum()) + PROSE * prosaic / max(1, prosaic.sum())
        batch = batch_of(tokens[:, :-1], tokens[:, 1:], weight)
        return batch._replace(starts=torch.from_numpy(starts[:, :-1]))

    return draw


def gap_at(step: int, steps: int, longest: int) -> int:
    """The longest gap at a step: doubled at equal intervals in the first half."""
    doublings = (longest // FIRST_GAP).bit_length() - 1
    return min(longest, FIRST_GAP << (2 * step * (doublings + 1) // max(1, steps)))


def _held_out(place: Place, tokenizer: Tokenizer) -> list[np.ndarray]:
    path = books_file(place.data)
    texts = read_texts(path or BUNDLED["fledgling"] / "book.txt", BOOKS if path else ())
    return [np.array(tokenizer.encode(text, bos=False)) for text in texts.values()]


def _asked(
    memo: Memo,
    model: Griffin,
    tokenizer: Tokenizer,
    prose: Sequence[np.ndarray],
    fields: Sequence[str],
    distances: Sequence[int],
) -> JSON:
    """{"recall", "refused": {distance: share of all fields}, "needle": {distance: figures}}."""
    cells = measure_recall(model, tokenizer, prose, distances, memo.rows, fields=fields)
    needles = measure_needle(model, tokenizer, prose, distances, memo.rows)

    def share(distance: int, noted: bool) -> float:
        some = [cell for cell in cells if cell.distance == distance and cell.noted == noted]
        return round(sum(cell.right for cell in some) / sum(cell.n for cell in some), 4)

    return {
        "recall": {str(distance): share(distance, True) for distance in distances},
        "refused": {str(distance): share(distance, False) for distance in distances},
        "needle": {
            str(cell.distance): {"best": round(cell.best / cell.n, 4), "gain": round(cell.gain, 4)}
            for cell in needles
        },
    }


def found(memo: Memo, done: Done) -> dict[str, JSON]:
    """Figures by architecture, "fledgling" among them, of the cells that are there."""
    names = [*memo.architectures, "fledgling"]
    every = {name: of_kind(done, trial=TRIAL, architecture=name) for name in names}
    return {name: runs[0][1] for name, runs in every.items() if runs}


def label(name: str) -> str:
    """Of an architecture; the bundled model by its name."""
    return LABELS.get(name, name)


def tables(memo: Memo, done: Done) -> list[Table]:
    """Recall, refusals and the needle by distance."""
    every = found(memo, done)
    distances = sorted({*memo.distances, *memo.far})
    head = ["", *(f"{distance:,}" for distance in distances)]

    def rows(key: str, inner: str = "", form: str = ".2f") -> list[list[str]]:
        made: list[list[str]] = []
        for name, figures in every.items():
            values = [figures[key].get(str(distance)) for distance in distances]
            values = [value[inner] if inner and value else value for value in values]
            shown = ["–" if value is None else format(value, form) for value in values]
            made.append([label(name), *shown])
        return made

    return [
        Table("memo: recall by tokens since the note", head, rows("recall")),
        Table('memo: "no such note" said where there was none', head, rows("refused")),
        Table(
            "needle: nats by which its digits are likelier", head, rows("needle", "gain", "+.2f")
        ),
    ]


def verdicts(memo: Memo, done: Done) -> list[str]:
    """Hypothesis 4. Inside: up to the window; beyond: past what attention's layers chain."""
    every = found(memo, done)
    reach = memo.shape.window * memo.shape.layers
    inside = [d for d in memo.distances if d <= memo.shape.window]
    beyond = [d for d in memo.distances if reach < d <= 8 * memo.longest]
    said: list[str] = []

    def mean(name: str, distances: Sequence[int]) -> float:
        shares = [every[name]["recall"].get(str(d)) for d in distances]
        return float(np.mean([share for share in shares if share is not None]))

    for name in memo.architectures:
        if name not in every or not inside or not beyond or name == "mqa":
            continue
        near, far = mean(name, inside), mean(name, beyond)
        if name == "local":
            claim = "4, memo: local attention at chance (below 0.05) beyond its reach"
            said.append(verdict(claim, far < 0.05, f"{far:.2f}, inside {near:.2f}"))
        else:
            claim = f"4, memo: {LABELS[name]} recalls beyond what it recalls inside (within 0.05)"
            held = None if near < 0.5 else far >= near - 0.05
            said.append(verdict(claim, held, f"{far:.2f}, inside {near:.2f}"))
    gains = {
        name: max(one["gain"] for d, one in figures["needle"].items() if int(d) >= reach)
        for name, figures in every.items()
        if any(int(d) >= reach for d in figures["needle"])
    }
    if gains:
        each = ", ".join(f"{label(name)} {gain:+.2f}" for name, gain in gains.items())
        claim = "4, a needle in other words is recalled by none (gain below 1 nat from there on)"
        said.append(verdict(claim, max(gains.values()) < 1, each))
    return said


def panels(memo: Memo, done: Done) -> list[Panel]:
    """Recall by distance."""
    lines = [
        Line(name, [int(d) for d in figures["recall"]], list(figures["recall"].values()))
        for name, figures in found(memo, done).items()
    ]
    return [Panel("memo, by distance", "tokens since the note", "recall", lines)]
