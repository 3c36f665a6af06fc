"""Llama 3's `tokenizer.model`: a line for each piece, its bytes in base64 and its rank.

The file has pieces and no more; the split of words, and the 256 special pieces whose ids follow the
last rank, are fixed (llama3, `llama/tokenizer.py`; the names are those of Llama 3.1 to 3.3, where
Llama 3 has `<|reserved_special_token_...|>` at ids that it never uses). From all of it a
`tokenizer.json` is made, as the tokenizers library reads it.
"""

import base64
import binascii
import re
from typing import Any

from griffin_lm.errors import TokenizerError
from griffin_lm.text.json_cuts import PATTERNS
from griffin_lm.text.json_file import stand_ins

Ranks = dict[bytes, int]

SPLIT = next(pattern for pattern, name in PATTERNS.items() if name == "Llama 3")
BOS, EOS = "<|begin_of_text|>", "<|end_of_text|>"
_NAMED = (
    BOS,
    EOS,
    "<|reserved_special_token_0|>",
    "<|reserved_special_token_1|>",
    "<|finetune_right_pad_id|>",
    "<|reserved_special_token_2|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eom_id|>",
    "<|eot_id|>",
    "<|python_tag|>",
)
SPECIALS = (*_NAMED, *(f"<|reserved_special_token_{n}|>" for n in range(3, 3 + 256 - len(_NAMED))))
"""In the order of their ids: 128000, 128001, ... behind the 128 000 pieces of Llama 3."""

LONGEST = 1024
"""Bytes of a piece at most; Llama 3's longest has 128."""
_LINE = re.compile(rb"([A-Za-z0-9+/]+={0,2}) ([0-9]{1,9})")
_BEGINS = re.compile(rb"[A-Za-z0-9+/=]+ [0-9]")
_AGAIN = "copy or download tokenizer.model again"


def is_tiktoken(data: bytes) -> bool:
    """Whether a file begins as such a one does; SentencePiece's begins with a line end."""
    return _BEGINS.match(data[: 2 * LONGEST]) is not None


def read_ranks(data: bytes, where: str) -> Ranks:
    """The pieces and their ranks, 0, 1, 2, ...

    Raises TokenizerError naming the line that is damaged, or what is missing.
    """
    ranks: Ranks = {}
    for number, line in enumerate(data.split(b"\n"), 1):
        line = line.removesuffix(b"\r")
        if not line:
            continue
        if len(line) > 2 * LONGEST:
            raise TokenizerError(f"{where}: line {number} has {len(line)} bytes; {_AGAIN}")
        found = _LINE.fullmatch(line)
        if found is None:
            raise TokenizerError(
                f"{where}: line {number} is no piece in base64 and its rank: {line!r:.60}; {_AGAIN}"
            )
        try:
            piece = base64.b64decode(found[1], validate=True)
        except binascii.Error as error:
            raise TokenizerError(
                f"{where}: line {number} is not base64 ({error}); {_AGAIN}"
            ) from None
        if piece in ranks or not 0 < len(piece) <= LONGEST:
            told = "stands twice" if piece in ranks else f"has {len(piece)} bytes"
            raise TokenizerError(f"{where}: the piece in line {number} {told}; {_AGAIN}")
        ranks[piece] = int(found[2])
    if sorted(ranks.values()) != list(range(len(ranks))):
        raise TokenizerError(
            f"{where}: its {len(ranks)} pieces do not have the ranks 0 to {len(ranks) - 1}, each "
            f"once: lines are missing or damaged; {_AGAIN}"
        )
    missing = [byte for byte in range(256) if bytes((byte,)) not in ranks]
    if missing:
        raise TokenizerError(
            f"{where}: has no piece for the byte 0x{missing[0]:02X} ({len(missing)} such), so it "
            f"could not write every text; {_AGAIN}"
        )
    return ranks


def as_tokenizer_json(ranks: Ranks) -> dict[str, Any]:
    """The same vocabulary as a `tokenizer.json` of Llama 3's kind.

    tiktoken joins, of all neighbours that make a piece, those of the lowest rank. The library wants
    the pairs named: of each piece every split into two pieces, in the order of its rank. A word
    that is a piece is that piece, whatever merges would make of it (`ignore_merges`).
    """
    letter = {byte: character for character, byte in stand_ins().items()}
    spelt = {piece: "".join(map(letter.__getitem__, piece)) for piece in ranks}
    merges: list[list[str]] = []
    for piece in sorted(ranks, key=ranks.__getitem__):
        halves = [(piece[:cut], piece[cut:]) for cut in range(1, len(piece))]
        pairs = [(a, b) for a, b in halves if a in ranks and b in ranks]
        pairs.sort(key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))
        merges += [[spelt[a], spelt[b]] for a, b in pairs]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    split = {"type": "Split", "pattern": {"Regex": SPLIT}, "behavior": "Isolated", "invert": False}
    first = len(ranks)
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": first + n,
                "content": name,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for n, name in enumerate(SPECIALS)
        ],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [split, byte_level | {"use_regex": False}],
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [_special(BOS), _sequence("A", 0)],
            "pair": [_special(BOS), _sequence("A", 0), _special(BOS, 1), _sequence("B", 1)],
            "special_tokens": {BOS: {"id": BOS, "ids": [first], "tokens": [BOS]}},
        },
        "decoder": byte_level | {"use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": True,
            "vocab": {spelt[piece]: rank for piece, rank in ranks.items()},
            "merges": merges,
        },
    }


def _special(name: str, row: int = 0) -> dict[str, Any]:
    return {"SpecialToken": {"id": name, "type_id": row}}


def _sequence(name: str, row: int) -> dict[str, Any]:
    return {"Sequence": {"id": name, "type_id": row}}
