"""What DeepMind's package calls things: PyTorch's `.pt` and Flax's trees name them alike.

The matrix of a linear map is `weight` (out, in) for PyTorch, as ours, and `kernel` (in, out) for
Flax; nothing else differs. A Flax path is written with dots: "blocks.0.mlp_block.ffw_up.w".
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ..names import Rename, Shape
from ..source import Source

_MINE, _THEIRS = "layers.{i}.", "blocks.{i}."
_WRAPPER = "params."


def _linear(ours: str, theirs: str, *parts: str) -> tuple[Rename, ...]:
    return tuple(Rename(f"{_MINE}{ours}.{part}", f"{_THEIRS}{theirs}.{part}") for part in parts)


def _halves(ours: str, which: int) -> tuple[Rename, ...]:
    """One of the MLP's branches: ffw_up stacks both, w (2, W, M) and b (2, 1, 1, M)."""
    part = (which, 2)
    up = f"{_THEIRS}mlp_block.ffw_up."
    return (
        Rename(
            f"{_MINE}{ours}.weight", up + "w", load=lambda w: w.T, save=lambda w: w.T, part=part
        ),
        Rename(
            f"{_MINE}{ours}.bias",
            up + "b",
            load=lambda b: b[0, 0],
            save=lambda b: b[None, None],
            part=part,
        ),
    )


_CELL, _RG_LRU = _MINE + "mixer.cell.", _THEIRS + "recurrent_block.rg_lru."
TORCH = (
    Rename("embed.weight", "embedder.input_embedding", padded=True),
    Rename("final_norm.scale", "final_norm.scale"),
    Rename(_MINE + "mixer_norm.scale", _THEIRS + "temporal_pre_norm.scale"),
    Rename(_MINE + "mlp_norm.scale", _THEIRS + "channel_pre_norm.scale"),
    *_linear("mixer.linear_x", "recurrent_block.linear_x", "weight", "bias"),
    *_linear("mixer.linear_y", "recurrent_block.linear_y", "weight", "bias"),
    *_linear("mixer.linear_out", "recurrent_block.linear_out", "weight", "bias"),
    *_linear("mixer.conv", "recurrent_block.conv_1d", "w", "b"),
    Rename(_CELL + "Lambda", _RG_LRU + "a_param"),
    *_linear("mixer.cell.x_gate", "recurrent_block.rg_lru.input_gate", "w", "b"),
    *_linear("mixer.cell.a_gate", "recurrent_block.rg_lru.a_gate", "w", "b"),
    *_linear("mixer.q", "attention_block.proj_q", "weight"),
    *_linear("mixer.k", "attention_block.proj_k", "weight"),
    *_linear("mixer.v", "attention_block.proj_v", "weight"),
    *_linear("mixer.out", "attention_block.proj_final", "weight", "bias"),
    *_halves("mlp.gate", 0),
    *_halves("mlp.up", 1),
    *_linear("mlp.down", "mlp_block.ffw_down", "weight", "bias"),
)


def _in_flax(row: Rename) -> Rename:
    stem, _, last = row.theirs.rpartition(".")
    if last != "weight":
        return row
    return replace(row, theirs=f"{stem}.kernel", load=lambda w: w.T, save=lambda w: w.T)


FLAX = tuple(_in_flax(row) for row in TORCH)


def in_torch(shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """Shapes by PyTorch's names and in its layout, whichever of the two they come in."""
    return {
        re.sub(r"\.kernel$", ".weight", name): shape[::-1] if name.endswith(".kernel") else shape
        for name, shape in shapes.items()
    }


class Unwrapped:
    """A Source whose names lose the "params." that stands before all of them, once or twice."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._prefix = ""
        names = list(source.shapes)
        while names and self._prefix.count(".") < 2:
            if not all(name.startswith(self._prefix + _WRAPPER) for name in names):
                break
            self._prefix += _WRAPPER
        self.shapes = {n[len(self._prefix) :]: shape for n, shape in source.shapes.items()}

    @property
    def where(self) -> Path:
        """See Source."""
        return self._source.where

    @property
    def nbytes(self) -> int:
        """See Source."""
        return self._source.nbytes

    @property
    def files(self) -> list[Path]:
        """See Source."""
        return list(self._source.files)

    @property
    def mapped(self) -> bool:
        """See Source."""
        return self._source.mapped

    def dtype(self, name: str) -> torch.dtype:
        """See Source."""
        return self._source.dtype(self._prefix + name)

    def get(self, name: str) -> Tensor:
        """See Source."""
        return self._source.get(self._prefix + name)
