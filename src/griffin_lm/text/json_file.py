"""What a `tokenizer.json` says, and the same file without a prefix in front of the text.

Pure functions on the parsed JSON; the library is not used here.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from griffin_lm.errors import TokenizerError
from griffin_lm.text.stream import LeadingSpace

Json = dict[str, Any]

_BYTE_PIECE = re.compile("<0x([0-9A-Fa-f]{2})>")


@dataclass(frozen=True)
class AddedToken:
    """A row of `added_tokens`."""

    id: int
    content: str
    special: bool


@dataclass(frozen=True)
class Rules:
    """How a learned piece becomes text."""

    byte_level: bool
    """Pieces are bytes in stand-in characters; else text with `space` for spaces."""
    space: str
    byte_pieces: bool
    """`<0xAB>` stands for a byte."""
    leading_space: LeadingSpace

    def text_of(self, piece: str) -> str | bytes:
        """Returns what a piece that is no added token adds to the text."""
        if self.byte_level:
            table = stand_ins()
            if all(character in table for character in piece):
                return bytes(table[character] for character in piece)
            return piece
        if self.byte_pieces and (byte := _BYTE_PIECE.fullmatch(piece)):
            return bytes((int(byte[1], 16),))
        return piece.replace(self.space, " ")


@cache
def stand_ins() -> dict[str, int]:
    """Returns GPT-2's table, character -> byte: printable bytes stand for themselves."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    table = {chr(byte): byte for byte in printable}
    return table | {chr(256 + i): byte for i, byte in enumerate(others)}


def read_object(data: bytes, where: str) -> Json:
    """Returns a file's JSON object; TokenizerError where it is none."""
    try:
        value = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise TokenizerError(
            f"{where}: not valid JSON, or cut short ({error}); copy or download it again"
        ) from None
    if not isinstance(value, dict):
        raise TokenizerError(f"{where}: holds a JSON {type(value).__name__}, not an object")
    return value


def added_tokens(spec: Json, where: str) -> list[AddedToken]:
    """Returns the added tokens; TokenizerError where `model` or a row is malformed."""
    if not isinstance(spec.get("model"), dict) or not isinstance(
        spec.get("added_tokens", []), list
    ):
        raise TokenizerError(
            f"{where}: has no 'model' with a vocabulary, so it is no tokenizer.json; "
            "is it another of the model's JSON files?"
        )
    rows: list[AddedToken] = []
    for row in spec.get("added_tokens", []):
        try:
            rows.append(AddedToken(int(row["id"]), str(row["content"]), bool(row["special"])))
        except (TypeError, KeyError, ValueError):
            raise TokenizerError(f"{where}: malformed row in added_tokens: {row!r:.100}") from None
    return rows


def check_merges(spec: Json, where: str) -> None:
    """Refuses merges whose second half lacks the prefix that pieces inside words have.

    The library (0.23) cuts that prefix off unseen: with a shorter half it ends the whole process.
    """
    model = spec["model"]
    prefix, merges = model.get("continuing_subword_prefix"), model.get("merges")
    if not isinstance(prefix, str) or not prefix or not isinstance(merges, list):
        return
    for merge in merges:
        halves = merge.split(" ") if isinstance(merge, str) else merge
        second = halves[-1] if isinstance(halves, list) and halves else None
        if isinstance(second, str) and not second.startswith(prefix):
            raise TokenizerError(
                f"{where}: its merge {merge!r:.80} does not go with its prefix of pieces inside "
                f"words, {prefix!r:.40}; copy or download it again"
            )


def unknown_piece(spec: Json) -> str | None:
    """Returns the piece that stands for what the vocabulary cannot write, or None."""
    model = spec["model"]
    name = model.get("unk_token")
    if name is None and isinstance(model.get("unk_id"), int):  # Unigram names it by number
        try:
            name = model["vocab"][model["unk_id"]][0]
        except (IndexError, KeyError, TypeError):
            return None
    return name if isinstance(name, str) else None


def text_rules(spec: Json, where: str) -> Rules:
    """Reads from the decoder how pieces become text; TokenizerError for one that is not known."""
    decoders = list(_flat(spec.get("decoder"), "decoders"))
    kinds = {str(decoder.get("type")) for decoder in decoders}
    if not kinds and any(part.get("type") == "ByteLevel" for part in _pre_tokenizers(spec)):
        kinds = {"ByteLevel"}
    unknown = kinds - {"ByteLevel", "Metaspace", "Replace", "ByteFallback", "Fuse", "Strip"}
    if unknown or not kinds:
        raise TokenizerError(
            f"{where}: its decoder is {', '.join(sorted(unknown))[:99] or 'missing'}; supported "
            "are byte-level BPE (ByteLevel) and Metaspace, or Replace with ByteFallback"
        )
    space = "\u2581"
    drop = False
    for decoder in decoders:
        if decoder["type"] == "Metaspace":
            space = str(decoder.get("replacement", space))
            scheme = "always" if decoder.get("add_prefix_space", True) else "never"
            drop |= decoder.get("prepend_scheme", scheme) != "never"
        elif decoder["type"] == "Replace" and decoder.get("content") == " ":
            pattern = decoder.get("pattern")
            space = str(pattern.get("String", space)) if isinstance(pattern, dict) else space
        elif decoder["type"] == "Strip":
            drop |= decoder.get("content") == " " and decoder.get("start") not in (0, None)
    if "ByteLevel" in kinds:
        # The library's own decoder leaves this space; text would not come back as it was.
        drop = any(
            part.get("type") == "ByteLevel" and part.get("add_prefix_space", True)
            for part in _pre_tokenizers(spec)
        )
    return Rules(
        byte_level="ByteLevel" in kinds,
        space=space,
        byte_pieces="ByteFallback" in kinds or bool(spec["model"].get("byte_fallback")),
        leading_space=LeadingSpace.DROP_ONE if drop else LeadingSpace.KEEP,
    )


def begins_with(spec: Json, piece: str | None) -> bool:
    """Whether the file's post-processor puts this piece in front of a text."""
    for part in _flat(spec.get("post_processor"), "processors"):
        single = part.get("single")
        for row in single if isinstance(single, list) else []:
            special = row.get("SpecialToken") if isinstance(row, dict) else None
            if isinstance(special, dict) and special.get("id") == piece:
                return True
    return False


def without_prefix(spec: Json) -> Json:
    """Returns the file without whatever puts a space in front of a text."""

    def changed(part: object) -> object:
        if not isinstance(part, dict):
            return part
        match part.get("type"):
            case "Sequence":
                key = "normalizers" if "normalizers" in part else "pretokenizers"
                rest = [changed(inner) for inner in part.get(key, [])]
                return {**part, key: [inner for inner in rest if inner is not None]}
            case "Prepend":
                return None
            case "Metaspace":
                rest = {k: v for k, v in part.items() if k != "add_prefix_space"}
                return {**rest, "prepend_scheme": "never"}
            case "ByteLevel":
                return {**part, "add_prefix_space": False}
            case _:
                return part

    keys = ("normalizer", "pre_tokenizer")
    return {**spec, **{key: changed(spec.get(key)) for key in keys}}


def _pre_tokenizers(spec: Json) -> Iterator[Mapping[str, Any]]:
    return _flat(spec.get("pre_tokenizer"), "pretokenizers")


def _flat(part: object, key: str) -> Iterator[Mapping[str, Any]]:
    """Yields a component, or those of the sequence that it is."""
    if not isinstance(part, dict):
        return
    if part.get("type") != "Sequence":
        yield part
    elif isinstance(inside := part.get(key), list):
        for inner in inside:
            yield from _flat(inner, key)
