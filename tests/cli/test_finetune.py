"""`griffin finetune` from the shell's side, killed ones too."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from griffin_lm.training.resume import load

NAMES = ["Emma", "Jane", "John"]
FEW = ("--set", "rows=1", "--set", "length=32", "--set", "log_every=1", "--dtype", "float32")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Thirty small conversations."""
    path = tmp_path / "rows.jsonl"
    rows = [
        {"messages": [{"role": "user", "content": f"It was {place} and late, {name}."},
                      {"role": "assistant", "content": name}]}
        for name in NAMES for place in ("London", "Paris", "Rome") for _ in range(3)
    ]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_an_adapter_is_trained_merged_served_and_exported(
    run, checkpoint: Path, data: Path, tmp_path: Path
):
    out = tmp_path / "out"
    options = ("--data", data, "--out", out, "--lora", *FEW)
    done = run("finetune", checkpoint, *options, "--merge", "--set", "steps=3")
    assert done.code == 0, done.err
    assert "«" in done.out and "adapted:" in done.out and "step 3 |" in done.out
    assert f"wrote {out / 'adapter'}" in done.out and f"wrote {out / 'merged'}" in done.out
    words = ("It was late", "--max-new-tokens", "4", "--dtype", "float32")
    beside = run("generate", checkpoint, *words, "--adapter", out)
    inside = run("generate", out / "merged", *words)
    assert beside.code == 0 and beside.out == inside.out
    twice = run("finetune", checkpoint, *options, "--set", "steps=3")
    assert twice.code == 1 and "--resume auto" in twice.err
    on = run("finetune", checkpoint, *options, "--set", "steps=5", "--resume", "auto")
    assert on.code == 0 and "going on from step 3" in on.out and "step 5 |" in on.out


def test_a_dry_run_shows_and_writes_nothing(run, checkpoint: Path, data: Path, tmp_path: Path):
    out = tmp_path / "out"
    done = run("finetune", checkpoint, "--data", data, "--out", out, "--qlora", "--dry-run")
    assert done.code == 0 and "not adapted:" in done.out and not out.exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--merge",), "--merge goes with --lora"),
        (("--resume", "yes"), '"auto" or "never"'),
        (("--qlora", "--quantize", "int8"), "--lora --quantize int8"),
        (("--lora", "--set", "colour=red"), "one of .*epochs, rank, alpha"),
        (("--lora", "--set", "targets=w1"), "names nothing; there are: all"),
        (("--dtype", "bfloat16"), "trained in float32"),
    ],
)
def test_what_cannot_be_meant_is_said(
    run, checkpoint: Path, data: Path, tmp_path: Path, options: tuple[str, ...], said: str
):
    done = run("finetune", checkpoint, "--data", data, "--out", tmp_path / "out", *options)
    assert done.code == 1 and done.err.startswith("griffin: ")
    assert re.search(said, done.err), done.err


def test_a_malformed_line_is_named_by_file_and_number(run, checkpoint: Path, tmp_path: Path):
    data = tmp_path / "rows.jsonl"
    data.write_text('{"prompt": "a", "completion": "b"}\n{"prompt": "a"}\n')
    done = run("finetune", checkpoint, "--data", data, "--out", tmp_path / "out", "--max-bad", "0")
    assert done.code == 1 and f"{data}, line 2: has only" in done.err


def command(checkpoint: Path, data: Path, out: Path, steps: int, *more: str) -> list[str]:
    """The command as a process of its own, which saves after every step."""
    words = ["finetune", checkpoint, "--data", data, "--out", out, *FEW, "--resume", "auto"]
    words += ["--set", f"steps={steps}", "--set", "save_steps=1", *more]
    return [sys.executable, "-m", "griffin_lm.cli.main", *map(str, words)]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["--lora", "--qlora", "full"])
def test_a_killed_run_ends_in_the_weights_of_one_that_was_not(
    checkpoint: Path, data: Path, tmp_path: Path, kind: str
):
    more = [] if kind == "full" else [kind, "--set", "dropout=0.2", "--set", "accumulate=2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    for goal in (4, 9):  # steps that must be saved before the process is killed
        words = command(checkpoint, data, killed, 14, *more)
        process = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL)
        until = time.monotonic() + 120
        while reached(killed) < goal:
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    for out in (killed, whole):
        subprocess.run(
            command(checkpoint, data, out, 14, *more), env=environment, check=True, timeout=200,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
    ends = [load(out / "step-14") for out in (killed, whole)]
    for end in ends:
        end["progress"]["seconds"] = 0.0
    assert same(*ends)


def reached(out: Path) -> int:
    """The newest step that is named `latest`."""
    try:
        return int((out / "latest").read_text().strip().removeprefix("step-"))
    except (OSError, ValueError):
        return 0


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b
