"""Finding the compiled library, and what it was built with.

`griffin_lm._native` is built by an ordinary `pip install` where there is a C++ compiler (the source
is src/native). Without it everything runs on PyTorch's own operations.
"""

import ctypes
import importlib
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import BackendUnavailable

_VERSION = 13  # of the functions' arguments; src/native/select.cpp says the same
_POINTER, _INT, _SIZE = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64
_REAL = ctypes.c_float
_SIGNATURES: dict[str, list[Any]] = {
    "griffin_linear_bf16": [_POINTER] * 3 + [_INT, _POINTER, _INT] + [_SIZE] * 3 + [_INT],
    "griffin_block_linear_bf16": [_POINTER] * 4 + [_SIZE] * 4 + [_INT],
    "griffin_linear_fp32": [_POINTER] * 3 + [_INT, _POINTER] + [_SIZE] * 3 + [_INT],
    "griffin_block_linear_fp32": [_POINTER] * 4 + [_SIZE] * 4 + [_INT],
    "griffin_linear_int8": [_POINTER] * 5 + [_INT, _POINTER, _INT] + [_SIZE] * 3 + [_INT],
    "griffin_linear_int4": [_POINTER] * 4 + [_INT, _POINTER, _INT] + [_SIZE] * 3 + [_INT],
    "griffin_ring_attention": [_POINTER] * 5 + [_INT] + [_POINTER] * 3 + [_SIZE] * 6 + [_INT],
    "griffin_write_ring": [_POINTER] * 4 + [_SIZE] * 4,
    "griffin_gate": [_POINTER, _INT] * 2 + [_POINTER, _INT, _SIZE, _INT],
    "griffin_gate_backward": [_POINTER, _INT] * 2 + [_POINTER] * 3 + [_INT, _SIZE, _INT],
    "griffin_norm": [_POINTER, _INT] * 2 + [_POINTER] * 2 + [_SIZE] * 2 + [_REAL, _INT, _INT],
    "griffin_norm_backward": [_POINTER, _INT] * 2 + [_POINTER] * 4 + [_SIZE] * 3 + [_INT] * 2,
    "griffin_loss": [_POINTER, _INT] + [_POINTER] * 4 + [_SIZE] * 2 + [_REAL, _INT, _INT],
    "griffin_conv": [_POINTER] * 4 + [_INT] + [_POINTER] * 2 + [_SIZE] * 4 + [_INT],
    "griffin_conv_backward": [_POINTER] * 3 + [_INT] + [_POINTER] * 6 + [_SIZE] * 4 + [_INT],
    "griffin_band_softmax": [_POINTER] * 4 + [_SIZE] * 3 + [_REAL, _INT],
    "griffin_band_gradient": [_POINTER] * 5 + [_SIZE] * 3 + [_REAL, _INT],
    "griffin_band_forward": [_POINTER] * 7 + [_SIZE] * 6 + [_REAL, _INT],
    "griffin_band_backward": [_POINTER] * 11 + [_SIZE] * 6 + [_REAL, _INT],
    "griffin_scan": [_POINTER] * 4 + [_SIZE] * 3 + [_INT] * 2,
    "griffin_scan_backward": [_POINTER] * 7 + [_SIZE] * 3 + [_INT],
    "griffin_rg_lru": [_POINTER] * 3 + [_INT] + [_POINTER] * 4 + [_SIZE] * 3 + [_INT],
    "griffin_rg_lru_backward": [_POINTER] * 3 + [_INT] + [_POINTER] * 10 + [_SIZE] * 3 + [_INT],
    "griffin_selective_scan": [_POINTER] * 10 + [_SIZE] * 4 + [_INT],
    "griffin_selective_scan_backward": [_POINTER] * 15 + [_SIZE] * 4 + [_INT],
    "griffin_mlp_half": [_POINTER] * 3 + [_SIZE, _INT],
    "griffin_recurrent_half": [_POINTER] * 3 + [_SIZE] * 2 + [_POINTER] * 6 + [_INT],
    "griffin_attention_half": [_POINTER] * 3
    + [_SIZE] * 2
    + [_POINTER] * 2
    + [_SIZE]
    + [_POINTER] * 2
    + [_SIZE]
    + [_POINTER] * 3
    + [_INT],
}


def _open() -> tuple[Any, str | None]:
    """The library, or None and the reason why there is none."""
    if os.environ.get("GRIFFIN_NO_NATIVE"):
        return None, "GRIFFIN_NO_NATIVE is set"
    try:
        file = importlib.import_module("griffin_lm._native").__file__
        opened = ctypes.CDLL(file)
        version = opened.griffin_version()
        for name, arguments in _SIGNATURES.items():
            function = getattr(opened, name)
            function.argtypes, function.restype = arguments, None
    except ImportError:
        reason = (
            "the compiled library was not built: install a C++ compiler, then the package again"
        )
        return None, reason
    except (OSError, AttributeError) as error:
        return None, f"the compiled library can't be opened ({error}); install the package again"
    if version != _VERSION:
        return None, "the compiled library is of another version; install the package again"
    opened.griffin_isa.restype = ctypes.c_char_p
    opened.griffin_has_band.restype = ctypes.c_int
    opened.griffin_mark.argtypes = [_POINTER, _SIZE]
    opened.griffin_mark.restype = ctypes.c_uint64
    opened.griffin_use.argtypes = [ctypes.c_char_p]
    opened.griffin_use_openmp.argtypes = [ctypes.c_void_p]
    opened.griffin_use_openmp(_gomp_parallel())
    return opened, None


def _gomp_parallel() -> int | None:
    """The address of GOMP_parallel in the libgomp that torch has loaded; None: it uses another.

    With threads of their own the kernels would wait for cores on which torch's threads spin.
    """
    own = Path(torch.__file__).resolve().parent / "lib"  # maps has no links
    try:
        with open("/proc/self/maps", encoding="utf-8") as maps:
            loaded = {line.split()[-1] for line in maps if "libgomp" in line}
        theirs = [path for path in loaded if own in Path(path).parents] or list(loaded)
        if len(theirs) != 1:
            return None
        library = ctypes.CDLL(theirs[0], mode=os.RTLD_NOW | os.RTLD_NOLOAD)
        return ctypes.cast(library.GOMP_parallel, ctypes.c_void_p).value
    except (OSError, AttributeError):  # not Linux, or not GNU's
        return None


def use_own_threads(own: bool = True) -> None:
    """Whether kernels run on threads of their own instead of torch's, for tests and comparisons."""
    if library is not None:
        library.griffin_use_openmp(None if own else _gomp_parallel())


def shares_threads() -> bool:
    """Whether the kernels run on torch's threads."""
    return library is not None and _gomp_parallel() is not None


library, UNBUILT = _open()
"""UNBUILT: why there are no compiled kernels, or None where there are."""


def isa() -> str:
    """The instruction set in use: "amx", "avx512", "avx2" or "portable"."""
    return "none" if library is None else library.griffin_isa().decode()


def use(name: str = "") -> None:
    """Uses another instruction set ("": the best), for tests and comparisons.

    Raises BackendUnavailable where this machine or this build has none of that name.
    """
    if library is None or not library.griffin_use(name.encode()):
        raise BackendUnavailable(
            f"the instruction set {name!r} can't serve: {UNBUILT or 'not on this machine'}"
        )


def why_not(*tensors: Tensor | None) -> str | None:
    """Why the library can't take these tensors: not built, or one isn't on the CPU."""
    if UNBUILT is not None:
        return UNBUILT
    for tensor in tensors:
        if tensor is not None and tensor.device.type != "cpu":
            return f"it computes on the CPU, and a tensor is on {tensor.device}"
    return None


def mark(tensor: Tensor) -> tuple[int, int, int]:
    """What changes with the tensor's numbers: address, version, and a hash of some of them.

    The hash is for those who write through `.data`, which no version counts.
    """
    version = 0 if tensor.is_inference() else tensor._version
    return tensor.data_ptr(), version, library.griffin_mark(tensor.data_ptr(), tensor.nbytes)


def at(tensor: Tensor | None) -> int:
    """A tensor's address; 0 for none."""
    return 0 if tensor is None else tensor.data_ptr()


def is_wide(tensor: Tensor | None) -> bool:
    """Whether a tensor is there and holds fp32."""
    return tensor is not None and tensor.dtype == torch.float32
