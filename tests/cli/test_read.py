"""`griffin read`: real processes, interrupted and killed, go on; streams; refusals."""

import json
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

import griffin_lm as griffin
from griffin_lm.cli.read import Line, _clock
from griffin_lm.errors import StateError
from griffin_lm.inference import LanguageModel, Reading, read_text
from griffin_lm.models import State
from griffin_lm.models.state_file import read_note

FP32 = ("--dtype", "float32", "--device", "cpu")
LINE = "It was late in the evening when the wind rose. There is no such note — né {}.\n"
TEXT = "".join(LINE.format(number) for number in range(3000))


@pytest.fixture(scope="module")
def lm(checkpoint: Path) -> LanguageModel:
    return griffin.load(checkpoint, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("books") / "book.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def whole(lm: LanguageModel, book: Path) -> State:
    """After the book, read by one uninterrupted call."""
    state = read_text(lm, book).state
    assert state is not None
    return state


def tensors(state: State) -> list[torch.Tensor]:
    rows = [state.read, state.position, state.due, state.pending]
    return [t for layer in state.layers for t in layer] + [t for t in rows if t is not None]


def same(path: Path, lm: LanguageModel, other: State) -> bool:
    pairs = zip(tensors(State.load(path, lm)), tensors(other), strict=True)
    return all(torch.equal(one, two) for one, two in pairs)


@pytest.fixture
def start(tmp_path: Path):
    """Runs `griffin WORDS` as a process of its own, with this one's number of threads."""
    # states are compared to the bit, and sums depend on how many threads share them
    code = (
        f"import sys, torch; torch.set_num_threads({torch.get_num_threads()}); "
        "from griffin_lm.cli.main import main; main()"
    )

    @contextmanager
    def process(*words: object):
        command = [sys.executable, "-c", code, *map(str, words)]
        with (
            open(tmp_path / "stderr", "wb") as errors,
            subprocess.Popen(command, stdin=subprocess.PIPE, stderr=errors) as running,
        ):
            try:
                yield running
            finally:
                running.kill()

    return process


def tokens_in(out: Path) -> int:
    """Tokens that the bookmark of a saved state counts; 0 before the first save."""
    try:
        note = read_note(out)
    except StateError:
        return 0
    return int((note or {}).get("tokens", 0))


def until_tokens(out: Path, tokens: int, process: subprocess.Popen) -> None:
    for _ in range(12000):
        if tokens_in(out) >= tokens:
            return
        assert process.poll() is None, f"it ended by itself: {process.returncode}"
        time.sleep(0.005)
    raise AssertionError("nothing was saved within a minute")


def test_a_file_is_read_and_the_figures_are_said(run, checkpoint, lm, tmp_path) -> None:
    text, out = tmp_path / "text.txt", tmp_path / "out"
    text.write_text(TEXT[:5000])
    files = ("--save-state", out, "--json", tmp_path / "json")
    result = run("read", checkpoint, text, *files, *FP32)
    assert result.code == 0 and result.out == ""
    ids = lm.encode(TEXT[:5000])
    assert f"read {len(ids):,} tokens in" in result.err and f"in {out}" in result.err
    figures = json.loads((tmp_path / "json").read_text())
    assert figures["tokens"] == len(ids) and figures["finished"]
    assert figures["bytes"] == text.stat().st_size
    state = State.load(out, lm)
    assert figures["state_bytes"] == state.nbytes and state.pending.tolist() == ids[-1:]
    again = run("read", checkpoint, text, *files, *FP32)
    assert again.code == 0 and "nothing new" in again.err


@pytest.mark.parametrize(
    "stop", [signal.SIGKILL, signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_killed_or_interrupted_the_same_command_goes_on_to_the_very_same_state(
    start, checkpoint, lm, book, whole, tmp_path, stop
) -> None:
    out = tmp_path / "out"
    words = ("read", checkpoint, book, "--save-state", out, "--save-every", 0, *FP32)
    with start(*words) as process:
        until_tokens(out, 3000, process)
        process.send_signal(stop)
        code = process.wait(60)
    said = (tmp_path / "stderr").read_text()
    assert code == {signal.SIGKILL: -9, signal.SIGINT: 130, signal.SIGTERM: 143}[stop], said
    note = read_note(out) or {}
    assert not note["finished"], "the text was too short to be interrupted"
    if stop is not signal.SIGKILL:
        assert "the same command goes on" in said
    with start(*words) as process:
        assert process.wait(250) == 0
    assert "going on after" in (tmp_path / "stderr").read_text()
    assert (read_note(out) or {})["finished"]
    assert same(out, lm, whole)


@pytest.mark.slow
def test_killed_again_and_again_it_gets_there(start, checkpoint, lm, book, whole, tmp_path) -> None:
    out, kills, before = tmp_path / "out", 0, 0
    words = ("read", checkpoint, book, "--save-state", out, "--save-every", 0, *FP32)
    total = int(whole.tokens)
    while before + 6144 + 777 * (kills % 7) < total:
        with start(*words) as process:
            until_tokens(out, before + 6144 + 777 * (kills % 7), process)
        before, kills = tokens_in(out), kills + 1
    with start(*words) as process:
        assert process.wait(250) == 0
    assert kills >= 5
    assert same(out, lm, whole)


def test_standard_input_is_followed_and_what_came_is_in_the_state_on_ctrl_c(
    start, checkpoint, lm, tmp_path
) -> None:
    out = tmp_path / "out"
    lines = [LINE.format(number) for number in range(3)]
    with start("read", checkpoint, "-", "--save-state", out, "--save-every", 0, *FP32) as process:
        for line in lines:  # as `tail -f` would bring them
            before = tokens_in(out)
            process.stdin.write(line.encode())
            process.stdin.flush()
            until_tokens(out, before + 5, process)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    ids = lm.encode("".join(lines))
    state = State.load(out, lm)
    assert state.tokens.tolist() == [len(ids)] and state.pending.tolist() == ids[-1:]
    expected = lm.model(torch.tensor([ids[:-1]]))[1]
    for mine, theirs in zip(tensors(state), tensors(expected), strict=False):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)


def test_a_pipe_is_read_to_its_end(run, checkpoint, lm, tmp_path) -> None:
    text = TEXT[:3000].encode()
    result = run("read", checkpoint, "-", "--save-state", tmp_path / "out", *FP32, stdin=text)
    assert result.code == 0
    state = State.load(tmp_path / "out", lm)
    assert state.tokens.tolist() == [len(lm.encode(TEXT[:3000]))]
    more = ("--state", tmp_path / "out", "--save-state", tmp_path / "out")
    assert run("read", checkpoint, "-", *more, *FP32, stdin=b" And more.").code == 0
    assert State.load(tmp_path / "out", lm).tokens > state.tokens


def test_what_is_wrong_is_said_and_exits_with_1(run, checkpoint, tmp_path) -> None:
    missing = run("read", checkpoint, tmp_path / "none.txt")
    assert missing.code == 1 and "none.txt" in missing.err
    wrong = tmp_path / "wrong.txt"
    wrong.write_bytes(b"caf\xe9 au lait")
    refused = run("read", checkpoint, wrong, *FP32)
    assert refused.code == 1 and "byte 3" in refused.err and "--errors replace" in refused.err
    replaced = run("read", checkpoint, wrong, "--errors", "replace", *FP32)
    assert replaced.code == 0 and "not kept" in replaced.err and "--save-state" in replaced.err
    assert run("read", checkpoint).code == 2
    assert run("read", checkpoint, wrong, "--errors", "ignore").code == 2


def test_another_text_under_the_same_name_is_refused(run, checkpoint, tmp_path) -> None:
    out = tmp_path / "out"
    for name in ("one", "two"):
        (tmp_path / name).write_text(f"The text called {name}. " * 20)
    assert run("read", checkpoint, tmp_path / "one", "--save-state", out, *FP32).code == 0
    kept = out.read_bytes()
    result = run("read", checkpoint, tmp_path / "two", "--save-state", out, *FP32)
    assert result.code == 1 and f"--state {out}" in result.err and out.read_bytes() == kept
    both = ("--state", out, "--save-state", out)
    assert run("read", checkpoint, tmp_path / "two", *both, *FP32).code == 0
    assert out.read_bytes() != kept


def test_progress_is_one_line_on_a_terminal(monkeypatch, capsys, lm) -> None:
    now = Reading(
        state=lm.model.empty_state(1),
        tokens=5000,
        new_tokens=4000,
        bytes=2000,
        size=8000,
        seconds=4.0,
        finished=False,
        resumed=1000,
        forced_cuts=0,
        held_back="",
        saved=1,
        bytes_per_second=50.0,
    )
    line = Line()
    line.begun -= 3
    line.show(now)
    said = capsys.readouterr().err
    assert said == "griffin: going on after 1,000 tokens that were read before\n"
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    line.show(now)
    said = capsys.readouterr().err
    size = lm.model.empty_state(1).nbytes
    assert f"\r5,000 tokens, 1,000 tokens/s, 25%, 0:02:00 left, state {size:,} B" in said
    line.clear()
    assert capsys.readouterr().err == "\r\x1b[K"
    assert (_clock(3725.0), _clock(1.24)) == ("1:02:05", "1.2 s")


MEASURE = """
import sys
import psutil
from griffin_lm.inference import load, read_text
from pathlib import Path
lm, process = load(sys.argv[1], device="cpu", dtype="float32"), psutil.Process()
early = late = 0
def note(reading):
    global early, late
    held = process.memory_info().rss
    if reading.bytes < 1_000_000:
        early = max(early, held)
    else:
        late = max(late, held)
read_text(lm, Path(sys.argv[2]), progress=note)
print((late - early) / 2**20)
"""


@pytest.mark.slow
def test_five_of_six_megabytes_are_read_in_the_memory_of_the_first(checkpoint, tmp_path) -> None:
    path = tmp_path / "long"
    path.write_text((TEXT * 30)[:6_000_000])
    words = [sys.executable, "-c", MEASURE, str(checkpoint), str(path)]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=280)
    assert float(done.stdout) < 8, f"{done.stdout} MB more"
