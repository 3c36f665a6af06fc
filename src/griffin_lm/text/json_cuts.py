r"""Safe places of a `tokenizer.json`, for the schemes that published models use.

The library works in stages: added tokens are found in the text and taken out; each stretch between
them is normalised, cut into words, and each word is encoded by itself. Let x and y be neighbours. A
cut between them changes nothing if (1) no added token that the library matches in plain text holds
x next to y, (2) normalisation joins nothing across the place, and (3) one of these holds:

*Words end here.* Metaspace that splits begins a word at every space. The three patterns known here
(GPT-2's, Llama 3's, Qwen 2's) look back nowhere, and forward only from white space. Whatever they
match that ends with x ends there if y is a space or tab and x is not white space: none of them has
white space after anything else, except Llama 3's and Qwen's, whose `[^\s\p{L}\p{N}]+[\r\n]*` takes
line ends, which are no spaces or tabs. And it ends there if x is a letter and y is punctuation, a
symbol or white space: in none does anything but a letter follow a letter. So the words up to x are
found in the part alone too, and from y on the search begins as it would at the start of the part.
`Digits` only cuts words further, by one character's kind.

*BPE joins nothing here.* A merge makes a piece of the vocabulary. If no piece holds what x becomes
next to what y becomes, no merge crosses the place, those on each side are the same as for the part
alone, and their order (rank, then position) is the same. Neighbouring unknown characters become one
unknown id: so one of x and y must be a piece, or bytes stand for all characters.

Anything else in the file (a pattern, a normaliser or a model that is not known here) has no safe
place: a text is then held until its end, and the reason is said.
"""

import unicodedata
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from griffin_lm.text.cuts import CutRule, neighbours
from griffin_lm.text.json_file import Json, stand_ins

_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
PATTERNS = {
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+": "GPT-2",
    _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + _TAIL: "Llama 3",
    _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + _TAIL: "Qwen 2",
}
"""Patterns for which the claim above was checked, alternative by alternative."""

_WHITE = frozenset(
    "\t\n\x0b\x0c\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u180e\u200b\u2028\u2029\u202f\u205f\u3000\ufeff"
    + "".join(map(chr, range(0x2000, 0x200B)))
)
"""White space, and whatever some edition of Unicode or some library takes for it."""

Pair = Callable[[str, str], bool]


def cut_rule(spec: Json, normalize: Callable[[str], str], vocabulary: Mapping[str, int]) -> CutRule:
    """The safe places of a vocabulary.

    Args:
        spec: the file.
        normalize: the file's normaliser, without a prefix in front.
        vocabulary: pieces and their ids.

    """
    reason, nfc = _normalizers(spec)
    matched = [row for row in spec.get("added_tokens", []) if not row.get("special")]
    if any(row.get(flag) for row in matched for flag in ("lstrip", "rstrip", "single_word")):
        reason = "it has added tokens that look at what stands beside them"
    if matched and _has_prefix(spec):
        reason = "it puts a space in front of the text after each added token"
    if reason:
        return CutRule(None, reason)
    contents = [str(row["content"]) for row in matched]
    taken_out = neighbours([*contents, *map(normalize, contents)])
    found = _words_end(spec) or _bpe_joins_nothing(spec, normalize, vocabulary, nfc)
    if isinstance(found, str):
        return CutRule(None, found)
    words = found

    def pair(x: str, y: str) -> bool:
        before, after = normalize(x), normalize(y)
        if not before or not after:
            return False
        # NFC joins a character to the one before only if it is a mark or a Korean letter
        if nfc and (unicodedata.combining(y) or unicodedata.category(y)[0] not in "PSZC"):
            return False
        if any(a + b in taken_out for a in (x, before[-1]) for b in (y, after[0])):
            return False
        return words(x, y)

    return CutRule(pair)


def _parts(part: object, key: str) -> Iterator[Mapping[str, Any]]:
    if isinstance(part, dict):
        if part.get("type") != "Sequence":
            yield part
        else:
            for inner in part.get(key, []):
                yield from _parts(inner, key)


def _normalizers(spec: Json) -> tuple[str, bool]:
    """(why they are not known, or "", whether NFC is among them)."""
    nfc = False
    for part in _parts(spec.get("normalizer"), "normalizers"):
        pattern = part.get("pattern")
        match part.get("type"):
            case "NFC":
                nfc = True
            case "Prepend":
                pass
            case "Replace" if isinstance(pattern, dict) and len(pattern.get("String", "")) == 1:
                pass
            case kind:
                return f"its normaliser {kind} may join characters", nfc
    return "", nfc


def _has_prefix(spec: Json) -> bool:
    """Whether a space is put in front of a text."""
    parts = [*_parts(spec.get("normalizer"), "normalizers")]
    parts += [*_parts(spec.get("pre_tokenizer"), "pretokenizers")]
    for part in parts:
        match part.get("type"):
            case "Prepend":
                return True
            case "ByteLevel" if part.get("add_prefix_space", True):
                return True
            case "Metaspace":
                scheme = "always" if part.get("add_prefix_space", True) else "never"
                if part.get("prepend_scheme", scheme) != "never":
                    return True
            case _:
                pass
    return False


def _words_end(spec: Json) -> Pair | None:
    """Where words end, for the ways of cutting words that are known; None for others."""
    pattern = False
    for part in _parts(spec.get("pre_tokenizer"), "pretokenizers"):
        match part.get("type"):
            case "Metaspace" if part.get("split", True) and not pattern:
                return lambda x, y: y == " "
            case "ByteLevel":
                pattern = pattern or bool(part.get("use_regex", True))
            case "Split":
                found = part.get("pattern")
                text = found.get("Regex") if isinstance(found, dict) else None
                if text not in PATTERNS or part.get("behavior") != "Isolated":
                    return None
                if part.get("invert"):
                    return None
                pattern = True
            case "Digits":
                pass
            case _:
                return None
    return _word_ends if pattern else None


def _word_ends(x: str, y: str) -> bool:
    if y in " \t" and x not in _WHITE and unicodedata.category(x)[0] != "C":
        return True
    # NFC makes of some letters a letter and a mark; what it makes is what the pattern sees
    letter = unicodedata.category(unicodedata.normalize("NFC", x)[-1])[0] == "L"
    letter = letter and unicodedata.category(x)[0] == "L"
    return letter and (unicodedata.category(y)[0] in "PS" or y in " \t\r\n")


def _bpe_joins_nothing(
    spec: Json, normalize: Callable[[str], str], vocabulary: Mapping[str, int], nfc: bool
) -> Pair | str:
    """Where BPE merges nothing; or why that is not known."""
    model = spec["model"]
    if model.get("type", "BPE") != "BPE":
        return f"its model {model.get('type')} is not known to work piece by piece"
    if model.get("continuing_subword_prefix"):
        return "its BPE has a prefix of its own inside words"
    if model.get("end_of_word_suffix"):
        return "its BPE marks the ends of words"
    become = normalize
    for part in _parts(spec.get("pre_tokenizer"), "pretokenizers"):
        pattern = part.get("pattern")
        match part.get("type"):
            case "Metaspace":
                space = str(part.get("replacement", "\u2581"))
                become = _then_replaced(become, space)
            case "Split" if (
                isinstance(pattern, dict)
                and len(pattern.get("String", "")) == 1
                and part.get("behavior") != "Contiguous"
                and not part.get("invert")
            ):
                pass  # words end beside one character: a cut adds an end where nothing is joined
            case "ByteLevel" if not part.get("use_regex", True):
                become = _then_bytes(become)
            case kind:
                return f"its way of cutting words, {kind}, is not known"
    bytes_for_all = bool(model.get("byte_fallback")) and all(
        f"<0x{byte:02X}>" in vocabulary for byte in range(256)
    )
    if model.get("byte_fallback") and any(
        half.startswith("<0x") for merge in model.get("merges", []) for half in _halves(merge)
    ):
        return "its BPE merges bytes"
    joined = neighbours(vocabulary)

    def pair(x: str, y: str) -> bool:
        if nfc and not (x.isascii() and y in " \t\r\n"):
            return False
        before, after = become(x), become(y)
        if before[-1] + after[0] in joined:
            return False
        return bytes_for_all or before[-1] in vocabulary or after[0] in vocabulary

    return pair


def _halves(merge: object) -> list[str]:
    if isinstance(merge, str):
        return merge.split(" ")
    return [str(half) for half in merge] if isinstance(merge, list) else []


def _then_replaced(become: Callable[[str], str], space: str) -> Callable[[str], str]:
    return lambda text: become(text).replace(" ", space)


def _then_bytes(become: Callable[[str], str]) -> Callable[[str], str]:
    character_of = {byte: character for character, byte in stand_ins().items()}
    return lambda text: "".join(character_of[byte] for byte in become(text).encode())
