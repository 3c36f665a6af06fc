"""What can be done with sessions: append, fork, return to a mark, take elsewhere.

Whatever returned is on the disk. So there is nothing to park, a restart loses nothing, and several
processes may serve the sessions of one directory.
"""

import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ...errors import InputError, SessionError
from ...models import State
from ...models.state_file import read_note
from ...text import Turn, TurnTemplate, encode_turns
from ...text.chat import encode_parts, markers_first
from ..language_model import LanguageModel
from .store import HEAD, Store, link

MARKS = 8  # earlier heads that a session keeps
PART = 256  # tokens that are read in one request, and after which a reading may be stopped

Read = Callable[[list[int], State | None], State]


@dataclass(frozen=True, kw_only=True)
class Info:
    """A session as it stands.

    tokens     read, with the one that is pending
    in_turn    it stands inside a user's turn, which a question will end
    marks      numbers of tokens at which one can return to it
    nbytes     of its file
    created    seconds since 1970
    """

    name: str
    tokens: int
    in_turn: bool
    marks: tuple[int, ...]
    nbytes: int
    created: int


class Sessions:
    """The sessions in a store, for one model.

    read: reads ids after a state (None: nothing read yet) and returns the state, the last id
    pending; `inference.engine` does it among other requests.
    """

    def __init__(self, lm: LanguageModel, store: Store, read: Read, marks: int = MARKS) -> None:
        self.lm, self.store, self.read, self.marks = lm, store, read, marks

    def create(self, owner: str, name: str | None = None) -> Info:
        """A session that has read nothing. Raises `SessionError` where it is there."""
        name = name or f"sess_{secrets.token_hex(12)}"
        with self.store.lease(owner, name, new=True) as place:
            state = self.lm.model.empty_state(1)
            self.store.write(place, state, _note(state, int(time.time()), in_turn=False))
        return self.info(owner, name)

    def info(self, owner: str, name: str) -> Info:
        """A session as it stands. Raises `SessionError` where there is none."""
        head = self.store.head(owner, name)
        note = read_note(head) or {}
        return Info(
            name=name,
            tokens=int(note.get("tokens", 0)),
            in_turn=note.get("turn") == "user",
            marks=tuple(self.store.marks(owner, name)),
            nbytes=head.stat().st_size,
            created=int(note.get("created", 0)),
        )

    def every(self, owner: str) -> tuple[Info, ...]:
        """The owner's sessions, by name."""
        found: tuple[Info, ...] = ()
        for name in self.store.names(owner):
            try:
                found = (*found, self.info(owner, name))
            except SessionError:  # deleted meanwhile
                continue
        return found

    def state(self, owner: str, name: str) -> tuple[State, bool]:
        """A session's state, and whether it stands inside a user's turn."""
        head = self.store.head(owner, name)
        note = read_note(head) or {}
        return State.load(head, self.lm), note.get("turn") == "user"

    def append(
        self,
        owner: str,
        name: str,
        text: Iterable[str],
        raw: bool = False,
        note: bool = False,
        going_on: Callable[[State], bool] = lambda _: True,
    ) -> Info:
        """Reads a text that comes in pieces, of any length, at constant memory.

        For a model that was taught to have files in the user's turn, that turn is opened, if it is
        not yet (`raw`: not). The head is changed once, at the end: an append that fails has not
        been, and where the last one ended is a mark. Ids are those of the whole text. A `note`
        stands between the marks that the model was taught for notes, or on a line of its own.
        `going_on` is shown the state after every part; where it says no, the text ends there.
        """
        with self.store.lease(owner, name) as place:
            head = read_note(place / HEAD) or {}
            state = State.load(place / HEAD, self.lm)
            before, in_turn = int(state.tokens), head.get("turn") == "user"
            after: State | None = None
            opens = self._opens_turn and not raw and not in_turn
            for part in self._ids(text, opens, before == 0, note):
                after = self.read(part, state if after is None else after)
                if not going_on(after):
                    break
            if after is None:
                raise InputError("there is nothing to append in an empty text")
            self.store.mark(place, before, self.marks)
            created = int(head.get("created", time.time()))
            self.store.write(place, after, _note(after, created, in_turn or opens))
        return self.info(owner, name)

    def put(self, owner: str, name: str, state: State, in_turn: bool = False) -> Info:
        """A new session with this state."""
        with self.store.lease(owner, name, new=True) as place:
            self.store.write(place, state, _note(state, int(time.time()), in_turn))
        return self.info(owner, name)

    def fork(self, owner: str, name: str, new: str | None = None) -> Info:
        """Another session that stands where this one does, with its marks; nothing is copied."""
        new = new or f"sess_{secrets.token_hex(12)}"
        head, marks = self.store.head(owner, name), self.store.marks(owner, name)
        with self.store.lease(owner, new, new=True) as place:
            for mark in marks.values():
                if mark.is_file():
                    link(mark, place / mark.name)
            link(head, place / HEAD)
        return self.info(owner, new)

    def rewind(self, owner: str, name: str, tokens: int) -> Info:
        """Returns to a mark; later marks are gone.

        Raises `InputError` where there is none at so many tokens, naming the nearest.
        """
        with self.store.lease(owner, name) as place:
            marks = self.store.marks(owner, name)
            if tokens not in marks:
                near = sorted(marks, key=lambda mark: abs(mark - tokens))[:1]
                raise InputError(
                    f"no mark at {tokens} tokens; "
                    + (f"the nearest is at {near[0]}" if near else "this session has none yet")
                )
            link(marks[tokens], place / HEAD)
            for at, file in marks.items():
                if at >= tokens:
                    file.unlink(missing_ok=True)
        return self.info(owner, name)

    def upload(self, owner: str, name: str, file: Path) -> Info:
        """A new session from a state file, of any machine. Raises `StateError` for a wrong one."""
        note = read_note(file) or {}
        state = State.load(file, self.lm)
        if state.batch_size != 1:
            raise InputError(f"a session is one row; the file has {state.batch_size}")
        return self.put(owner, name, state, note.get("turn") == "user")

    def delete(self, owner: str, name: str) -> None:
        """Deletes a session with its marks. Raises `SessionError` where there is none."""
        with self.store.lease(owner, name) as place:
            (place / HEAD).unlink()

    @property
    def _opens_turn(self) -> bool:
        """Whether the model was taught to have files inside the user's turn."""
        return self._template is not None and self._template.files_in_turn

    @property
    def _template(self) -> TurnTemplate | None:
        return self.lm.tokenizer.turn if self.lm.instruction_tuned else None

    def _ids(
        self, text: Iterable[str], opens: bool, empty: bool, note: bool
    ) -> Iterator[list[int]]:
        """The ids of a text in parts, after BOS and a turn's opening where they belong."""
        tokenizer, template = self.lm.tokenizer, self._template
        if note:
            words = "".join(text).strip()
            if words and template is not None and template.note is not None:
                turn = Turn(role="note", text=words)
                yield encode_turns(
                    tokenizer, template, [turn], bos=empty, open_model=False, continues=not empty
                )
                return
            text = ("\n", words, "\n") if words else ()
        waiting, opening = tokenizer.encode("", bos=empty), ""
        continues = not empty
        if opens and template is not None:
            ids, opening = markers_first(tokenizer.split_markers(template.user_open))
            waiting += encode_parts(tokenizer, ids, bos=False, continues=continues)
            continues = True
        encoder = tokenizer.encoder(False, continues=continues)
        encoder.feed(opening)
        some = False
        for piece in text:
            some = some or bool(piece)
            waiting += encoder.feed(piece)
            if len(waiting) > PART:  # the last part is never an empty one
                *whole, waiting = _parts(waiting)
                yield from whole
        waiting += encoder.finish()
        if some and waiting:
            yield from _parts(waiting)


def _parts(ids: list[int]) -> list[list[int]]:
    return [ids[at : at + PART] for at in range(0, len(ids), PART)]


def _note(state: State, created: int, in_turn: bool) -> dict[str, object]:
    return {
        "kind": "session",
        "turn": "user" if in_turn else "none",
        "created": created,
        "tokens": int(state.tokens),
    }
