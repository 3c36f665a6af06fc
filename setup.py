"""The compiled kernels. Everything else about the package stands in pyproject.toml.

`optional`: without a compiler, or where the build fails, the package installs all the same and runs
on PyTorch's own operations; `griffin doctor` says so. GRIFFIN_REQUIRE_NATIVE=1, as for wheels that
are given to others, makes it an error.
"""

import os
import sys
from pathlib import Path

from setuptools import Extension, setup

NATIVE = Path("src/native")
# Per-function targets, never -march: the machine that runs it chooses its instructions.
# GCC 12's own intrinsics headers warn about values that are meant to be undefined.
GNU = ["-std=c++17", "-O3", "-g0", "-fvisibility=hidden"]
# Without these GCC leaves loops with a clamp or an exponential scalar; Python asks for -fwrapv.
GNU += ["-fno-math-errno", "-fno-trapping-math", "-fno-wrapv"]
GNU += ["-Wno-uninitialized", "-Wno-maybe-uninitialized"]

setup(
    ext_modules=[
        Extension(
            "griffin_lm._native",
            sources=sorted(str(path) for path in NATIVE.glob("*.cpp")),
            depends=sorted(str(path) for path in NATIVE.glob("*.*")),
            extra_compile_args=["/O2", "/std:c++17"] if sys.platform == "win32" else GNU,
            py_limited_api=True,
            optional=not os.environ.get("GRIFFIN_REQUIRE_NATIVE"),
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
