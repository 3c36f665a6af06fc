"""What a measurement was made on, for tables and --json."""

import os
import platform
from typing import Any

import torch


def machine() -> dict[str, Any]:
    """System, processor, cores, Python and PyTorch; no names that identify a machine."""
    return {
        "system": platform.system(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "Python": platform.python_version(),
        "PyTorch": torch.__version__,
    }


def _processor() -> str:
    """The processor's name where Linux tells it, else its architecture."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = (line.split(":", 1)[1] for line in file if line.startswith("model name"))
            return next(names).strip()
    except (OSError, StopIteration):
        return platform.machine()
