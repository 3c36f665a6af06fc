"""What is installed: the wheel has the package, its data and its licence, and nothing else."""

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
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
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", folder, source],
        check=True,
        timeout=300,
        env=os.environ | environment,
    )
    (wheel,) = folder.glob("*.whl")
    return wheel


def runs(wheel: Path, folder: Path) -> list[str]:
    """What the wheel's command prints for --version, after where the package lies."""
    zipfile.ZipFile(wheel).extractall(folder)
    code = "import griffin_lm as g; from griffin_lm.cli.main import main; print(g.__file__); main()"
    run = subprocess.run(
        [sys.executable, "-c", code, "--version"],
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
def test_without_a_compiler_the_install_succeeds_and_the_command_runs(tmp_path: Path) -> None:
    nowhere = {"CC": "/nonexistent/cc", "CXX": "/nonexistent/c++"}
    wheel = built(tmp_path, nowhere)
    assert libraries(wheel) == []
    assert runs(wheel, tmp_path / "there")[-1] == PROJECT["version"]


def test_constraints_pin_every_tool_of_the_dev_extra() -> None:
    pinned = {
        line.split("==")[0]
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    asked = PROJECT["optional-dependencies"]["dev"] + PROJECT["optional-dependencies"]["docs"]
    tools = {requirement.split("==")[0].split("[")[0] for requirement in asked}
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
