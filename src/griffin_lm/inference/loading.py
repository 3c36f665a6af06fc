"""`load`: from a name or a path to a language model."""

from collections.abc import Callable
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import torch

from ..checkpoints import folders_beside, load_model
from ..checkpoints.adapters import takes_turns
from ..checkpoints.hub import Need, Watch
from ..errors import BackendUnavailable, ConfigError, InputError
from ..layers.quantized import KINDS
from ..models import ModelConfig
from ..ops import gpu, native
from ..text import Tokenizer, load_tokenizer
from .instruction import is_instruction_tuned, read_stops
from .language_model import LanguageModel
from .resolution import BUNDLED as BUNDLED
from .resolution import find as find

# kernels -> why they can't serve, None where they can
BACKENDS: dict[str, str | None] = {
    "reference": None,
    "native": native.UNBUILT,
    "triton": gpu.missing(),
}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load(
    source: str | PathLike[str],
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    quantize: str | None = None,
    kernels: str = "auto",
    config: ModelConfig | str | dict[str, Any] | None = None,
    tokenizer: Tokenizer | str | PathLike[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
    offline: bool | None = None,
    watch: Watch | None = None,
    adapter: str | PathLike[str] | None = None,
    rounded: str = "",
    cache: str = "auto",
) -> LanguageModel:
    """Loads a language model.

    source     "fledgling" (bundled), an existing path in a supported format, which is detected, an
               alias such as "recurrentgemma-2b-it", or a hub id, "@revision" allowed; in this order
    device     "auto": cuda, mps or cpu, the first there is
    dtype      "auto": bfloat16 where the device computes in it, else float32
    quantize   None, "int8" or "int4": matrices are rounded as they are loaded
    kernels    "auto", "native" (compiled, on a CPU), "triton" (on an NVIDIA GPU) or "reference"; a
               name never falls back
    config     for a format that carries none: a preset's name, a ModelConfig, or a dict
    tokenizer  another file or folder than the checkpoint's own
    progress   called with (bytes loaded, bytes in all)
    offline    True: never use the network; a hub id must lie in the hub's cache (HF_HUB_OFFLINE)
    watch      who is told about a download, by default a line of progress on a terminal
    adapter    a folder of LoRA in peft's layout, of `griffin finetune --lora` or of peft itself:
               added to the weights as they are loaded, so that it costs nothing later
    cache      "auto": local attention keeps keys and values as it computes them; "int8": rounded
    rounded    with quantize: only weights whose names begin so, "layers." leaves the embedding

    Raises a `GriffinError` that says what was wrong and what to do next.
    """
    check_choices(quantize, kernels)
    where = pick_device(device)
    kind = pick_dtype(dtype, where)
    path = find(source, offline, Need(kind, where, quantize), watch)
    if not isinstance(tokenizer, Tokenizer):
        tokenizer = load_tokenizer(_vocabulary(path) if tokenizer is None else Path(tokenizer))
    # the vocabulary first: a wrong one should not cost the time that weights take
    model = load_model(
        path, where, kind, config, progress, quantize, adapter=adapter, rounded=rounded
    )
    model.kernels, model.cache = kernels, cache
    tuned = is_instruction_tuned(path, fspath(source).partition("@")[0])
    tuned = tuned or (adapter is not None and takes_turns(adapter))
    return LanguageModel(model, tokenizer, tuned, read_stops(path, model.config.vocab))


def _vocabulary(path: Path) -> Path:
    """The folder beside a checkpoint with a tokenizer; the first that should, where none has."""
    homes = folders_beside(path)
    files = ("tokenizer.model", "tokenizer.json")
    return next((home for home in homes if any((home / f).exists() for f in files)), homes[0])


def check_choices(quantize: str | None, kernels: str) -> None:
    """Raises for a name that is none, and for kernels that can't serve here."""
    if quantize is not None and quantize not in KINDS:
        raise ConfigError(f"quantize={quantize!r} is none of: {', '.join(KINDS)}")
    if kernels != "auto" and kernels not in BACKENDS:
        raise ConfigError(f"kernels={kernels!r} is none of: auto, {', '.join(BACKENDS)}")
    reason = BACKENDS.get(kernels)
    if reason is not None:
        raise BackendUnavailable(
            f"kernels={kernels!r} can't serve: {reason}; say 'auto' or 'reference'"
        )


def pick_device(device: str | torch.device = "auto") -> torch.device:
    """The device to compute on. Raises `InputError` for one that isn't there."""
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"device {str(device)!r} can't be used here ({reason}); `griffin doctor` lists those "
            "that can"
        ) from error
    return found


def computes_in_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 in hardware rather than by conversion."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "mps":
        return torch.backends.mps.is_macos_or_newer(14, 0)
    if device.type == "cpu":
        has: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
        return bool(has.get("avx512_bf16") or has.get("amx_bf16") or has.get("bf16"))
    return False


def pick_dtype(dtype: str | torch.dtype, device: torch.device) -> torch.dtype:
    """The dtype of the weights. Raises `InputError` for one that a model can't compute in."""
    if dtype == "auto":
        return torch.bfloat16 if computes_in_bfloat16(device) else torch.float32
    if isinstance(dtype, str):
        dtype = DTYPES.get(dtype.removeprefix("torch."), dtype)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise InputError(f"dtype {dtype!r} is none of: auto, {', '.join(DTYPES)}")
    return dtype
