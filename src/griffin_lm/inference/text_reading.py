"""Reading a text of any length into a state, at constant memory, so that it can be interrupted.

The text is tokenised as it comes; tokens go through the model in full chunks, only the last of a
text is shorter. A state is saved between two chunks, with a bookmark. Whoever goes on from there
tokenises from the bookmark's safe place, skips what the state has read, and so makes the very
model calls that an uninterrupted reading makes: the states are equal to the bit.
(A stream that pauses is the exception: what has come by then is fed, so that the state is current.)
"""

from collections.abc import Callable
from pathlib import Path

from ..errors import InputError, StateError
from ..models import State
from ..models.state_file import read_note
from ..text.utf8 import Errors
from .bookmark import Bookmark, bookmark_of, file_hash, turn_of
from .language_model import LanguageModel
from .reading import CHUNK
from .text_reader import Reader, Reading
from .text_source import Stream, TextSource

SAVE_EVERY = 60.0


def read_text(
    lm: LanguageModel,
    source: Path | Stream,
    *,
    state: State | Path | None = None,
    save: Path | None = None,
    raw: bool = False,
    markers: bool = False,
    errors: Errors = "strict",
    save_every: float = SAVE_EVERY,
    progress: Callable[[Reading], None] | None = None,
    stop: Callable[[], bool] | None = None,
    chunk: int = CHUNK,
) -> Reading:
    """Reads a file, or a binary stream of any length, into a state.

    state       what to go on from: a state, or a state file (whose note tells whether it stands
                inside a turn)
    save        a state file: written every `save_every` seconds, at the end, and where the reading
                is stopped or fails. If it exists, it has to be an earlier save of this very
                reading, which then goes on (also where the file has grown since), or be `state`
    raw         the text stands outside turns, also with an instruction-tuned model
    markers     turn markers in the text are their ids; for text of one's own only
    errors      what bytes are that are no UTF-8: "strict": an error; "replace": U+FFFD
    progress    called after every chunk; it must not keep the state it is shown
    stop        asked between chunks whether to end here, for now

    A file's or a stream's ids are those of the whole text encoded at once. A file that has grown
    after its end had been read goes on as text that follows: ids may differ at the joint.

    Raises `InputError` for an empty or unreadable text, or bytes that are no UTF-8 (what was read
    before them is saved); `StateError` for a state that isn't this model's, or where `save` holds
    something else.
    """
    origin = state if isinstance(state, Path) else None
    if isinstance(state, State) and state.batch_size != 1:
        raise InputError(f"reads into one row, but the state has {state.batch_size}; pass state[i]")
    if save is not None and not save.resolve().parent.is_dir():
        raise StateError(f"can't save to {save}: no folder {save.parent}; make it, or name another")
    text = TextSource(source)
    try:
        reader = Reader(lm, text, errors, save, save_every, progress, stop, chunk)
        mark = _found(save, origin, text, raw, markers)
        if mark is None:
            given = State.load(origin, lm) if origin is not None else state
            assert not isinstance(given, Path)
            reader.begin(given, turn_of(origin), raw, markers, file_hash(origin))
        else:
            assert save is not None
            reader.resume(State.load(save, lm), mark)
        return reader.run()
    finally:
        text.close()


def _found(
    save: Path | None, origin: Path | None, text: TextSource, raw: bool, markers: bool
) -> Bookmark | None:
    """The bookmark to go on from; None for a new reading. Raises where `save` is of another."""
    if save is None or not save.exists():
        return None
    same = origin is not None and origin.exists() and origin.samefile(save)
    if same and text.is_stream:
        return None  # whatever comes follows what the state has read
    mark = bookmark_of(read_note(save), save)
    began = same or (mark is not None and mark.after == file_hash(origin))
    if mark is not None and began and text.goes_on_from(mark.seen, mark.sha256, mark.bytes):
        if (mark.raw, mark.markers) != (raw, markers):
            raise InputError(
                f"{save} is this reading, begun {'with' if mark.raw else 'without'} --raw and "
                f"{'with' if mark.markers else 'without'} --markers; go on with the same options, "
                "or save under another name"
            )
        return mark
    if same:
        text.rewind()
        return None
    what = "something else" if mark is None else f"a reading of {mark.source!r}"
    why = "" if mark is None else f", whose first {mark.seen} bytes this text does not begin with"
    if mark is not None and not began:
        why = ", begun from another state"
    raise StateError(
        f"{save} exists and holds {what}{why}; to read this text after it, add --state {save}; to "
        "begin anew, save under another name or remove it"
    )
