"""The command itself: help, exit codes, errors without a traceback, speed."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

import griffin_lm as griffin
from griffin_lm.cli import main

COMMANDS = sorted(
    [command.__name__ for command in main.COMMANDS]
    + [str(group.info.name) for group in main.GROUPS]
)


def test_the_word_of_a_command_is_the_name_of_its_file() -> None:
    folder = Path(main.__file__).parent
    files = {path.stem for path in folder.glob("*.py")} - {
        "__init__",
        "main",
        "common",
        "stages",
        "bench_serve",
        "bench_speed",
        "bench_texts",
    }
    assert set(COMMANDS) == files


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(run, command: str) -> None:
    result = run(command, "--help")
    assert result.code == 0 and "Usage" in result.out
    assert command in run("--help").out


def test_help_starts_no_torch() -> None:
    code = (
        "import sys; sys.argv = ['griffin', '--help']\n"
        "from griffin_lm.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: print('torch' in sys.modules)"
    )
    begun = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip().endswith("False"), done.stderr
    assert time.perf_counter() - begun < 10  # 0.25 s where nothing else runs


def test_the_version(run) -> None:
    assert run("--version").out.strip() == griffin.__version__


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["generate"],
        ["generate", "fledgling"],
        ["generate", "m", "p", "--top-k", "x"],
        ["doctor", "--what"],
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_2_on_standard_error(run, arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.code == 2 and result.out == "" and result.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["generate", "/no/such/folder", "x"], "nothing at '/no/such/folder'"),
        (["generate", "recurrentgemma-2b-it", "x"], "is not in the cache"),
        (["generate", "someone/model", "x"], "is not in the cache"),
        (["inspect", "/no/such/folder"], "nothing at '/no/such/folder'"),
        (["demo", "--book", "/no/book"], "can't read the book /no/book"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_a_failure_is_explained_without_a_traceback(run, arguments: list[str], words: str) -> None:
    result = run(*arguments)
    assert result.code == 1 and result.out == ""
    assert words in result.err and "Traceback" not in result.err


def test_ctrl_c_exits_130(run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("griffin_lm.cli.common.load", interrupt)
    result = run("generate", "fledgling", "x")
    assert result.code == 130 and "Traceback" not in result.err
