"""Dimension letters, the same in every file.

    B  rows of a batch            W  width of the residual stream     V  words of the vocabulary
    T  tokens along time          R  width of the recurrence          M  width of an MLP branch
    H  heads (query heads, gates) K  key/value heads                  D  width of a head
    S  keys that a query may see  L  layers                           N  slots of a ring, cache
    C  taps of the conv, P = C-1  I  inputs of a gate block           O  outputs of a gate block
    E  channels of S6             G  gates of a GRU, 3 R              N  also states of LRU and S6

Annotations are jaxtyping's: `Float[Tensor, "B T W"]`. They are checked while the tests run and
cost nothing otherwise.
"""

from typing import Any, TypeAlias

from jaxtyping import Bool, Float, Int64
from torch import Tensor

Tokens: TypeAlias = Int64[Tensor, "B T"]
Flags: TypeAlias = Bool[Tensor, "B T"]
Counts: TypeAlias = Int64[Tensor, " B"]
Hidden: TypeAlias = Float[Tensor, "B T W"]

JSON: TypeAlias = dict[str, Any]
