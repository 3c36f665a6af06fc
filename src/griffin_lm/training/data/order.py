"""In which order examples come: a permutation that is computed, not stored.

Example number p of an epoch is a function of (seed, epoch, p) alone, in O(1) memory: a Feistel
network permutes the smallest power of four that holds all examples, and a result past the end is
sent through again until it falls inside (cycle walking; Black and Rogaway 2002, "Ciphers with
arbitrary finite domains"). It mixes well and keeps no secret.
"""

import hashlib
import struct
from collections.abc import Iterator

from ...errors import InputError

_ROUNDS = 8
_MASK = (1 << 64) - 1


class Permutation:
    """A bijection of 0 .. n - 1 onto itself, drawn by (seed, epoch).

    Raises:
        InputError: n < 1.

    """

    def __init__(self, n: int, seed: int, epoch: int) -> None:
        if n < 1:
            raise InputError(f"a permutation needs at least one example, not {n}")
        self.n = n
        self._half = ((n - 1).bit_length() + 1) // 2  # bits of each half
        text = f"griffin-lm order 1 {seed} {epoch}"
        self._keys = struct.unpack("<8Q", hashlib.sha512(text.encode()).digest())

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, position: int) -> int:
        """The example at a position; InputError outside 0 .. n - 1."""
        if not 0 <= position < self.n:
            raise InputError(f"position {position} of {self.n} examples")
        place = self._once(position)
        while place >= self.n:  # fewer than 4 times on average
            place = self._once(place)
        return place

    def __iter__(self) -> Iterator[int]:
        return (self[position] for position in range(self.n))

    def _once(self, value: int) -> int:
        half = self._half
        mask = (1 << half) - 1
        left, right = value >> half, value & mask
        for key in self._keys[:_ROUNDS]:
            left, right = right, left ^ (_mix(right ^ key) & mask)
        return left << half | right


def _mix(value: int) -> int:
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014): every bit moves every other."""
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    value = (value ^ value >> 27) * 0x94D049BB133111EB & _MASK
    return value ^ value >> 31


class Order:
    """Examples without end: epoch after epoch, each in an order of its own.

    Rank r of n that takes the positions r, r + n, r + 2n, ... sees its share of the same order.
    """

    def __init__(self, n: int, seed: int) -> None:
        self.n, self.seed = n, seed
        self._epoch, self._now = 0, Permutation(n, seed, 0)

    def __getitem__(self, position: int) -> int:
        """The example at a position of the whole run, 0, 1, 2, ..."""
        epoch, place = divmod(position, self.n)
        if epoch != self._epoch:
            self._epoch, self._now = epoch, Permutation(self.n, self.seed, epoch)
        return self._now[place]
