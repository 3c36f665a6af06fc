"""The two formats of DeepMind's recurrentgemma package: PyTorch's `.pt`, and Orbax folders.

Neither carries a config; ours lies beside what we write. Where it is missing, shapes and presets
are asked (`shapes.py`).
"""

import re
from pathlib import Path

import torch

from ...errors import CheckpointError, CheckpointNotFound
from ...models import ModelConfig
from ...shapes import JSON
from .. import native
from ..format import Dialect, Format, Place, Target, Vocabulary
from ..source import Outgoing, Source
from .config import check, speaks
from .names import FLAX, TORCH, Unwrapped
from .orbax import OrbaxFolder, orbax_folders
from .orbax_writing import write_orbax
from .shapes import infer
from .torch_file import TorchFile, write_torch_file

SUFFIX = ".pt"
ORBAX = "checkpoint"  # what we call the folder that Orbax restores


def _dialect(name: str, table: tuple[native.Rename, ...]) -> Dialect:
    def describe(
        config: ModelConfig, dtype: torch.dtype, vocabulary: Vocabulary | None
    ) -> dict[str, JSON]:
        check(config, name)
        return native.described(name, config, dtype)

    return Dialect(name, table, speaks, native.read_config, describe)


def _says(place: Place) -> str | None:
    """What config.json says the folder is; another program's model_type counts as well."""
    config = place.config or {}
    return str(config.get("format", config.get("model_type", ""))) or None


# ---- PyTorch


def _is_torch(place: Place) -> bool:
    if place.path.is_file():
        return place.path.suffix == SUFFIX
    said = _says(place)
    return said == "deepmind-torch" or (said is None and bool(_torch_files(place.folder)))


def _torch_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob(f"*{SUFFIX}") if path.is_file())


def _torch_file(place: Place) -> Path:
    """The one file that is meant: the path itself, what config.json names, or the only one."""
    if place.path.is_file():
        return place.path
    named = (place.config or {}).get("weights")
    if isinstance(named, str) and re.fullmatch(r"[^/\\\0]+\.pt", named):
        return place.folder / named
    found = _torch_files(place.folder)
    if not found:
        raise CheckpointNotFound(f"{place.folder} holds no {SUFFIX} file; fetch it again")
    if len(found) > 1:
        raise CheckpointError(
            f"{place.folder} holds {len(found)} {SUFFIX} files; name the one to load: "
            + ", ".join(str(path) for path in found[:20])
        )
    return found[0]


def _open_torch(place: Place, _: ModelConfig | None) -> Source:
    return Unwrapped(TorchFile(_torch_file(place)))


def _write_torch(target: Target, tensors: list[Outgoing]) -> None:
    write_torch_file(target.folder / f"{target.name}{SUFFIX}", tensors)


IN_TORCH = _dialect("deepmind-torch", TORCH)
DEEPMIND_TORCH = Format(
    "deepmind-torch",
    (IN_TORCH,),
    _is_torch,
    lambda _: IN_TORCH,
    _open_torch,
    _write_torch,
    infer,
    lambda name: f"{name}{SUFFIX}",
)


# ---- Flax


def _is_flax(place: Place) -> bool:
    if place.path.is_file():
        return False
    said = _says(place)
    return said == "deepmind-flax" or (said is None and bool(orbax_folders(place.folder)))


def _orbax_folder(place: Place) -> Path:
    """The folder that Orbax wrote: the path itself, what config.json names, or the only one."""
    named = (place.config or {}).get("weights")
    if isinstance(named, str) and re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*", named):
        return place.folder / named
    found = orbax_folders(place.folder)
    if not found:
        raise CheckpointNotFound(f"{place.folder} holds no folder of Orbax; fetch it again")
    if len(found) > 1:
        raise CheckpointError(
            f"{place.folder} holds {len(found)} checkpoints; name the one to load: "
            + ", ".join(str(path) for path in found[:20])
        )
    return found[0]


def _open_flax(place: Place, _: ModelConfig | None) -> Source:
    return Unwrapped(OrbaxFolder(_orbax_folder(place)))


def _write_flax(target: Target, tensors: list[Outgoing]) -> None:
    write_orbax(target.folder / ORBAX, tensors)


IN_FLAX = _dialect("deepmind-flax", FLAX)
DEEPMIND_FLAX = Format(
    "deepmind-flax",
    (IN_FLAX,),
    _is_flax,
    lambda _: IN_FLAX,
    _open_flax,
    _write_flax,
    infer,
    lambda _: ORBAX,
)
