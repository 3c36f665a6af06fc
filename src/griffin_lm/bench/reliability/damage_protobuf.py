"""Damage to a Protocol Buffers message, field by field; lengths right, or wrong on purpose.

A reader of its own, so that a mistake in ours does not hide itself.
https://protobuf.dev/programming-guides/encoding/
"""

import struct
from dataclasses import dataclass, replace
from random import Random

from .damage import damage_bytes, integer, varint


@dataclass(frozen=True)
class Field:
    """A field as it is written: number, wire type, content; `claims` is a false length."""

    number: int
    wire: int
    content: bytes
    claims: int | None = None

    def write(self) -> bytes:
        """The field's bytes."""
        length = len(self.content) if self.claims is None else self.claims
        return (
            varint(self.number << 3 | self.wire)
            + (varint(length) if self.wire == 2 else b"")
            + self.content
        )


def fields(data: bytes) -> list[Field] | None:
    """The fields of a message, or None where it is none."""
    found: list[Field] = []
    at = 0
    while at < len(data):
        tag, at = _number(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            end = _number(data, at)[1]
        elif wire == 2:
            length, at = _number(data, at)
            end = at + length
        else:
            end = at + {1: 8, 5: 4}.get(wire, len(data) + 1)
        if number == 0 or end > len(data):
            return None
        found.append(Field(number, wire, data[at:end]))
        at = end
    return found


def damage_protobuf(random: Random, data: bytes) -> bytes:
    """One to three changed fields, at any depth; the bytes as they are where they hold none."""
    rows = fields(data)
    if not rows:
        return data
    for _ in range(random.choice((1, 1, 2, 3))):
        # a vocabulary has hundreds of pieces in front and a few settings behind
        last = random.random() < 0.4
        at = len(rows) - 1 - random.randrange(min(4, len(rows))) if last else None
        _change(random, rows, random.randrange(len(rows)) if at is None else at)
        if not rows:
            break
    return b"".join(row.write() for row in rows)


def _change(random: Random, rows: list[Field], at: int) -> None:
    old = rows[at]
    kind = random.randrange(10)
    if kind < 4 and old.wire == 2 and fields(old.content):
        rows[at] = replace(old, content=damage_protobuf(random, old.content))
    elif kind < 5:
        rows[at] = _other_content(random, old)
    elif kind == 5:
        del rows[at]
    elif kind == 6:
        rows[at:at] = [rows[random.randrange(len(rows))]] * random.choice((1, 2, 100))
    elif kind == 7:
        rows[at] = replace(old, number=random.choice((old.number + 1, 1, 2, 3, 4, 5, 2**28)))
    elif kind == 8 and old.wire == 2:
        rows[at] = replace(old, claims=integer(random))
    elif kind == 8:
        rows[at] = replace(old, wire=random.choice((0, 1, 2, 3, 4, 5, 6, 7)))
    else:
        other = random.randrange(len(rows))
        rows[at], rows[other] = rows[other], rows[at]


def _other_content(random: Random, old: Field) -> Field:
    if old.wire == 0:
        return replace(old, content=varint(integer(random)))
    if old.wire == 5:
        number = random.choice((0.0, -1e30, float("inf"), float("nan"), 1e-45))
        return replace(old, content=struct.pack("<f", number))
    texts = (b"", b"\0", b"\xff\xfe", b"a" * 3000, "\u2581".encode(), b"<0x41>", b"<0xZZ>",
             b"<eos>", b"<start_of_turn>", "\ud800".encode("utf-8", "surrogatepass"))  # fmt: skip
    if random.random() < 0.5:
        return replace(old, content=random.choice(texts))
    return replace(old, content=damage_bytes(random, old.content))


def _number(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data):
        value |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
        if data[at - 1] < 0x80:
            break
    return value, at
