"""The tensors of `consolidated.00.pth`, `.01.pth`, ...: one file, or slices of every matrix.

Each process of a model-parallel run wrote a file: of maps that it computed alone a stretch of rows,
of those whose results are summed a stretch of columns (llama3, `llama/model.py`), of norms all.
Queries and keys are rotated in pairs of neighbours there; here each head's first half turns with
its second, so their rows are put in that order.
"""

import re
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from ...errors import CheckpointMismatch, CheckpointNotFound
from ..deepmind.torch_file import TorchFile
from ..files import read_json
from ..huggingface.settings import Settings
from ..names import Shape
from ..tensors import same_bits

PATTERN = "consolidated.*.pth"
PARAMS = "params.json"
EMBEDDING, HEAD = "tok_embeddings.weight", "output.weight"
_NUMBERED = re.compile(r"consolidated\.(\d+)\.pth")
_ROWS = re.compile(r"output|layers\.\d+\.(attention\.w[qkv]|feed_forward\.w[13])")
_COLUMNS = re.compile(r"layers\.\d+\.(attention\.wo|feed_forward\.w2)")
_TURNED = re.compile(r"layers\.\d+\.attention\.w[qk]\.weight")
_DERIVED = "rope.freqs"  # follows from params.json; some files keep it


class MetaWeights:
    """The tensors of a folder, merged and in our order of rows (a Source); and its params.json."""

    def __init__(self, folder: Path) -> None:
        self.params = Settings(read_json(folder / PARAMS), folder / PARAMS)
        self.width = self.params.whole("dim", None)
        self.heads = self.params.whole("n_heads", None)
        self.files = _files(folder)
        self._parts = [TorchFile(path) for path in self.files]
        self.where = self.files[0] if len(self.files) == 1 else folder
        first = self._parts[0]
        for part in self._parts[1:]:
            for name in first.shapes.keys() ^ part.shapes.keys():
                raise CheckpointMismatch(
                    f"{part.where} and {first.where} do not hold the same tensors ({name[:200]} is "
                    "in one of them): they are not of one checkpoint; fetch it again"
                )
            for name, shape in first.shapes.items():
                if part.shapes[name] != shape or part.dtype(name) != first.dtype(name):
                    raise CheckpointMismatch(
                        f"{part.where}: {name[:200]} is {part.shapes[name]}, {part.dtype(name)}, "
                        f"in {first.where.name} {shape}, {first.dtype(name)}: they are not of one "
                        "checkpoint; fetch it again"
                    )
        names = [name for name in first.shapes if not name.endswith(_DERIVED)]
        self.shapes: dict[str, Shape] = {name: self._whole(name) for name in names}

    @property
    def mapped(self) -> bool:
        """Whether tensors are views of the files, but for queries and keys: where there is one."""
        return len(self._parts) == 1

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors, merged."""
        return sum(
            torch.Size(shape).numel() * self.dtype(name).itemsize
            for name, shape in self.shapes.items()
        )

    @cached_property
    def tied(self) -> bool:
        """Whether the head is the embedding: it is not there, or equal to the bit."""
        if HEAD not in self.shapes or EMBEDDING not in self.shapes:
            return True
        return same_bits(self.get(HEAD), self.get(EMBEDDING))

    def dtype(self, name: str) -> torch.dtype:
        """The dtype in the files."""
        return self._parts[0].dtype(name)

    def get(self, name: str) -> Tensor:
        """A tensor, not to be written to; raises CheckpointCorrupt where its bytes are damaged."""
        parts = [part.get(name) for part in self._parts]
        axis = self._axis(name)
        if len(parts) == 1:
            merged = parts[0]
        elif axis is not None:
            merged = torch.cat(parts, axis)
        else:
            merged = parts[0]
            for part, file in zip(parts, self.files, strict=True):
                if not same_bits(merged, part):
                    raise CheckpointMismatch(
                        f"{file}: {name[:200]} differs from that in {self.files[0].name}; they are "
                        "not of one checkpoint: fetch it again"
                    )
        return self._in_halves(name, merged) if _TURNED.fullmatch(name) else merged

    def _axis(self, name: str) -> int | None:
        """Along which the files have slices; None: each has all of it."""
        if name == EMBEDDING:  # Llama 3 cuts the vocabulary, Llama 2 cut the width
            return 0 if self._parts[0].shapes[name][1:] == (self.width,) else 1
        stem = name.removesuffix(".weight")
        if _ROWS.fullmatch(stem):
            return 0
        return 1 if _COLUMNS.fullmatch(stem) else None

    def _whole(self, name: str) -> Shape:
        shape, axis = list(self._parts[0].shapes[name]), self._axis(name)
        if axis is not None and len(shape) == 2:
            shape[axis] *= len(self._parts)
        return tuple(shape)

    def _in_halves(self, name: str, weight: Tensor) -> Tensor:
        """Rows 0, 2, 4, ... of each head, then 1, 3, 5, ...: the pairs that turn together."""
        head_dim = self.width // self.heads
        if weight.dim() != 2 or head_dim % 2 or not head_dim or weight.shape[0] % head_dim:
            raise CheckpointMismatch(
                f"{self.where}: {name} has the shape {tuple(weight.shape)}, which is no heads of "
                f"{head_dim}, as {PARAMS} has them; fetch the checkpoint again"
            )
        pairs = weight.unflatten(0, (-1, head_dim // 2, 2))
        return pairs.transpose(1, 2).flatten(0, 2)


def _files(folder: Path) -> list[Path]:
    """All of them, in order. Raises where one is missing."""
    found = {int(m[1]): path for path in folder.glob(PATTERN) if (m := _NUMBERED.match(path.name))}
    if not found:
        raise CheckpointNotFound(f"{folder} holds no {PATTERN}; fetch it again")
    missing = [n for n in range(min(max(found), 1000) + 1) if n not in found]
    if missing:
        raise CheckpointNotFound(
            f"{folder} lacks consolidated.{missing[0]:02d}.pth ({len(missing)} such), though it "
            f"has {found[max(found)].name}; fetch it again"
        )
    return [found[n] for n in sorted(found)]
