"""What a checkpoint with matrices in 8 or 4 bits says of itself, in config.json.

"quantization": {"source": the fingerprint of the weights before they were rounded,
                 "dtype": what they were rounded from, and the model computes in unless told,
                 "int8" or "int4": [names of the weights that are matrices of this kind]}

The tensors of a matrix stand under its name: `embed.weight.q`, `embed.weight.scale`, and so on.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import CheckpointCorrupt, CheckpointMismatch, ConfigError
from ..layers.quantized import KINDS, QuantizedMatrix, has_matrix, matrices, replace_weight
from ..shapes import JSON
from .format import Place
from .names import Rename
from .source import Source
from .tensors import CODES

KEY = "quantization"
_AGAIN = "restore it, or quantise the model again"


@dataclass(frozen=True)
class Quantization:
    """kinds: of each matrix, by the name of its weight. source, dtype: see above."""

    kinds: Mapping[str, str]
    source: str
    dtype: torch.dtype

    def to_dict(self) -> JSON:
        """As it stands in config.json."""
        made: JSON = {"source": self.source, "dtype": str(self.dtype).removeprefix("torch.")}
        for kind in KINDS:
            if names := [name for name, k in self.kinds.items() if k == kind]:
                made[kind] = names
        return made

    def prepare(self, model: nn.Module, where: Path) -> None:
        """Puts matrices on meta where the weights stood. Raises CheckpointMismatch."""
        for name, kind in self.kinds.items():
            home, _, leaf = name.rpartition(".")
            try:
                owner = model.get_submodule(home)
            except AttributeError:
                owner = nn.Module()
            if leaf != "weight" or not has_matrix(owner):
                raise CheckpointMismatch(
                    f"{where} speaks of {name[:200]!r} in {kind}, but the model that it describes "
                    f"has no such matrix; {_AGAIN}"
                )
            weight: Any = owner.weight
            replace_weight(owner, QuantizedMatrix(kind, tuple(weight.shape), self.dtype))

    def left_to_round(self, quantize: str | None, where: Path) -> str | None:
        """`quantize` as asked for, once what is in the files agrees with it. Raises ConfigError."""
        found = sorted(set(self.kinds.values()))
        if quantize is not None and found != [quantize]:
            raise ConfigError(
                f"{where} is saved in {' and '.join(found)}, which is not rounded again to "
                f"{quantize}: leave out quantize, or load the checkpoint that it was made of"
            )
        return quantize


def read_quantization(place: Place) -> Quantization | None:
    """What config.json says; None where it says nothing. Raises CheckpointCorrupt."""
    found = (place.config or {}).get(KEY)
    if found is None:
        return None
    read = _read(found) if isinstance(found, dict) else None
    if read is None:
        raise CheckpointCorrupt(
            f"{place.file}: its {KEY} is not as this format writes it; {_AGAIN}"
        )
    return read


def _read(found: JSON) -> Quantization | None:
    """None where it is not as `to_dict` writes it."""
    floats = {str(dtype).removeprefix("torch."): dtype for dtype in CODES}
    source, dtype = found.get("source"), floats.get(str(found.get("dtype")))
    lists: dict[str, Any] = {kind: found[kind] for kind in KINDS if kind in found}
    if not all(isinstance(names, list) for names in lists.values()):
        return None
    rows = [(name, kind) for kind, names in lists.items() for name in names]
    if not rows or not all(isinstance(name, str) for name, _ in rows):
        return None
    kinds = dict(rows)
    strange = set(found) - {"source", "dtype", *KINDS}
    if not isinstance(source, str) or dtype is None or len(kinds) < len(rows) or strange:
        return None
    return Quantization(kinds, source, dtype)


def check_dtypes(
    model: nn.Module, plan: Iterable[Rename], source: Source, wanted: Mapping[str, torch.dtype]
) -> None:
    """Tensors of matrices have their dtype, all others are floats. Raises CheckpointCorrupt."""
    packed = tuple(f"{name}." for name in matrices(model))
    for row in plan:
        found = source.dtype(row.theirs)
        right = found == wanted[row.ours] if row.ours.startswith(packed) else found in CODES
        if not right:
            raise CheckpointCorrupt(
                f"{source.where}: tensor {row.theirs!r} has the dtype {found}, which it cannot "
                f"have; {_AGAIN}"
            )
