"""A state as one safetensors file: written whole or not at all, read only for its model."""

import json
import os
import secrets
import zlib
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import InputError, StateError
from ..mixers.base import capacity
from ..shapes import JSON
from .growth import unequal
from .state import State
from .state_bytes import file_parts, raw

if TYPE_CHECKING:
    from .griffin import Griffin

FORMAT = "griffin-lm state"
VERSION = 1
_ROWS = ("read", "position", "due")


Note = Mapping[str, object]
"""What whoever saved a state wants to know when it is opened: where a reading stands, and such."""


def save_state(state: State, path: str | PathLike[str], note: Note | None = None) -> None:
    """Writes aside, syncs, renames: a full disk or a crash leaves the old file as it was.

    note: a small object of texts, integers and truth values, kept in the file's header. Raises
    `InputError` for other values, `StateError` where the disk refuses.
    """
    path = Path(path)
    for name, value in (note or {}).items():
        if not isinstance(value, str | int):
            raise InputError(f"a state's note holds texts, ints and bools; {name!r} is {value!r}")
    if state.bytes_per_token:  # of a cache that grows: what was read, no room and no leftovers
        state = state.compact()
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in _named(state)}
    header: JSON = {
        "format": FORMAT,
        "version": VERSION,
        "model": state.origin.model(),
        "tokenizer": state.origin.tokenizer,
        "quantization": state.origin.quantization(),
        "cache": _cache(state),
        "tokens": state.tokens.tolist(),
        "crc32": {name: _crc32(tensor) for name, tensor in tensors.items()},
    }
    if note is not None:
        header["note"] = dict(note)
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with open(aside, "xb") as file:
            for part in file_parts(tensors, {"griffin": json.dumps(header)}):
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise StateError(
            f"could not save the state to {path}: {error.strerror}; what stood there is untouched"
        ) from error


def read_note(path: str | PathLike[str]) -> dict[str, str | int | bool] | None:
    """The note in a state file, or None where it has none; no tensor is read.

    Raises `StateError` where there is no file, no state file, or a note that is damaged.
    """
    path = Path(path)
    try:
        with safe_open(path, framework="pt") as file:
            header = _any_header(path, file.metadata())
    except FileNotFoundError as error:
        raise StateError(f"no state at {path}") from error
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise StateError(
            f"{path} is not a whole state file ({str(error)[:200]}); save it again"
        ) from error
    note = header.get("note")
    if note is not None and not (
        isinstance(note, dict) and all(isinstance(value, str | int) for value in note.values())
    ):
        raise StateError(f"{path}: its note is damaged; save the state again")
    return note


def load_state(path: str | PathLike[str], model: "Griffin") -> State:
    """Reads the file onto the model's device, checking names, shapes, dtypes and checksums."""
    path = Path(path)
    try:
        with safe_open(path, framework="pt") as file:
            header = _header(path, file.metadata(), model)
            names = set(file.keys())
            read = _tensor(file.get_tensor, path, names, "read", header)
            if read.dim() != 1 or read.dtype != torch.int64:
                raise StateError(f"{path}: tensor 'read' is not one int64 per row")
            shape_of = {name: tuple(file.get_slice(name).get_shape()) for name in names}
            rows = read.shape[0]
            if any(not shape or shape[0] != rows for shape in shape_of.values()):
                raise StateError(f"{path}: its tensors disagree about the number of rows")
            template = model.empty_state(0)
            if "pending" in names:
                template = template.with_pending([])
            if (header.get("cache") == "int8") != (_cache(template) == "int8"):
                same = "int8" if header.get("cache") == "int8" else "auto"
                raise StateError(
                    f"{path}: its keys and values are in {header.get('cache')}, and those of the "
                    f"model as loaded in {_cache(template)}; load the model with "
                    f"cache={same!r} (--cache {same})"
                )
            wanted = dict(_named(template))
            if extra := sorted(names - set(wanted)):
                raise StateError(
                    f"{path}: unknown tensor {extra[0]!r:.99}; the file is of another model"
                )
            growing = _growing(template)
            tensors: list[Tensor] = []
            for name, like in wanted.items():
                tensor = _tensor(file.get_tensor, path, names, name, header)
                fixed = 2 if name in growing else 1  # the axes from here on are the model's
                if tensor.shape[fixed:] != like.shape[fixed:] or tensor.dtype != like.dtype:
                    raise StateError(
                        f"{path}: tensor {name!r} is "
                        f"{tensor.dtype} {tuple(tensor.shape[fixed:])} a row; "
                        f"the model as loaded wants {like.dtype} {tuple(like.shape[fixed:])} "
                        "(load it with the dtype that it had when the state was saved)"
                    )
                tensors.append(tensor.to(like.device))
    except FileNotFoundError as error:
        raise StateError(f"no state at {path}") from error
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise StateError(
            f"{path} is not a whole state file ({str(error)[:200]}); save it again"
        ) from error
    state = template._rebuild(tensors)  # pyright: ignore[reportPrivateUsage]
    if wrong := unequal(state.layers, state.position):
        raise StateError(f"{path} is not a whole state file: {wrong}; save it again")
    _check_counts(path, state, model)
    return state


def _named(state: State) -> list[tuple[str, Tensor]]:
    named = [
        (f"layers.{i}.{field}", tensor)
        for i, layer in enumerate(state.layers)
        for field, tensor in zip(layer._fields, layer, strict=True)
    ]
    named += [(name, getattr(state, name)) for name in _ROWS]
    return named if state.pending is None else [*named, ("pending", state.pending)]


def _cache(state: State) -> str | None:
    """What it is kept in: int8, or else the narrowest of the layers' dtypes, the activations'."""
    kinds = {tensor.dtype for layer in state.layers for tensor in layer}
    if torch.int8 in kinds:
        return "int8"
    floats = sorted((k for k in kinds if k.is_floating_point), key=lambda k: k.itemsize)
    return str(floats[0]).removeprefix("torch.") if floats else None


def _growing(state: State) -> set[str]:
    """Names of the tensors whose second axis is as long as what was read."""
    names = (
        f"layers.{i}.{field}"
        for i, layer in enumerate(state.layers)
        if capacity(layer) is not None
        for field in layer._fields
    )
    return set(names)


def _check_counts(path: Path, state: State, model: "Griffin") -> None:
    """Refuses counts and ids that no model call has left behind: they would index memory."""
    most = model.config.vocab
    pending = state.read - state.read if state.pending is None else state.pending
    sound = (pending >= -1) & (pending < most)
    for counts in (state.read, state.position):
        sound &= (counts >= 0) & (counts < 2**62)  # room to count on
    if not bool((sound & (state.due.view(torch.uint8) < 2)).all()):
        raise StateError(
            f"{path}: its counts of tokens, or the token still to be read, cannot be "
            f"(a vocabulary of {most}); save it again"
        )


def _crc32(tensor: Tensor) -> int:
    return zlib.crc32(raw(tensor))


def _tensor(
    get: Callable[[str], Tensor], path: Path, names: set[str], name: str, header: JSON
) -> Tensor:
    if name not in names:
        raise StateError(f"{path}: tensor {name!r} is missing; the file is of another model")
    tensor: Tensor = get(name)
    if header["crc32"].get(name) != _crc32(tensor):
        raise StateError(f"{path}: tensor {name!r} is damaged (its checksum differs)")
    return tensor


def _any_header(path: Path, metadata: dict[str, str] | None) -> JSON:
    """The header of a state of any model."""
    try:
        header = json.loads((metadata or {})["griffin"])
        version, checks = header["version"], header["crc32"]
        known = header["format"] == FORMAT and isinstance(checks, dict)
    except (KeyError, TypeError, ValueError, RecursionError):
        known, header, version = False, {}, None
    if not known:
        raise StateError(f"{path} is no state file of griffin-lm")
    if version != VERSION:
        raise StateError(
            f"{path} has format version {version!r:.20}; this release reads {VERSION}: "
            "upgrade griffin-lm"
        )
    return header


def _header(path: Path, metadata: dict[str, str] | None, model: "Griffin") -> JSON:
    header = _any_header(path, metadata)
    if header.get("model") != model.origin.model():
        raise StateError(f"{path} was made by another model (fingerprints differ); load that one")
    mine, theirs = model.origin.tokenizer, header.get("tokenizer")
    if mine is not None and theirs is not None and mine != theirs:
        raise StateError(f"{path} was made with another tokenizer (fingerprints differ)")
    return header
