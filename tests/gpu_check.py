"""`make gpu-check`: kernels, models and speed on an NVIDIA GPU, in one run of under nine minutes.

Needs no installation, no network and no pytest: any Python that has torch and Triton, and
transformers for that peer. Prints a table, and writes text and JSON to $OUT (or build/). Exits 1
where a check fails, or where there is no GPU. What it does is in src/griffin_lm/bench/gpu.
"""

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "src"))
os.environ.setdefault("OUT", str(ROOT / "build"))
# read when CUDA starts: without it the checks' bit by bit comparison may not use cuBLAS
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


class _Shapes(ModuleType):
    """In place of jaxtyping, whose names only stand in annotations: Float[Tensor, "B T"] and such.

    Nothing is checked then, as without a checker nothing is; the tests have one.
    """

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Annotation


class _Annotation:
    """Whatever it is subscripted with."""

    def __class_getitem__(cls, what: Any) -> Any:
        return what[0] if isinstance(what, tuple) else what


if importlib.util.find_spec("jaxtyping") is None:
    sys.modules["jaxtyping"] = _Shapes("jaxtyping")

try:
    from griffin_lm.bench.gpu.run import run
except ModuleNotFoundError as missing:
    sys.exit(
        f"gpu-check: {sys.executable} has no {missing.name}; name one: make gpu-check PYTHON=..."
    )

if __name__ == "__main__":
    sys.exit(run())
