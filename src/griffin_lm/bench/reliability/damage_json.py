"""Damage to JSON that keeps it JSON: types, sizes, names, nesting, shapes, texts in texts.

The tree is changed as Python objects and written by `json`; what Python cannot hold (a name twice,
1e999, forty thousand brackets) stands in it as a placeholder that is replaced in the text.
"""

import json
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

from .damage import INTEGERS

_MARK = "\x01placeholder"
_NUMBERS = ("NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1" + "0" * 400, "9" * 5000,
            "-0", "-0.0", "1e-400", "0.1e1", "1.0", "1E3", "00", "+1", "0x10", "1_000")  # fmt: skip
_STRINGS = ("", "\0", "\ud800", "\uffff", "\U0001f600", "a" * 1000, "é" * 20_000, "../x", "/",
            "{i}", "%s", "null", "0", " ", "\u2581", "<0x00>", "<0xZZ>", "F32", "BF16", "I64",
            "recurrent", "attention", "rg_lru", "local_attention", "model.safetensors", "Sequence",
            "ByteLevel", "Metaspace", "Unigram", "WordPiece", "WordLevel", "BPE")  # fmt: skip
_DEPTHS = (2, 100, 130, 300, 900, 960, 980, 990, 1000, 5000, 40_000)

Place = tuple[Any, Any]  # a container, and the key or index of something in it


def damage_json(random: Random, data: bytes) -> bytes:
    """One to three changes to the tree; the bytes as they are where they hold none."""
    try:
        tree = json.loads(data)
    except (ValueError, RecursionError):
        return data
    return damage_tree(random, tree)


def damage_tree(random: Random, tree: Any) -> bytes:
    """The JSON text of a changed tree. The tree given is changed too."""
    box = [tree]
    raws: list[str] = []
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        places = [(box, 0)] if random.random() < 0.02 else list(_places(tree)) or [(box, 0)]
        random.choice(_CHANGES)(random, _pick(random, places), raws)
        if not box:  # removed as a whole
            box.append(None)
        tree = box[0]
    ascii_only = random.random() < 0.7
    text = json.dumps(box[0], ensure_ascii=ascii_only)
    for number, raw in enumerate(raws):
        mark = json.dumps(f"{_MARK}{number}.", ensure_ascii=ascii_only)
        text = text.replace(mark, raw)
    return text.encode("utf-8", "surrogatepass")


def _places(tree: Any) -> Iterator[Place]:
    """Every value but the root, outer ones first."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict | list):
            for key in list(node) if isinstance(node, dict) else range(len(node)):
                yield node, key
                waiting.append(node[key])


def _pick(random: Random, places: list[Place]) -> Place:
    """Any place; half the time one of the first, so that long lists don't hide the few settings."""
    few = places[:60] if random.random() < 0.5 else places
    return random.choice(few)


def _raw(raws: list[str], text: str) -> str:
    """A placeholder that `text` will replace."""
    raws.append(text)
    return f"{_MARK}{len(raws) - 1}."


def _anything(random: Random, raws: list[str]) -> Any:
    kind = random.randrange(10)
    if kind == 9 and random.random() < 0.2:  # as much memory as JSON can ask for
        wide = random.choice(("{}", "[]", '{"a":1}', '"ab"', "999", '["a","b"]'))
        return _raw(raws, "[" + ",".join([wide] * random.choice((100, 5000, 30_000))) + "]")
    if kind == 0:
        return random.choice((None, True, False))
    if kind == 1:
        return random.choice((-1, 1)) * random.choice(INTEGERS) + random.choice((-1, 0, 1))
    if kind == 2:
        return random.choice((0.5, -1.5, 1e-30, 1e30, 1e308, 5e-324, 3.0))
    if kind == 3:
        return _raw(raws, random.choice(_NUMBERS))
    if kind == 4:
        return random.choice(_STRINGS)
    if kind == 5:
        return random.choice(([], {}, [[]], [{}], {"": {}}, [None], [0] * 9, {"kind": "rg_lru"}))
    if kind == 6:
        return _deep(random, raws)
    return random.randrange(-2, 300)


def _deep(random: Random, raws: list[str]) -> str:
    depth = random.choice(_DEPTHS)
    opening, inside, closing = random.choice(
        (("[", "", "]"), ("[", "1", "]"), ('{"a":', "1", "}"), ('{"type":', '"a"', "}"))
    )
    if random.random() < 0.2:
        closing = ""  # cut off at the bottom
    return _raw(raws, opening * depth + inside + closing * depth)


def _replace(random: Random, at: Place, raws: list[str]) -> None:
    at[0][at[1]] = _anything(random, raws)


def _nudge(random: Random, at: Place, raws: list[str]) -> None:
    """A value of the same type, near the old one."""
    old = at[0][at[1]]
    if isinstance(old, bool):
        at[0][at[1]] = random.choice((not old, int(old), str(old)))
    elif isinstance(old, int):
        near = (old + 1, old - 1, -old, old * 2, old // 2, old + 2**32, old + 2**64, float(old))
        at[0][at[1]] = random.choice((*near, str(old), [old]))
    elif isinstance(old, float):
        at[0][at[1]] = random.choice(
            (-old, old * 2, old * 1e300, round(old) if abs(old) < 1e9 else 0)
        )
    elif isinstance(old, str):
        at[0][at[1]] = _text(random, old, raws)
    elif isinstance(old, list) and old and all(type(n) is int for n in old):
        at[0][at[1]] = _shape(random, old)
    else:
        _replace(random, at, raws)


def _text(random: Random, old: str, raws: list[str]) -> Any:
    """A changed text; JSON inside a text is changed as JSON."""
    if old.startswith("{") and random.random() < 0.8:
        try:
            return damage_tree(random, json.loads(old)).decode("utf-8", "surrogatepass")
        except (ValueError, RecursionError):
            return ""
    cut = random.randrange(len(old) + 1)
    return random.choice(
        (old[:cut], old[cut:], old + old, old.upper(), old + "\0", [old], {old: old},
         old[:cut] + random.choice(_STRINGS) + old[cut:], _raw(raws, f'"{old[:cut]}\\u12"'))
    )  # fmt: skip


def _shape(random: Random, old: list[int]) -> list[Any]:
    """Another list of numbers, often with the same product."""
    new: list[Any] = list(old)
    at = random.randrange(len(new))
    kind = random.randrange(7)
    if kind == 0:
        random.shuffle(new)
    elif kind == 1:
        new.insert(at, 1)
    elif kind == 2 and len(new) > 1:
        factor = next((n for n in (2, 3, 5) if new[at] % n == 0), 1)
        new[at] //= factor
        new[at - 1] *= factor
    elif kind == 3:
        new = [-n for n in new]
    elif kind == 4:
        new[at] = random.choice((0, -1, 2**31, 2**32 + new[at], 2**62, 2**63, 2**64 + new[at]))
    elif kind == 5:
        new = [*new, *([1] * random.choice((1, 5, 60)))]
    else:
        del new[at]
    return new


def _remove(random: Random, at: Place, raws: list[str]) -> None:
    del at[0][at[1]]


def _rename(random: Random, at: Place, raws: list[str]) -> None:
    owner, key = at
    if isinstance(owner, dict):
        new = random.choice((key + "x", key[:-1], *_STRINGS, random.choice(list(owner))))
        owner[new] = owner.pop(key)
    else:
        owner.insert(key, owner[random.randrange(len(owner))])


def _twice(random: Random, at: Place, raws: list[str]) -> None:
    """A name a second time, with the same value or another."""
    owner, key = at
    if isinstance(owner, dict):
        again = json.dumps(key)
        owner[_raw(raws, again)] = owner[key] if random.random() < 0.3 else _anything(random, raws)
    else:
        owner.append(owner[key])


def _more(random: Random, at: Place, raws: list[str]) -> None:
    owner, key = at
    if isinstance(owner, dict):
        owner[random.choice(_STRINGS)] = _anything(random, raws)
    else:
        owner[key:key] = [_anything(random, raws)] * random.choice((1, 2, 50))


def _exchange(random: Random, at: Place, raws: list[str]) -> None:
    """Two values of one container change places."""
    owner, key = at
    other = random.choice(list(owner) if isinstance(owner, dict) else range(len(owner)))
    owner[key], owner[other] = owner[other], owner[key]


def _wrap(random: Random, at: Place, raws: list[str]) -> None:
    at[0][at[1]] = random.choice(([at[0][at[1]]], {"type": at[0][at[1]]}, [[at[0][at[1]]]]))


_CHANGES: tuple[Callable[[Random, Place, list[str]], None], ...] = (
    _replace, _replace, _nudge, _nudge, _nudge, _remove, _rename, _twice, _more, _exchange, _wrap,
)  # fmt: skip
