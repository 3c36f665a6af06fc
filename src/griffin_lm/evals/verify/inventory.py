"""What lies on the disk and what was loaded from it: files, hashes, tensors, counts, odd values."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import softplus

from ...checkpoints import open_source
from ...checkpoints.detection import folders_beside
from ...models import PRESETS, Griffin, ModelConfig
from ...models.sizes import parameter_counts
from ...shapes import JSON
from .lines import Line, judged, left_out, told

BESIDE = (  # small files that decide what a checkpoint is
    "config.json",
    "generation_config.json",
    "tokenizer.model",
    "tokenizer.json",
    "tokenizer_config.json",
)
PIECE = 1 << 24  # elements looked at together
DECAY = 0.5  # the median channel must keep more than this per token, gates half open or not
MANY = 12  # files of weights that the report lists one by one


@dataclass(frozen=True)
class Files:
    """A checkpoint's files: bytes and SHA-256 by name; tensors and bytes by dtype."""

    hashes: dict[str, tuple[int, str]]
    dtypes: dict[str, tuple[int, int]]
    parameters: int

    @property
    def main_dtype(self) -> torch.dtype:
        """The dtype that most bytes have."""
        name = max(self.dtypes, key=lambda name: self.dtypes[name][1])
        return getattr(torch, name)

    def to_dict(self) -> JSON:
        """Plain values."""
        return {
            "files": [
                {"name": name, "bytes": size, "sha256": digest}
                for name, (size, digest) in self.hashes.items()
            ],
            "dtypes": {
                name: {"tensors": count, "bytes": size}
                for name, (count, size) in self.dtypes.items()
            },
            "elements": self.parameters,
        }


def files_of(path: Path, progress: Callable[[int, int], None]) -> Files:
    """Reads every file of the checkpoint once, and the descriptions of its tensors.

    progress: (bytes hashed, bytes in all). Raises a CheckpointError for what is no checkpoint.
    """
    source = open_source(path)
    folder = path if path.is_dir() else path.parent
    homes = folders_beside(path)
    found = {file.resolve(): file for file in source.files}
    found |= {f.resolve(): f for home in homes for f in (home / n for n in BESIDE) if f.is_file()}
    sizes = {file: file.stat().st_size for file in found.values()}
    hashes: dict[str, tuple[int, str]] = {}
    done = 0
    for file, size in sorted(sizes.items()):
        digest = hashlib.sha256()
        with open(file, "rb") as stream:
            while piece := stream.read(1 << 24):
                digest.update(piece)
                done += len(piece)
                progress(done, sum(sizes.values()))
        inside = file.is_relative_to(folder)
        name = file.relative_to(folder).as_posix() if inside else f"../{file.name}"
        hashes[name] = size, digest.hexdigest()
    dtypes: dict[str, tuple[int, int]] = {}
    elements = 0
    for name, shape in source.shapes.items():
        dtype, count = source.dtype(name), torch.Size(shape).numel()
        tensors, size = dtypes.get(_name(dtype), (0, 0))
        dtypes[_name(dtype)] = tensors + 1, size + count * dtype.itemsize
        elements += count
    return Files(hashes, dtypes, elements)


def check_counts(model: Griffin, files: Files) -> Iterator[Line]:
    """Parameters as loaded, against the files and against the preset of this config."""
    count = sum(parameter.numel() for parameter in model.parameters())
    extra = files.parameters - count
    note = f"{extra:,} elements in the files are copies or padding" if extra else ""
    name = "parameters are all from the files"
    yield judged(name, extra >= 0, f"{count:,}", f"at most {files.parameters:,}", note)
    preset = matching_preset(model.config)
    if preset is not None:
        wanted = sum(parameter_counts(PRESETS[preset]).values())
        yield judged("count of the preset", count == wanted, f"{count:,}", f"{wanted:,}", preset)
    else:
        yield told("count of the preset", f"{count:,}", nearest_preset(model.config))


def matching_preset(config: ModelConfig) -> str | None:
    """The preset that means the same model, or None."""
    same = (name for name, known in PRESETS.items() if known.identity() == config.identity())
    return next(same, None)


def nearest_preset(config: ModelConfig) -> str:
    """In words: which preset has these sizes, and what differs; or that there is none."""
    mine = config.identity()
    for name, known in PRESETS.items():
        theirs = known.identity()
        if all(mine[key] == theirs[key] for key in ("vocab", "width", "mlp_width", "layers")):
            differing = [key for key in mine if mine[key] != theirs.get(key)]
            return f"the sizes of {name}, but other settings: {', '.join(differing)}"
    return "no preset has this config"


def check_values(model: Griffin) -> Iterator[Line]:
    """NaN, infinities, matrices of zeros; decays in a plausible range."""
    bad: list[str] = []
    empty: list[str] = []
    silent = 0
    for name, parameter in model.named_parameters():
        finite, zero = _looked_at(parameter.detach())
        bad += [] if finite else [name]
        if zero and name.endswith((".weight", ".w", ".Lambda")):
            empty.append(name)
        elif zero:
            silent += 1
    yield judged("every value is finite", not bad, _some(bad, "with NaN or infinity"), "none")
    note = f"{silent} biases and norm scales are zero throughout" if silent else ""
    yield judged("no weight is all zero", not empty, _some(empty, "of zeros"), "none", note)
    yield from _decays(model)


def _decays(model: Griffin) -> Iterator[Line]:
    """a = exp(-softplus(Lambda)): what a channel keeps per token at a gate of 1/8 (Griffin, eq. 3).

    Both of the published initialisations lie above 0.89. With the sign of Lambda confused they
    would lie below 0.11.
    """
    found = {
        name: (-softplus(parameter.detach().double().cpu())).exp()
        for name, parameter in model.named_parameters()
        if name.endswith("cell.Lambda")
    }
    if not found:
        yield left_out("decays are plausible", "the model has no RG-LRU")
        return
    every = torch.cat(list(found.values()))
    median = every.median().item()
    low, high = every.min().item(), every.max().item()
    right = median > DECAY and low >= 0 and high <= 1
    figure = f"median {median:.4f}, from {low:.4f} to {high:.6f}"
    limit = f"median above {DECAY}"
    yield judged("decays are plausible", right, figure, limit, f"{len(found)} layers")


def _looked_at(tensor: Tensor) -> tuple[bool, bool]:
    """Whether all is finite, and whether all is zero."""
    finite, zero = True, True
    for part in tensor.reshape(-1).split(PIECE):
        finite = finite and bool(part.isfinite().all())
        zero = zero and not bool(part.any())
    return finite, zero


def _some(names: list[str], what: str) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"{len(names)} {what}: {', '.join(names[:5])}{more}" if names else "none"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
