"""Runs tests/interpreted, each file in a process of its own, where Triton interprets."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
FILES = sorted((HERE / "interpreted").glob("test_*.py"))


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton has wheels for Linux on x86-64 only"
)
@pytest.mark.parametrize("file", FILES, ids=[file.stem for file in FILES])
def test_the_kernels_pass_in_the_interpreter(file: Path) -> None:
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", str(file), "-q", "-p", "no:cacheprovider"]
    run = subprocess.run(
        command, cwd=HERE.parent, env=environment, capture_output=True, text=True, timeout=600
    )
    assert run.returncode == 0, run.stdout[-8000:] + run.stderr[-2000:]
