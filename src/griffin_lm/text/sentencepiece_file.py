"""A SentencePiece file as the Protocol Buffers message it is: just the fields that we need.

Read here rather than through the library, so that a damaged file is refused with a reason before
native code sees it, and so that a vocabulary can be opened with a flag changed. Field numbers:
sentencepiece_model.proto of SentencePiece 0.2.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3  # ModelProto
_PIECE, _SCORE, _KIND = 1, 2, 3  # ModelProto.SentencePiece
_MODEL_TYPE, _SUFFIX, _BYTE_FALLBACK, _UNKNOWN_TEXT = 3, 24, 35, 44  # TrainerSpec
_CHARSMAP, _DUMMY_PREFIX, _REMOVE_EXTRA = 2, 3, 4  # NormalizerSpec


class Kind(IntEnum):
    """What a piece is (ModelProto.SentencePiece.Type)."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


class ModelType(IntEnum):
    """How a text is cut into pieces (TrainerSpec.ModelType)."""

    UNIGRAM = 1
    BPE = 2
    WORD = 3
    CHAR = 4


class Malformed(ValueError):
    """The bytes are not this message; the text says where they stop being it."""


@dataclass(frozen=True)
class SentencePieceFile:
    """The parts of a file that matter here."""

    pieces: tuple[str, ...]
    kinds: tuple[Kind, ...]
    spans: tuple[tuple[int, int], ...]
    """Where each piece's field begins and ends in the file, tag included."""
    dummy_prefix: bool
    """Encoding puts a space in front of the text."""
    remove_extra_spaces: bool
    """Encoding removes spaces at both ends and repeated ones."""
    space_as_suffix: bool
    unknown_text: str
    model_type: int
    """A ModelType, or a number that is none of them."""
    byte_fallback: bool
    """Characters without a piece become bytes."""
    charsmap: bytes
    """Normalisation: the precompiled character map, or empty."""


def read(data: bytes) -> SentencePieceFile:
    """Reads a file's bytes; raises Malformed."""
    pieces: list[str] = []
    kinds: list[Kind] = []
    spans: list[tuple[int, int]] = []
    trainer: bytes | None = None
    normalizer: bytes | None = None
    for number, value, begin, end in _fields(data):
        if number == _PIECES and type(value) is bytes:
            piece, kind = _read_piece(value, len(pieces))
            pieces.append(piece)
            kinds.append(kind)
            spans.append((begin, end))
        elif number == _TRAINER and type(value) is bytes:
            trainer = (trainer or b"") + value  # a repeated message is merged: that is its rule
        elif number == _NORMALIZER and type(value) is bytes:
            normalizer = (normalizer or b"") + value
    if not pieces:
        raise Malformed("it holds no pieces")
    if trainer is None or normalizer is None:
        raise Malformed("its end is missing: no trainer_spec or normalizer_spec after the pieces")
    # A field of another type than its own is unknown to the library, and so it is here.
    flags = {number: value for number, value, _, _ in _fields(trainer) if type(value) is int}
    texts = {number: value for number, value, _, _ in _fields(trainer) if type(value) is bytes}
    normal = {number: value for number, value, _, _ in _fields(normalizer) if type(value) is int}
    maps = {number: value for number, value, _, _ in _fields(normalizer) if type(value) is bytes}
    return SentencePieceFile(
        pieces=tuple(pieces),
        kinds=tuple(kinds),
        spans=tuple(spans),
        dummy_prefix=bool(normal.get(_DUMMY_PREFIX, 1)),
        remove_extra_spaces=bool(normal.get(_REMOVE_EXTRA, 1)),
        space_as_suffix=bool(flags.get(_SUFFIX, 0)),
        unknown_text=texts.get(_UNKNOWN_TEXT, " \u2047 ".encode()).decode(errors="replace"),
        model_type=flags.get(_MODEL_TYPE, ModelType.UNIGRAM),
        byte_fallback=bool(flags.get(_BYTE_FALLBACK, 0)),
        charsmap=maps.get(_CHARSMAP, b""),
    )


def with_kinds(data: bytes, file: SentencePieceFile, kinds: dict[int, Kind]) -> bytes:
    """Returns the file with other kinds for some ids; everything else as it was."""
    out: list[bytes] = []
    done = 0
    for token in sorted(kinds):
        begin, end = file.spans[token]
        field = next(_fields(data[begin:end]))[1]
        assert isinstance(field, bytes)
        # A later value of a scalar field replaces the earlier one, so appending is enough.
        changed = field + bytes((_KIND << 3, kinds[token]))
        out += [data[done:begin], bytes((_PIECES << 3 | 2,)), _varint(len(changed)), changed]
        done = end
    return b"".join(out) + data[done:]


def without_prefix(data: bytes) -> bytes:
    """Returns the file with text taken as it stands: no dummy prefix, no space removed."""
    flags = bytes((_DUMMY_PREFIX << 3, 0, _REMOVE_EXTRA << 3, 0))
    # A second normalizer_spec is merged into the first, field by field.
    return data + bytes((_NORMALIZER << 3 | 2, len(flags))) + flags


def _read_piece(data: bytes, token: int) -> tuple[str, Kind]:
    piece, kind, score = b"", int(Kind.NORMAL), 0.0
    for number, value, _, _ in _fields(data):
        if number == _PIECE and type(value) is bytes:
            piece = value
        elif number == _KIND and isinstance(value, int):
            kind = value
        elif number == _SCORE and isinstance(value, Fixed) and len(value) == 4:
            (score,) = struct.unpack("<f", value)
    if not piece or score != score:
        raise Malformed(f"piece {token} is empty or its score is not a number")
    try:
        return piece.decode(), Kind(kind)
    except UnicodeDecodeError:
        raise Malformed(f"piece {token} is not UTF-8") from None
    except ValueError:
        raise Malformed(f"piece {token} is of an unknown kind ({kind})") from None


class Fixed(bytes):
    """A field of four or eight bytes, which is no text of that length."""


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes, int, int]]:
    """Yields (field number, value, begin, end) of a message; end and begin include the tag."""
    at, size = 0, len(data)
    while at < size:
        begin = at
        tag, at = _read_varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = _read_varint(data, at)
            yield number, value, begin, at
            continue
        if wire == 2:
            length, at = _read_varint(data, at)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise Malformed(f"no such field at byte {begin}")
        if number == 0 or at + length > size:
            raise Malformed(f"the field at byte {begin} runs past the end, {size} bytes")
        value = data[at : at + length]
        yield number, value if wire == 2 else Fixed(value), begin, at + length
        at += length


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise Malformed(f"a number at byte {at} has no end")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at  # as the library does: a bool of 2^64 is false
        shift += 7


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
