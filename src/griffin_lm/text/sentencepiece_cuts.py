"""Safe places of a SentencePiece vocabulary.

Claim: let x and y be neighbours in a text, such that (1) normalisation neither joins them nor lets
what stands before x or after y change what they become, (2) no piece holds what x ends as next to
what y begins as, and (3) one of the two is a piece of its own, or unknown characters become bytes.
Then the ids of the whole are those of the part up to x and the part from y on.

Proof. *Normalisation* goes from left to right and takes the longest match each time: of a
user-defined symbol (a piece, so by (2) none holds both x and y; both raw and normalised forms are
looked up), else of a key of the character map, else one character. By (1) x is in no key except as
its first character and y is in no key of several characters, so the match that begins at x ends
with it and the next begins at y. *Spaces*: `_SPACES` below. *BPE* merges two neighbouring symbols
only if the result is a piece; a symbol that holds both x and y would be a piece with x next to y,
and by (2) there is none. So no candidate crosses the place, those on each side are the same as for
the part alone, and the order (score, then position) is the same within a side. *Unigram* picks the
best path through a lattice of pieces; no edge crosses the place, so the best path is the best of
each side. (The library adds scores in float32 from the beginning of the text, so that far into a
long text rounding decides what is nearly even; `SentencePieceTokenizer` therefore encodes between
safe places, where the sums are short and the claim holds to the bit.) *Characters*: each for
itself. At last the library writes neighbouring unknown characters as one unknown id, unless they
become bytes; by (3) one of x and y is known, so no such run crosses the place.
"""

from collections.abc import Callable

import numpy as np

from griffin_lm.text.cuts import CutRule, neighbours
from griffin_lm.text.sentencepiece_file import Kind, ModelType, SentencePieceFile

SPACES = "\u2581 "
_NODES = 1024  # of a level of the trie that are looked at together: a MiB or so each time
_SHARED = 16  # prefixes to a unit: ends of keys are shared (NFKC: 6), endlessly in a damaged map


def cut_rule(file: SentencePieceFile, normalize: Callable[[str], str]) -> CutRule:
    """The safe places of a vocabulary.

    Args:
        file: what its file says.
        normalize: what a text becomes, without a dummy prefix and with every space kept.

    """
    if file.model_type not in (ModelType.UNIGRAM, ModelType.BPE, ModelType.CHAR):
        return CutRule(None, "it was trained on whole words")
    kinds = zip(file.pieces, file.kinds, strict=True)
    pieces = [p for p, kind in kinds if kind not in (Kind.CONTROL, Kind.UNKNOWN, Kind.BYTE)]
    joined = neighbours(pieces)
    joined |= neighbours(p.replace("\u2581", " ") for p in pieces if "\u2581" in p)
    whole = zip(file.pieces, file.kinds, strict=True)
    known = {p for p, kind in whole if len(p) == 1 and kind in (Kind.NORMAL, Kind.USER_DEFINED)}
    keys = map_keys(file.charsmap)
    if keys is None:
        return CutRule(None, "its character map cannot be read")
    tails = {character for key in keys for character in key[1:]}
    joining = tails | {key[0] for key in keys if len(key) > 1}
    spaces = _SPACES[file.dummy_prefix, file.remove_extra_spaces]

    def pair(x: str, y: str) -> bool:
        if x in tails or y in joining:
            return False
        before, after = normalize(x), normalize(y)
        if not before or not after or not spaces(before, after):
            return False
        # x and y as they stand too: a user-defined symbol is not normalised
        if any(a + b in joined for a in (before[-1], x) for b in (after[0], y)):
            return False
        return file.byte_fallback or before[-1] in known or after[0] in known

    return CutRule(pair, prefix_again=file.remove_extra_spaces)


def _anything(before: str, after: str) -> bool:
    return True


def _none_at_either(before: str, after: str) -> bool:
    return before[-1] not in SPACES and after[0] not in SPACES


def _word_ends(before: str, after: str) -> bool:
    return before[-1] not in SPACES and after in ("\u2581", " ")


_SPACES: dict[tuple[bool, bool], Callable[[str, str], bool]] = {
    (False, False): _anything,
    (True, False): _anything,
    (True, True): _word_ends,
    (False, True): _none_at_either,
}
"""(dummy prefix, extra spaces removed) -> the condition on what x and y become.

Nothing removed: the first part gets the prefix, if any; the others are encoded without.
Both: every part is encoded alike. x is no space, so nothing is taken off the end of its part; y is
a space, which is taken off its part with those that follow, and one is put in front: as in the
whole, where those that follow are removed. A last part of spaces only becomes nothing: as the end
of the whole does.
Only removed: neither is a space, so nothing is removed at the place."""


def map_keys(charsmap: bytes) -> list[str] | None:
    """The keys of several characters in a precompiled character map; None for one that is none.

    The map is the size of a double-array trie (uint32), the trie (uint32 units, Darts-clone's
    layout), and the texts that the keys become. Keys are UTF-8.
    """
    if not charsmap:
        return []
    size = int.from_bytes(charsmap[:4], "little")
    if size % 4 or not 4 <= size <= len(charsmap) - 4:
        return None
    units = np.frombuffer(charsmap, "<u4", size // 4, 4)
    at, prefixes = _below(units, np.zeros(1, np.uint32)), [b""]
    found: list[bytes] = []
    seen = 0
    for _ in range(64):  # no key is longer; a damaged trie may have loops
        level = [_children(units, at, begin) for begin in range(0, len(at), _NODES)]
        parent, byte = (np.concatenate(rows) for rows in zip(*level, strict=True))
        if not len(parent):
            break
        seen += len(parent)
        if seen > _SHARED * len(units):  # these go round in circles
            return None
        prefixes = [prefixes[p] + bytes((b,)) for p, b in zip(parent, byte, strict=True)]
        nodes = at[parent] ^ byte
        ends = (units[nodes] >> 8) & 1
        found += [prefix for prefix, end in zip(prefixes, ends, strict=True) if end]
        at = _below(units, nodes)
    else:
        return None
    try:
        return [key for key in map(bytes.decode, found) if len(key) > 1]
    except UnicodeDecodeError:
        return None


def _children(units: np.ndarray, at: np.ndarray, begin: int) -> tuple[np.ndarray, np.ndarray]:
    """The children of _NODES nodes of a level: indices of the parents, bytes (uint32)."""
    every = np.arange(256, dtype=np.uint32)
    children = at[begin : begin + _NODES, None] ^ every
    inside = children < len(units)
    labels = units[np.where(inside, children, 0)] & 0x800000FF
    parent, byte = np.nonzero(inside & (labels == every) & (every > 0))
    return parent + begin, byte.astype(np.uint32)


def _below(units: np.ndarray, nodes: np.ndarray) -> np.ndarray:
    """Where the children of nodes are reckoned from."""
    found = units[nodes]
    return nodes ^ ((found >> 10) << ((found & 0x200) >> 6))
