"""What a conversation is made of: its places, the steps between them, and its note in a file."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..errors import InputError, StateError
from ..models import State
from .language_model import LanguageModel
from .reply import Reply

Role = Literal["user", "model", "note", "read"]
ROLES: tuple[Role, ...] = ("user", "model", "note", "read")
NOTE_BYTES = 32_768  # of transcript in a state file; what is older is left out


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A line of the transcript. For "read", the text is the file's name, not what stands in it."""

    role: Role
    text: str


@dataclass(frozen=True)
class Place:
    """Where a conversation stands. Never changed: what comes next is another place."""

    state: State
    entries: tuple[Entry, ...] = ()
    in_turn: bool = False  # a user's turn is open: a file was read and waits for the question


@dataclass(frozen=True)
class Step:
    """What can be taken back: the place before and, where a question was asked, the one after it.

    attempt: how often it was asked again. reading: the step only read a file for a question.
    """

    before: Place
    asked: Place | None = None
    attempt: int = 0
    reading: bool = False


@dataclass
class Branch:
    """A line of the conversation: where it stands, and the way back."""

    place: Place
    steps: list[Step] = field(default_factory=list[Step])
    reply: Reply | None = None  # the model's turn, not yet part of the place

    def states(self) -> list[State]:
        """The states that it holds, some of them perhaps twice."""
        places = [self.place]
        for step in self.steps:
            places += [step.before] if step.asked is None else [step.before, step.asked]
        return [place.state for place in places]


@dataclass(frozen=True, kw_only=True)
class Stats:
    """A conversation in figures.

    tokens         that the state stands for
    state_bytes    of the state
    cache_bytes    of the keys and values that a Gemma of this shape (attention over everything in
                   every layer) would hold by now
    kept_states, kept_bytes   of the states kept besides, for undo, retry and branches
    reply_tokens, reply_seconds   of the last reply; 0 before the first
    """

    tokens: int
    state_bytes: int
    cache_bytes: int
    kept_states: int
    kept_bytes: int
    reply_tokens: int
    reply_seconds: float


def cache_bytes(lm: LanguageModel, tokens: int) -> int:
    """What keys and values of attention over everything in every layer would occupy by now.

    Heads of keys as in the model's own attention, or one of width / heads where it has none; in the
    dtype of the weights.
    """
    config = lm.config
    width = config.width // max(int(getattr(config.pattern[0], "heads", 1)), 1)
    for mixer in config.pattern:
        if hasattr(mixer, "kv_heads"):
            width = int(getattr(mixer, "kv_heads", 1)) * int(getattr(mixer, "head_dim", width))
    return 2 * config.layers * width * lm.model.embed.weight.element_size() * tokens


def note_of(place: Place, template: str) -> dict[str, Any]:
    """The note of a chat's state file: {"kind": "chat", "template", "turn", "transcript"}.

    The transcript is JSON within, the latest entries of it that fit into NOTE_BYTES; "left_out"
    tells how many did not.
    """
    rows = [json.dumps({"role": each.role, "text": each.text}) for each in place.entries]
    size, first = 0, len(rows)
    while first and size + len(rows[first - 1]) + 2 <= NOTE_BYTES:
        first -= 1
        size += len(rows[first]) + 2
    return {
        "kind": "chat",
        "template": template,
        "turn": "user" if place.in_turn else "none",
        "transcript": f"[{', '.join(rows[first:])}]",
        "left_out": first,
    }


def place_from_note(
    state: State, note: Mapping[str, Any] | None, template: str, where: str
) -> Place:
    """Where a saved conversation stands; a state without a note of ours goes on between turns.

    Raises `StateError` where its turns are written in another template, or the note is damaged.
    """
    note = note or {}
    theirs = note.get("template", template)
    if theirs != template:
        raise StateError(
            f"{where} is a conversation in the template {theirs!r:.40}, and this model's turns are "
            f"written in {template!r}; go on with the model and options that it was made with"
        )
    try:
        rows = json.loads(str(note.get("transcript", "[]")))
        entries = tuple(Entry(role=row["role"], text=row["text"]) for row in rows)
        whole = all(each.role in ROLES and type(each.text) is str for each in entries)
    except (ValueError, TypeError, KeyError, RecursionError):
        entries, whole = (), False
    if not whole:
        raise StateError(f"{where}: the transcript in its note is damaged; save it again")
    return Place(state, entries, in_turn=note.get("turn") == "user")


def text_of_file(path: Path) -> str:
    """A file's text. Raises `InputError` where it can't be read, is empty, or is not UTF-8."""
    try:
        text = path.expanduser().read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"can't read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 (byte {error.start}); convert it") from error
    if not text:
        raise InputError(f"{path} is empty")
    return text
