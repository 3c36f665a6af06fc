"""A conversation as a state: undo, retry and forks keep states, not text to be read again.

The state after a conversation is that of `encode_turns` over its turns, whatever was undone, cut
short or reopened on the way. Where a model writes a turn in other pieces than the vocabulary would
(or is cut short), its turn is read once more, as the vocabulary writes it.
"""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path

from ..errors import InputError, StateError
from ..models import State
from ..models.state_file import read_note
from ..text import PLAIN, Turn, TurnTemplate, encode_turns
from ..text.chat import encode_parts
from .generate import GenerateOptions, Generation
from .language_model import LanguageModel
from .reading import read_tokens
from .reply import Reply
from .sampling import SEED_LIMIT
from .text_reader import Reading
from .text_reading import read_text
from .transcript import (
    Branch,
    Entry,
    Place,
    Stats,
    Step,
    cache_bytes,
    note_of,
    place_from_note,
    text_of_file,
)

UNDO = 8  # exchanges that can be taken back
OPTIONS = GenerateOptions(max_new_tokens=1024, temperature=0.7, top_p=0.95)
Progress = Callable[[int, int], None]


class Conversation:
    """A conversation with a language model.

    lm         the model; one that is not instruction-tuned, or whose vocabulary has no turn
               markers, is talked to in plain words ("User: ...", "Assistant: ...")
    options    of sampling, for every reply. Without a seed one is drawn; a retry takes the next
    system     a text for the head of the first user turn (the templates have no system role)
    undo       exchanges that can be taken back: each keeps up to two states in memory
    template   another turn template than the model's own

    A text of any length may be read: the state stays as large as it is, nothing is ever cut off;
    what is long ago fades.
    """

    def __init__(
        self,
        lm: LanguageModel,
        options: GenerateOptions = OPTIONS,
        system: str = "",
        undo: int = UNDO,
        template: TurnTemplate | None = None,
    ) -> None:
        own = lm.tokenizer.turn if lm.instruction_tuned else None
        self.lm, self.options, self.system, self.undo_limit = lm, options, system, undo
        self.template = template or own or PLAIN
        seed = options.seed if isinstance(options.seed, int) else secrets.randbelow(SEED_LIMIT)
        self.seed = seed
        self.branches = {"main": Branch(Place(lm.model.empty_state(1)))}
        self.name = "main"
        self._last: Reply | None = None

    @property
    def branch(self) -> Branch:
        """The line of the conversation that goes on."""
        return self.branches[self.name]

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The transcript, with as much of the model's turn as has come."""
        branch = self.branch
        if branch.reply is None:
            return branch.place.entries
        return (*branch.place.entries, Entry(role="model", text=self._text_of(branch.reply)))

    @property
    def state(self) -> State:
        """What the model has read; the model's turn is closed, a file's is not."""
        return self._settled().state

    # ---- what moves on

    def say(self, text: str, progress: Progress | None = None) -> Reply:
        """Reads the user's turn and returns the model's, to be iterated.

        A turn of the model that was cut short is closed before. `progress` is called with (tokens
        read, tokens in all). Raises `InputError` for an empty text, or one that the vocabulary
        cannot write as plain text; the conversation then stands where it stood.
        """
        place = self._settled()
        if not text.strip() and not place.in_turn:
            raise InputError("there is nothing to say in an empty text")
        said = self._after_system(place, text)
        if place.in_turn:
            closing = self.lm.tokenizer.split_markers(self.template.user_close)
            parts = [self.template.guard(f"\n\n{text}"), *closing]
            ids = encode_parts(self.lm.tokenizer, parts, bos=False, continues=True)
        else:
            ids = self._encode(place, Turn(role="user", text=said))
        asked = Place(
            self._read(place.state, ids, progress),
            (*place.entries, Entry(role="user", text=text if place.in_turn else said)),
        )
        return self._answer(Step(self._before(place), asked))

    def retry(self) -> Reply:
        """The last question once more, from the state after it, with the next seed.

        At temperature 0 the reply is the same again. Raises `InputError` without a question.
        """
        steps = self.branch.steps
        if not steps or steps[-1].asked is None:
            raise InputError("there is no question to ask again; say something first")
        last = steps.pop()
        return self._answer(replace(last, attempt=last.attempt + 1))

    def undo(self) -> tuple[Entry, ...]:
        """Takes back the last exchange, note, reading or loading; returns what was taken back.

        The state is the very one from before. Raises `InputError` where nothing is left.
        """
        branch = self.branch
        if not branch.steps:
            raise InputError(f"nothing to undo; the last {self.undo_limit} exchanges are kept")
        gone = self.entries
        branch.place, branch.reply = branch.steps.pop().before, None
        kept = len(branch.place.entries)
        return gone[kept:] if gone[:kept] == branch.place.entries else ()

    def read(self, path: Path, progress: Progress | None = None) -> int:
        """Reads a file of UTF-8, of any length, for the next question; returns the tokens read.

        It stands in the user's turn, before the question, or before that turn where the model was
        taught so. `progress` is called with (bytes read, bytes in all). Raises `InputError` where
        the file can't be read; interrupted or failed, the conversation stands where it stood.
        """
        place, template = self._settled(), self.template
        if (
            template.line_starts
        ):  # no line of it may open a turn: as a whole, it has to be looked at
            state = self._read_whole(place, text_of_file(path), progress)
        else:
            state = self._read_stream(place, path.expanduser(), progress)
        entry = Entry(role="read", text=path.name)
        after = Place(state, (*place.entries, entry), in_turn=template.files_in_turn)
        self._move(Step(self._before(place), reading=after.in_turn), after)
        return int(state.tokens) - int(place.state.tokens)

    def note(self, text: str) -> None:
        """Reads a note, between the turns. Raises `InputError` for a model that knows no notes."""
        if self.template.note is None:
            raise InputError("this model was taught no notes; say it in a turn of yours")
        place = self._settled()
        state = self._read(place.state, self._encode(place, Turn(role="note", text=text)))
        after = Place(state, (*place.entries, Entry(role="note", text=text)))
        self._move(Step(place), after)

    # ---- branches

    def fork(self, name: str) -> None:
        """Goes on under a new name from here; the branch left behind stays as it is.

        Raises `InputError` where the name is taken or empty.
        """
        if name in self.branches or not name:
            raise InputError(f"there is a branch {name!r} already" if name else "give it a name")
        place = self._settled()
        self.branches[name] = Branch(place, list(self.branch.steps))
        self.name = name

    def switch(self, name: str) -> None:
        """Goes on with another branch. Raises `InputError` where there is none of that name."""
        if name not in self.branches:
            raise InputError(f"no branch {name!r}; there are: {', '.join(self.branches)}")
        self.name = name

    # ---- figures

    def stats(self) -> Stats:
        """Tokens, bytes and speed as of now."""
        state = self.state
        places = [
            place
            for branch in self.branches.values()
            for place in (
                branch.place,
                *(place for step in branch.steps for place in (step.before, step.asked) if place),
            )
        ]
        kept = {id(place.state): place.state for place in places}
        kept.pop(id(state), None)
        return Stats(
            tokens=int(state.tokens),
            state_bytes=state.nbytes,
            cache_bytes=cache_bytes(self.lm, int(state.tokens)),
            kept_states=len(kept),
            kept_bytes=sum(each.nbytes for each in kept.values()),
            reply_tokens=self._last.tokens if self._last else 0,
            reply_seconds=self._last.seconds if self._last else 0.0,
        )

    # ---- files

    def save(self, path: str | PathLike[str]) -> None:
        """Writes the state, with the transcript (its end, if it is long) in the file's note.

        A turn of the model that was cut short is closed. What undo keeps is not written, nor are
        other branches. Raises `StateError` where the disk refuses.
        """
        place = self._settled()
        place.state.save(path, note=note_of(place, self.template.name))

    def load(self, path: str | PathLike[str]) -> None:
        """Goes on from a state file, of a chat, of a reading, or any other; undo takes it back.

        Raises `StateError` for a state of another model, of several rows, or whose turns are
        written in another template.
        """
        state = State.load(path, self.lm)
        if state.batch_size != 1:
            raise StateError(f"{path} has {state.batch_size} rows; a conversation has one")
        place = place_from_note(state, read_note(path), self.template.name, str(path))
        self._move(Step(self._settled()), place)

    # ---- inside

    def _read_stream(self, place: Place, path: Path, progress: Progress | None) -> State:
        """A file of any length, at constant memory, after the opening of a turn if it needs one."""

        def on_chunk(reading: Reading) -> None:
            if progress is not None and reading.size is not None:
                progress(reading.bytes, reading.size)

        state, template = place.state, self.template
        system = self._after_system(place, "")
        raw = place.in_turn or bool(system) or not template.files_in_turn
        raw = raw or template is not self.lm.tokenizer.turn or not self.lm.instruction_tuned
        if raw and template.files_in_turn:  # else the reader opens the turn itself
            state = self._read_whole(place, "", None)
        reading = read_text(self.lm, path, state=state, raw=raw, progress=on_chunk)
        if reading.size == 0 or reading.state is None:
            raise InputError(f"{path} is empty")
        return reading.state

    def _read_whole(self, place: Place, text: str, progress: Progress | None) -> State:
        """A text at once, after what stands before it in the user's turn."""
        before: list[str | int] = []
        if place.in_turn:
            text = f"\n\n{text}"
        else:
            before = self.lm.tokenizer.split_markers(self.template.user_open)
            text = self._after_system(place, text)
        empty = int(place.state.tokens) == 0
        parts = [*before, self.template.guard(text)]
        ids = encode_parts(self.lm.tokenizer, parts, bos=empty, continues=not empty)
        return self._read(place.state, ids, progress)

    def _before(self, place: Place) -> Place:
        """Where undo goes back to: to before a file that was read for this very question."""
        steps = self.branch.steps
        return steps.pop().before if place.in_turn and steps and steps[-1].reading else place

    def _move(self, step: Step, place: Place) -> None:
        branch = self.branch
        branch.steps = [*branch.steps, step][-self.undo_limit :] if self.undo_limit else []
        branch.place, branch.reply = place, None

    def _answer(self, step: Step) -> Reply:
        """Opens the model's turn after a question."""
        assert step.asked is not None
        opening = encode_parts(
            self.lm.tokenizer,
            self.lm.tokenizer.split_markers(self.template.model_open),
            bos=False,
            continues=True,
        )
        given = self.options.stop
        stop = (given,) if isinstance(given, str) else tuple(given)
        options = replace(
            self.options,
            seed=(self.seed + step.attempt) % SEED_LIMIT,
            stop=(*stop, *self.template.stop),
        )
        generation = Generation(
            self.lm.model,
            self.lm.tokenizer,
            [opening],
            options,
            step.asked.state,
            self.lm.stop_ids,
        )
        self._move(step, step.asked)
        self.branch.reply = self._last = Reply(generation, opening)
        return self._last

    def _settled(self) -> Place:
        """Where the branch stands, once the model's turn is closed: cut short if it goes on."""
        branch = self.branch
        if branch.reply is not None:
            so_far = branch.reply.read_so_far()
            text = self._text_of(branch.reply)
            ids = self._encode(branch.place, Turn(role="model", text=text))
            known, state = so_far or ([], branch.place.state)
            if ids[: len(known)] != known:  # other pieces than the vocabulary's own
                known, state = [], branch.place.state
            branch.place = Place(
                self._read(state, ids[len(known) :]),
                (*branch.place.entries, Entry(role="model", text=text)),
            )
            branch.reply = None
        return branch.place

    def _text_of(self, reply: Reply) -> str:
        """The turn's text: without a marker, blank lines at its end are part of what closes it."""
        return reply.text.rstrip() if self.template.stop else reply.text

    def _encode(self, place: Place, turn: Turn) -> list[int]:
        empty = int(place.state.tokens) == 0
        return encode_turns(
            self.lm.tokenizer,
            self.template,
            [turn],
            bos=empty,
            open_model=False,
            continues=not empty,
        )

    def _after_system(self, place: Place, text: str) -> str:
        """The text of a user's turn, with the system text at its head if it is the first."""
        asked = any(entry.role == "user" for entry in place.entries)
        return text if asked or place.in_turn or not self.system else f"{self.system}\n\n{text}"

    def _read(self, state: State, ids: Sequence[int], progress: Progress | None = None) -> State:
        """The state after further ids, of which the last is pending."""
        if not ids:
            return state
        waiting = [] if state.pending is None else state.pending.tolist()
        if waiting:
            state = state[:]
            state.pending = None
        before, total = int(state.tokens), len(waiting) + len(ids)

        def on_chunk(after: State) -> None:
            if progress is not None:
                progress(int(after.tokens) - before, total)

        return read_tokens(self.lm.model, [*waiting, *ids], state, on_chunk=on_chunk)
