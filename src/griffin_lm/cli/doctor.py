"""`griffin doctor`: what is here, and why something can or can't serve."""

import os
import platform
import sys
from importlib import metadata
from typing import Any

from . import common

PACKAGES = (
    *("torch", "numpy", "safetensors", "sentencepiece", "tokenizers"),
    *("huggingface_hub", "psutil", "jaxtyping", "typer", "rich"),
)
OPTIONAL = ("transformers", "triton")


def doctor(json: common.JsonOut = None) -> None:
    """Show versions, devices, and each kernel backend and why it can or can't serve."""
    figures = {
        "versions": versions(),
        "devices": devices(),
        "backends": backends(),
        "models": models(),
    }
    for title, rows in figures.items():
        print(title)
        for name, value in rows.items():
            print(f"  {name:<14} {value}")
    common.write_json(json, figures)


def versions() -> dict[str, str]:
    """Of Python, this package, and what it stands on."""
    from .. import __version__

    found = {"griffin-lm": __version__, "python": sys.version.split()[0]}
    for name in (*PACKAGES, *OPTIONAL):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed" + (" (optional)" if name in OPTIONAL else ": reinstall")
    return found | {"system": platform.platform()}


def devices() -> dict[str, str]:
    """Every device with what it can do, or why it can't be used."""
    import torch

    from ..inference.loading import computes_in_bfloat16, pick_device, pick_dtype

    def computes(device: torch.device) -> str:
        return "bfloat16 in hardware" if computes_in_bfloat16(device) else "no bfloat16 in hardware"

    rows = {
        "cpu": f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, "
        + computes(torch.device("cpu"))
    }
    for index in range(torch.cuda.device_count()):
        name, device = torch.cuda.get_device_name(index), torch.device("cuda", index)
        rows[f"cuda:{index}"] = f"{name}, {computes(device)}"
    if not torch.cuda.is_available():
        built = torch.version.cuda is not None
        rows["cuda"] = "no: " + ("no device found" if built else "this torch is built without CUDA")
    if torch.backends.mps.is_available():
        rows["mps"] = computes(torch.device("mps"))
    else:
        built = torch.backends.mps.is_built()
        rows["mps"] = "no: " + (
            "needs a newer macOS" if built else "this torch is built without it"
        )
    best = pick_device()
    rows["auto"] = f"{best.type}, {pick_dtype('auto', best)}".replace("torch.", "")
    return rows


def backends() -> dict[str, str]:
    """Every kernel backend: ready, or why not."""
    from ..inference.loading import BACKENDS

    return {
        name: "ready" if why_not is None else f"no: {why_not}" for name, why_not in BACKENDS.items()
    }


def models() -> dict[str, Any]:
    """The bundled models, present or not."""
    from ..errors import GriffinError
    from ..inference.loading import BUNDLED, find

    rows: dict[str, Any] = {}
    for name in BUNDLED:
        try:
            rows[name] = f"ready, {find(name)}"
        except GriffinError as error:
            rows[name] = f"no: {error}"
    return rows
