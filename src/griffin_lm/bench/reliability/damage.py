"""Damage to bytes of any kind: flips, cuts, copies, and integers where lengths may stand.

Everything that damages takes (random, good) and returns the damaged thing: the same random gives
the same damage. Places at both ends come more often: headers stand in front, directories behind.
"""

from collections.abc import Callable
from random import Random

Damage = Callable[[Random, bytes], bytes]

# where signs, widths and sizes of memory change
INTEGERS = (0, 1, 2, 7, 8, 127, 128, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**32,
            2**40, 2**53, 2**62, 2**63 - 1, 2**63, 2**64 - 1)  # fmt: skip
_END = 512  # bytes at either end that are hit more often


def integer(random: Random) -> int:
    """A number near one where something changes, or a small one."""
    if random.random() < 0.3:
        return random.randrange(300)
    return max(0, random.choice(INTEGERS) + random.choice((-1, 0, 0, 1)))


def varint(value: int) -> bytes:
    """As Protocol Buffers write a number: seven bits a byte, the lowest first."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value))


def damage_bytes(random: Random, data: bytes) -> bytes:
    """One to three changes; now and then a file of something else altogether."""
    if random.random() < 0.01:
        return random.choice((b"", b"\0" * 64, b"{}", random.randbytes(random.randrange(200))))
    raw = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        random.choice(_CHANGES)(random, raw)
    return bytes(raw)


def _place(random: Random, raw: bytearray) -> int:
    where, size = random.random(), max(len(raw), 1)
    if where < 0.35:
        return random.randrange(min(size, _END))
    if where < 0.55:
        return size - 1 - random.randrange(min(size, _END))
    return random.randrange(size)


def _flip(random: Random, raw: bytearray) -> None:
    if raw:
        raw[_place(random, raw)] ^= 1 << random.randrange(8)


def _set(random: Random, raw: bytearray) -> None:
    if raw:
        raw[_place(random, raw)] = random.choice((0, 255, random.randrange(256)))


def _integer(random: Random, raw: bytearray) -> None:
    """A fixed-width integer of either byte order, or a varint, written over what stands there."""
    value, width = integer(random), random.choice((2, 4, 8))
    if random.random() < 0.3:
        new = varint(value)
    else:
        new = (value % 2 ** (8 * width)).to_bytes(width, random.choice(("little", "big")))
    at = 0 if random.random() < 0.15 else _place(random, raw)
    raw[at : at + len(new)] = new


def _insert(random: Random, raw: bytearray) -> None:
    at = _place(random, raw)
    raw[at:at] = random.randbytes(random.choice((1, 2, 4, 8, 64)))


def _delete(random: Random, raw: bytearray) -> None:
    at = _place(random, raw)
    del raw[at : at + random.choice((1, 1, 2, 8, 50, 1000))]


def _truncate(random: Random, raw: bytearray) -> None:
    del raw[_place(random, raw) :]


def _extend(random: Random, raw: bytearray) -> None:
    more = random.choice((1, 8, 100, 5000))
    raw += bytes(more) if random.random() < 0.5 else random.randbytes(more)


def _zero(random: Random, raw: bytearray) -> None:
    at = _place(random, raw)
    end = min(len(raw), at + random.choice((1, 8, 64, 1000)))
    raw[at:end] = bytes((random.choice((0, 0, 255)),)) * (end - at)


def _copy(random: Random, raw: bytearray) -> None:
    """A block over another, or once more beside it."""
    source, target = _place(random, raw), _place(random, raw)
    block = raw[source : source + random.choice((4, 16, 100, 1000))]
    over = 0 if random.random() < 0.5 else len(block)
    raw[target : target + over] = block


def _swap(random: Random, raw: bytearray) -> None:
    width = random.choice((4, 16, 100))
    a, b = sorted((_place(random, raw), _place(random, raw)))
    if b - a >= width and b + width <= len(raw):
        raw[a : a + width], raw[b : b + width] = raw[b : b + width], raw[a : a + width]


def _repeat(random: Random, raw: bytearray) -> None:
    at = _place(random, raw)
    block = raw[at : at + random.choice((1, 2, 8, 40))]
    raw[at:at] = block * random.choice((2, 16, 200))


_CHANGES = (_flip, _flip, _set, _integer, _integer, _insert, _delete, _truncate, _extend, _zero,
            _copy, _swap, _repeat)  # fmt: skip
