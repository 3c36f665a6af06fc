"""Where a reading stands: the note in its state file, and what may be done with one found there."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from ..errors import StateError
from ..models.state_file import read_note
from ..text.encoder import Where

KIND = "reading"


@dataclass(frozen=True, kw_only=True)
class Bookmark:
    """The note of a reading.

    source     what the text is called: a file's name, or "-" for standard input
    seen       bytes of it that had been looked at
    sha256     of those bytes: whether a text is this one
    bytes      a safe place, at or before which the tokens below end
    where      how the text goes on there: a name of `text.encoder.Where`
    skip       tokens after that place that the state has read already
    tokens     tokens that this reading has fed into the state, without a pending one
    finished   the text has ended; its last token is pending in the state
    turn       "user": the state stands inside a user's turn; "none": outside
    opening    words of that turn's opening that stand right before the text, if this opened it
    continues  the text's ids are those of a text that follows another
    before     how many of the tokens stood before the text: BOS, the turn's opening, a pending one
    raw, markers   as they were asked for
    after      SHA-256 of the state file that the reading went on from; "" for none
    """

    source: str
    seen: int = 0
    sha256: str = hashlib.sha256().hexdigest()
    bytes: int = 0
    where: str = Where.FIRST.name
    skip: int = 0
    tokens: int = 0
    finished: bool = False
    turn: str = "none"
    opening: str = ""
    continues: bool = False
    before: int = 0
    raw: bool = False
    markers: bool = False
    after: str = ""

    def note(self) -> dict[str, str | int | bool]:
        """As it stands in a state file."""
        return {"kind": KIND, **asdict(self)}


def bookmark_of(note: Mapping[str, object] | None, where: Path) -> Bookmark | None:
    """The bookmark in a note; None where the note is none of a reading.

    Raises `StateError` for one that says it is, and is damaged.
    """
    if note is None or note.get("kind") != KIND:
        return None
    given = {field.name: note[field.name] for field in fields(Bookmark) if field.name in note}
    whole = "source" in given and all(
        type(value) is type(getattr(_LIKE, name)) and not (type(value) is int and value < 0)
        for name, value in given.items()
    )
    mark = Bookmark(**given) if whole else _LIKE  # pyright: ignore[reportArgumentType]
    sound = mark.bytes <= mark.seen and mark.skip <= mark.tokens and mark.where in Where.__members__
    if not whole or not sound:
        raise StateError(f"{where}: the note of its reading is damaged; read the text again")
    return mark


def turn_of(path: Path | None) -> str:
    """ "user" where a state file stands inside a user's turn, else "none"."""
    note = None if path is None else read_note(path)
    return "user" if note is not None and note.get("turn") == "user" else "none"


def file_hash(path: Path | None) -> str:
    """SHA-256 of a state file; "" for none. Raises `StateError` where it can't be read."""
    if path is None:
        return ""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise StateError(f"can't read the state {path}: {error.strerror}") from error


_LIKE = Bookmark(source="")
