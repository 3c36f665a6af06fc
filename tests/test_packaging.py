"""What is installed: the wheel has the package, its data and its licence, and nothing else."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
UNREACHABLE = ("Failed to establish a new connection", "No matching distribution found for setup")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the files that git knows, as a clone would."""
    return built(tmp_path_factory.mktemp("wheel"), {})


def built(folder: Path, environment: dict[str, str]) -> Path:
    """A wheel in `folder`, built by pip in its usual isolation."""
    source = folder / "source"
    source.mkdir()
    names = ["pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "src"]
    if shutil.which("git") is None:
        pytest.skip("no git here, and without it nobody knows which files are the project's")
    files = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--", *names],
        cwd=ROOT,
        capture_output=True,
        text=True,
    ).stdout.split("\0")
    if not any(files):
        pytest.skip("no git checkout to build from")
    for name in filter(None, files):
        copy = source / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", folder, source]
    try:  # what is promised: within three minutes
        run = subprocess.run(
            command, timeout=180, env=os.environ | environment, capture_output=True, text=True
        )
    except subprocess.TimeoutExpired as error:
        if b"Installing build dependencies: finished" in (error.stdout or b""):
            raise
        pytest.skip("an isolated build fetches setuptools, and the index here gave none in time")
    said = run.stdout + run.stderr
    if run.returncode and any(words in said for words in UNREACHABLE):
        pytest.skip("an isolated build fetches setuptools, and no index can be reached here")
    assert run.returncode == 0, said[-3000:]
    (wheel,) = folder.glob("*.whl")
    return wheel


def runs(wheel: Path, folder: Path, word: str = "--version") -> list[str]:
    """What the wheel's command prints for a word, after where the package lies."""
    zipfile.ZipFile(wheel).extractall(folder)
    code = "import griffin_lm as g; from griffin_lm.cli.main import main; print(g.__file__); main()"
    run = subprocess.run(
        [sys.executable, "-c", code, word],
        cwd=folder,
        env={"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()


def libraries(wheel: Path) -> list[str]:
    """The compiled libraries in a wheel."""
    return [n for n in zipfile.ZipFile(wheel).namelist() if n.endswith((".so", ".pyd"))]


@pytest.mark.slow
def test_the_wheel_holds_the_package_its_data_and_its_licence(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {"griffin_lm/__init__.py", "griffin_lm/py.typed"} <= set(names)
    assert {
        f"griffin_lm/fledgling/{name}"
        for name in ("config.json", "model.safetensors", "tokenizer.model", "README.md")
    } <= set(names)
    assert any(name.endswith("licenses/LICENSE") for name in names)
    tops = {name.split("/")[0] for name in names}
    assert tops == {"griffin_lm", next(top for top in tops if top.endswith(".dist-info"))}


@pytest.mark.slow
def test_the_wheels_metadata_says_what_the_project_says(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (name,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
    said = Parser().parsestr(archive.read(name).decode())
    assert (said["Name"], said["Version"]) == ("griffin-lm", PROJECT["version"])
    assert said["License-Expression"] == "Apache-2.0"
    assert "torch>=2.11" in said.get_all("Requires-Dist", [])


@pytest.mark.slow
def test_the_command_of_the_wheel_runs(wheel: Path, tmp_path: Path) -> None:
    where = str(tmp_path / "griffin_lm" / "__init__.py")
    assert runs(wheel, tmp_path) == [where, PROJECT["version"]]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler here")
def test_with_a_compiler_the_wheel_has_kernels_for_every_python_from_3_11_on(wheel: Path) -> None:
    (library,) = libraries(wheel)
    assert library.startswith("griffin_lm/_native")
    assert "-cp311-abi3-" in wheel.name


@pytest.mark.slow
def test_with_no_compiler_on_the_path_the_install_succeeds_and_doctor_says_so(
    tmp_path: Path,
) -> None:
    wheel = built(tmp_path, without_compiler(tmp_path / "bin"))
    assert libraries(wheel) == []
    there = tmp_path / "there"
    assert runs(wheel, there)[-1] == PROJECT["version"]
    told = runs(wheel, there, "doctor")
    (native,) = (line.split(maxsplit=1)[1] for line in told if line.startswith("  native "))
    assert native.startswith("no: the compiled library was not built: install a C++ compiler")


def without_compiler(folder: Path) -> dict[str, str]:
    """An environment whose PATH has git and a shell, but nothing that compiles or links."""
    folder.mkdir()
    for name in ("git", "sh", "env", "uname"):
        if (found := shutil.which(name)) is not None:
            (folder / name).symlink_to(found)
    compilers = ("c++", "g++", "gcc", "cc", "clang", "clang++", "cl", "ld")
    assert not any(shutil.which(name, path=str(folder)) for name in compilers)
    return {"PATH": str(folder), "CC": "", "CXX": ""}


def test_constraints_pin_every_tool_of_the_dev_extra() -> None:
    pinned = {
        line.split("==")[0]
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    asked = PROJECT["optional-dependencies"]["dev"] + PROJECT["optional-dependencies"]["docs"]
    tools = {re.split(r"[^\w-]", requirement)[0] for requirement in asked}
    assert tools <= pinned


def test_no_file_of_the_build_names_a_package_index() -> None:
    for name in ("Makefile", "constraints.txt", "pyproject.toml", ".ci/run"):
        text = (ROOT / name).read_text()
        assert "index-url" not in text and "find-links" not in text, name
        assert "pypi" not in text.lower(), name


def test_the_ci_script_stops_at_the_first_failure() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    lines = script.read_text().splitlines()
    assert lines[0].endswith("bash") and "set -euo pipefail" in lines
    assert [line for line in lines if line.startswith("make ")] == ["make test", "make test-slow"]
