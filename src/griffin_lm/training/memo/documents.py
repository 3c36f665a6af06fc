"""Memo rows: a marked note in running prose, asked for after a growing distance.

    <note>The name is Emma, the place is Bath, the number is 47.</note> ... prose ...
    <user>What is the place?<model> Bath<end>
    <user>What is the name?<model> There is no such note.<end>       (when there was no note)

Every value is one token, and the first token of an answer decides: a value, or "There".
"""

from typing import NamedTuple

import numpy as np
import sentencepiece

from ...evals.memo_text import FIELDS, NO_NOTE, note_text, question_text
from .curriculum import Curriculum

NO_ANSWER, VALUE, NOTHING = 0, 1, 2  # kinds of target tokens
OPENS_WITH_QUESTION = 0.3  # of the documents: asked before there was any note
_LATER_GAP = 256  # further questions about a note follow within this many tokens


class MemoTokens:
    """Notes, questions and answers in tokens of one vocabulary."""

    def __init__(
        self, vocabulary: sentencepiece.SentencePieceProcessor, values: dict[str, dict[str, int]]
    ) -> None:
        self.vocabulary = vocabulary
        self.values = {field: list(values[field].items()) for field in FIELDS}
        self.bos = vocabulary.bos_id()
        self.end = vocabulary.piece_to_id("<end>")
        self.questions = {f: vocabulary.encode(question_text(f)) for f in FIELDS}
        whole = vocabulary.encode(question_text("name") + NO_NOTE)
        self.no_note = whole[len(self.questions["name"]) :]

    def draw(self, random: np.random.Generator, fields: tuple[str, ...]) -> dict[str, int]:
        """Per field, the index of a value."""
        return {field: int(random.integers(len(self.values[field]))) for field in fields}

    def note(self, drawn: dict[str, int]) -> list[int]:
        """The tokens of a note."""
        words = {field: self.values[field][index][0] for field, index in drawn.items()}
        return self.vocabulary.encode(note_text(words))

    def answer(self, field: str, drawn: dict[str, int] | None) -> list[int]:
        """The tokens of the right answer; `drawn` None: there was no note."""
        if drawn is None or field not in drawn:
            return self.no_note
        return [self.values[field][drawn[field]][1], self.end]


class Document(NamedTuple):
    """One document: tokens (N,) uint16, and per token what it is as a target.

    kind: NO_ANSWER, VALUE (first token of an answer from the note) or NOTHING (of "no such note").
    field: index into FIELDS; gap: tokens between the note (or the start) and the question.
    """

    tokens: np.ndarray
    kind: np.ndarray
    field: np.ndarray
    gap: np.ndarray


def memo_document(
    prose: np.ndarray, memo: MemoTokens, course: Curriculum, random: np.random.Generator
) -> Document:
    """A document from a random place of the prose, as hard as the curriculum stands."""
    fields = FIELDS[: course.fields]
    plan: list[tuple[str, int, str]] = []  # (what, prose before it, field)
    if random.random() < OPENS_WITH_QUESTION:
        plan.append(("nothing", log_uniform(random, 4, course.longest), _pick(random, fields)))
    plan.append(("note", log_uniform(random, 1, 64), ""))
    gap = log_uniform(random, 4, course.longest)
    for field in _asked(random, fields, course.weakest()):
        plan.append(("value", gap, field))
        gap = log_uniform(random, 4, min(course.longest, _LATER_GAP))
    tail = log_uniform(random, 1, 32)
    return lay_out(prose, memo, plan, tail, memo.draw(random, fields), random)


def lay_out(
    prose: np.ndarray,
    memo: MemoTokens,
    plan: list[tuple[str, int, str]],
    tail: int,
    drawn: dict[str, int],
    random: np.random.Generator,
) -> Document:
    """A document by plan: each step is ("note" | "value" | "nothing", prose before it, field)."""
    needed = sum(before for _, before, _ in plan) + tail
    at = int(random.integers(max(1, len(prose) - needed)))
    parts: list[list[int] | np.ndarray] = [[memo.bos]]
    marks: list[tuple[int, int, int, int]] = []  # (place, kind, field, gap)
    length, since = 1, 0
    for what, before, field in plan:
        parts.append(prose[at : at + before])
        at, length, since = at + before, length + before, since + before
        if what == "note":
            added = memo.note(drawn)
        else:
            question = memo.questions[field]
            kind = VALUE if what == "value" else NOTHING
            marks.append((length + len(question), kind, FIELDS.index(field), since))
            added = question + memo.answer(field, drawn if kind == VALUE else None)
        parts.append(added)
        length += len(added)
        since = 0 if what == "note" else since + len(added)
    parts.append(prose[at : at + tail])
    tokens = np.concatenate([np.asarray(part, dtype=np.uint16) for part in parts])
    kind, field_of, gap_of = (np.zeros(len(tokens), dtype=np.int32) for _ in range(3))
    for place, *labels in marks:
        kind[place], field_of[place], gap_of[place] = labels
    return Document(tokens, kind, field_of, gap_of)


def log_uniform(random: np.random.Generator, low: int, high: int) -> int:
    """An integer in [low, high], its logarithm uniform."""
    high = max(high, low)
    return int(np.exp(random.uniform(np.log(low), np.log(high + 1))))


def _pick(random: np.random.Generator, fields: tuple[str, ...]) -> str:
    return fields[int(random.integers(len(fields)))]


def _asked(random: np.random.Generator, fields: tuple[str, ...], weakest: int) -> list[str]:
    """Each field once in random order; half the time the one that is known worst comes first."""
    order = [fields[int(index)] for index in random.permutation(len(fields))]
    if random.random() < 0.5:
        order.sort(key=lambda field: field != fields[weakest])
    return order
