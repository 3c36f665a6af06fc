"""The loop behind `read_text`: bytes become ids, ids go through the model, the state is saved."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from ..errors import InputError
from ..models import State
from ..text.chat import encode_parts, markers_first
from ..text.encoder import Where
from ..text.utf8 import Errors, Utf8Reader
from .bookmark import Bookmark
from .language_model import LanguageModel
from .reading import read_rows
from .text_source import TextSource


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How far a reading is, or how it ended.

    state        what was read, the last token pending; None where nothing was read yet
    tokens       tokens in the state
    new_tokens   of these, read by this call
    bytes        of the text that the state stands for
    size         bytes of the text, where known
    seconds      that this call took
    finished     the text has ended
    resumed      tokens that an earlier, interrupted call had read of this text
    forced_cuts  places where the ids differ from those of the whole text, because it has none
                 where it could be cut (see `text.encoder.LIMIT`)
    held_back    why the whole text had to be held in memory, or ""
    saved        saves so far
    bytes_per_second   of this call
    """

    state: State | None
    tokens: int
    new_tokens: int
    bytes: int
    size: int | None
    seconds: float
    finished: bool
    resumed: int
    forced_cuts: int
    held_back: str
    saved: int
    bytes_per_second: float


class _Mark(NamedTuple):
    """A place at which the text may be gone on from: the first token after it, its byte, and how
    the text goes on there. The mark of byte 0 is that of all tokens before the text, too.
    """

    token: int
    byte: int
    where: Where


class Reader:
    """A reading under way. Tokens are counted from the first that it feeds or fed."""

    def __init__(
        self,
        lm: LanguageModel,
        text: TextSource,
        errors: Errors,
        save: Path | None,
        save_every: float,
        progress: Callable[[Reading], None] | None,
        stop: Callable[[], bool] | None,
        chunk: int,
    ) -> None:
        self.lm, self.text, self.path = lm, text, save
        self.errors: Errors = errors
        self.save_every, self.progress, self.chunk = save_every, progress, chunk
        self.stop = stop if stop is not None else lambda: False
        self.state: State | None = None
        self.own = False  # whether the state's memory may be used again
        self.queue: list[int] = []  # tokens that wait to be fed
        self.given = 0  # tokens known so far: fed, or in the queue
        self.fed = self.resumed = self.skip = 0
        self.marks: deque[_Mark] = deque()
        self.saves = self.saved_tokens = 0
        self.begun = self.saved_at = time.monotonic()

    def begin(self, state: State | None, turn: str, raw: bool, markers: bool, after: str) -> None:
        """A text from its beginning, after a state that stands in `turn` ("user" or "none")."""
        tokenizer, template = self.lm.tokenizer, self.lm.tokenizer.turn
        empty = state is None or int(state.tokens) == 0
        if state is not None:
            self.state, self.queue = _without_pending(state)
        opens = self.lm.instruction_tuned and template is not None and not raw and turn != "user"
        opening = tokenizer.split_markers(template.user_open) if opens and template else []
        ids, words = markers_first(opening)
        self.queue += encode_parts(tokenizer, ids, bos=empty, continues=not empty)
        self.note = Bookmark(
            source=self.text.name,
            turn="user" if opens else turn,
            opening=words,
            continues=not empty or bool(ids),
            before=len(self.queue),
            raw=raw,
            markers=markers,
            after=after,
        )
        self.marks.append(_Mark(0, 0, Where.FIRST))
        self._tokenise(0, Where.FIRST, words)

    def resume(self, state: State, mark: Bookmark) -> None:
        """The text from a bookmark on; `text` stands at the bookmark's byte."""
        self.state, waiting = _without_pending(state)
        self.own = True
        self.note = mark
        self.fed = self.resumed = self.saved_tokens = mark.tokens
        where = Where[mark.where]
        if mark.finished:  # what was added since follows as a text of its own
            self.resumed += len(waiting)
            self.queue, self.given = waiting, mark.tokens + len(waiting)
            self.note = replace(mark, continues=True, opening="")
            where = Where.FIRST
        elif mark.bytes == 0:
            self.queue = [0] * mark.before  # fed already: only their number counts
            self.skip = mark.skip
        else:
            self.given, self.skip = mark.tokens - mark.skip, mark.skip
        self.marks.append(_Mark(self.given, mark.bytes, where))
        self._tokenise(mark.bytes, where, self.note.opening if mark.bytes == 0 else "")

    def run(self) -> Reading:
        """Reads until the text ends, or is to be left."""
        if self.note.finished and self.text.size == self.note.seen:
            return self._reading(finished=True)  # nothing was added
        paused = False
        try:
            while not self.stop():
                data = self.text.read()
                paused = data is None
                if data is None:
                    self._take(self.encoder.flush())
                    self._feed(all_but_last=True)
                elif data:
                    self._take(self.encoder.feed(self.utf8.feed(data)))
                    self._feed()
                else:
                    return self._end()
                self._save_if_due()
        except InputError:
            self._save()
            raise
        if paused:
            return self._end(always=True)  # all that a stream has brought counts as its text
        self._save()
        return self._reading()

    def _end(self, always: bool = False) -> Reading:
        rest = self.utf8.feed(b"", final=True)
        self._take(self.encoder.feed(rest) + self.encoder.finish())
        if self.given <= self.note.before and not self.resumed:
            raise InputError(f"nothing to read: {self.text.name} is empty")
        self._feed(all_but_last=True, always=always)
        finished = len(self.queue) <= 1
        self._save(finished)
        return self._reading(finished)

    def _tokenise(self, byte: int, where: Where, opening: str) -> None:
        """Makes what turns bytes into ids, from `byte` on; the opening of a turn goes before."""
        self.first = byte
        self.utf8 = Utf8Reader(self.errors, byte, self.text.name)
        self.encoder = self.lm.tokenizer.encoder(
            False, markers=self.note.markers, continues=self.note.continues, where=where
        )
        self.encoder.feed(opening)
        self.uncounted = len(opening)  # characters that are none of the text's
        self.given += len(self.queue) if self.given == 0 else 0
        self._take([])

    def _take(self, ids: Sequence[int]) -> None:
        """Queues ids that became certain, and marks the place that they reach."""
        self.queue += ids
        self.given += len(ids)
        count = self.encoder.characters - self.uncounted
        if count > 0:
            self.utf8.take(count)
            self.uncounted += count
            self.marks.append(_Mark(self.given, self.utf8.place, self.encoder.where))
        known = min(self.skip, len(self.queue))
        self.skip -= known
        del self.queue[:known]

    def _feed(self, all_but_last: bool = False, always: bool = False) -> None:
        """Feeds full chunks, or all but one token: the last of a text stays pending."""
        least = 1 if all_but_last else self.chunk
        while len(self.queue) > least and (always or not self.stop()):
            part = self.queue[: min(self.chunk, len(self.queue) - 1)]
            del self.queue[: len(part)]
            model = self.lm.model
            start = model.empty_state(1) if self.state is None else self.state
            self.state = read_rows(model, [part], start, donate=self.own, chunk=self.chunk)
            self.own = True
            self.fed += len(part)
            if self.progress is not None:
                self.progress(self._reading())
            self._save_if_due()

    def _mark(self) -> _Mark | None:
        """The last mark that the state has reached."""
        while len(self.marks) > 1 and self.marks[1].token <= self.fed:
            self.marks.popleft()
        return self.marks[0] if self.marks[0].token <= self.fed else None

    def _bytes(self) -> int:
        """About how many bytes of the text the state stands for: exact at a mark."""
        mark = self._mark()
        if mark is None:
            return self.marks[0].byte
        following = self.marks[1] if len(self.marks) > 1 else mark
        share = (self.fed - mark.token) / max(1, following.token - mark.token)
        return mark.byte + round(share * (following.byte - mark.byte))

    def _save_if_due(self) -> None:
        if time.monotonic() - self.saved_at >= self.save_every:
            self._save()

    def _save(self, finished: bool = False) -> None:
        """Writes the state and how to go on, if there is anything new."""
        self.saved_at = time.monotonic()
        mark = self._mark()
        new = finished or (self.fed > self.saved_tokens and self.fed >= self.note.before)
        if self.path is None or mark is None or not new:
            return
        note = replace(
            self.note,
            seen=self.text.seen,
            sha256=self.text.digest(),
            bytes=self.text.seen if finished else mark.byte,
            where=mark.where.name,
            skip=0 if finished else self.fed - mark.token,
            tokens=self.fed,
            finished=finished,
        )
        state = self._current()
        assert state is not None
        state.save(self.path, note=note.note())
        self.saves += 1
        self.saved_tokens = self.fed

    def _current(self) -> State | None:
        """The state, with the next token pending, so that it can be gone on from at once."""
        if not self.queue or self.skip:
            return self.state
        state = self.lm.model.empty_state(1) if self.state is None else self.state
        return state.with_pending(self.queue[:1])

    def _reading(self, finished: bool = False) -> Reading:
        state = self._current()
        tokens = 0 if state is None else int(state.tokens)
        size = self.text.seen if finished else self._bytes()
        seconds = time.monotonic() - self.begun
        return Reading(
            state=state,
            tokens=tokens,
            new_tokens=self.fed + len(self.queue[:1]) - self.resumed,
            bytes=size,
            size=self.text.size,
            seconds=seconds,
            finished=finished,
            resumed=self.resumed,
            forced_cuts=self.encoder.forced,
            held_back=self.encoder.holds_back,
            saved=self.saves,
            bytes_per_second=(size - self.first) / max(seconds, 1e-9),
        )


def _without_pending(state: State) -> tuple[State, list[int]]:
    """The state without its pending token, and that token. Shares memory."""
    if state.pending is None:
        return state, []
    bare = state.detach()
    bare.pending = None
    return bare, [token for token in state.pending.tolist() if token >= 0]
