"""`griffin generate` says what Python says, reads and writes states, and explains refusals."""

import io
import json
import os
import signal
import sys
from pathlib import Path

import pytest

import griffin_lm as griffin
from griffin_lm.cli import common
from griffin_lm.models import State

FP32 = ("--dtype", "float32", "--device", "cpu")


@pytest.fixture(scope="module")
def lm(checkpoint: Path) -> griffin.LanguageModel:
    return griffin.load(checkpoint, device="cpu", dtype="float32")


def test_greedy_generation_is_the_same_from_shell_and_python(run, checkpoint, lm) -> None:
    result = run("generate", checkpoint, "It was late", "--max-new-tokens", 12, *FP32)
    assert result.code == 0 and result.err == ""
    assert result.out == lm.generate("It was late", max_new_tokens=12).text + "\n"


def test_every_sampling_option_reaches_the_sampler(run, checkpoint, lm, tmp_path) -> None:
    options = {
        "max_new_tokens": 15,
        "temperature": 30.0,
        "top_k": 200,
        "top_p": 0.95,
        "min_p": 0.001,
        "repetition_penalty": 1.3,
        "seed": 7,
    }
    words = [word for k, v in options.items() for word in ("--" + k.replace("_", "-"), v)]
    run("generate", checkpoint, "It was", *words, "--json", tmp_path / "j", *FP32)
    expected = lm.generate("It was", **options, logprobs=True)
    figures = json.loads((tmp_path / "j").read_text())
    assert figures["tokens"] == expected.tokens
    assert figures["text"] == expected.text
    assert figures["logprobs"] == pytest.approx(expected.logprobs)
    for name in options:
        left_out = {key: value for key, value in options.items() if key != name}
        if name not in ("top_p", "min_p", "top_k"):  # mild: they may change nothing here
            assert lm.generate("It was", **left_out | {"seed": 7}).tokens != expected.tokens or (
                name == "seed"
            )


def test_stop_strings_may_be_repeated(run, checkpoint, lm) -> None:
    text = lm.generate("It was", max_new_tokens=15, temperature=30.0, seed=1).text
    stop = text[4:6]
    result = run(
        *("generate", checkpoint, "It was", "--max-new-tokens", 15, "--temperature", 30),
        *("--seed", 1, "--stop", "never said", "--stop", stop, *FP32),
    )
    assert result.out == text[: text.index(stop)] + "\n"


def test_a_prompt_may_come_on_standard_input(run, checkpoint, lm) -> None:
    text = "It was late\n in the evening — "
    result = run("generate", checkpoint, "-", "--max-new-tokens", 9, *FP32, stdin=text.encode())
    assert result.out == lm.generate(text, max_new_tokens=9).text + "\n"


def test_a_state_goes_through_files_as_if_never_interrupted(run, checkpoint, lm, tmp_path) -> None:
    sampled = ("--temperature", 30, "--seed", 5, *FP32)
    first = ("--max-new-tokens", 6, "--save-state", tmp_path / "a", "--json", tmp_path / "1")
    then = ("--state", tmp_path / "a", "--max-new-tokens", 9, "--json", tmp_path / "2")
    assert run("generate", checkpoint, "It was", *first, *sampled).code == 0
    assert run("generate", checkpoint, "", *then, *sampled).code == 0
    tokens = [json.loads((tmp_path / name).read_text())["tokens"] for name in "12"]
    whole = lm.generate("It was", max_new_tokens=15, temperature=30.0, seed=5)
    assert tokens[0] + tokens[1] == whole.tokens


def test_keys_and_values_in_8_bits_go_through_files_of_their_own_kind(
    run, checkpoint, tmp_path
) -> None:
    rounded = griffin.load(checkpoint, device="cpu", dtype="float32", cache="int8")
    whole = rounded.generate("It was", max_new_tokens=15, temperature=30.0, seed=5)
    sampled = ("--temperature", 30, "--seed", 5, "--cache", "int8", *FP32)
    first = ("--max-new-tokens", 6, "--save-state", tmp_path / "a", "--json", tmp_path / "1")
    then = ("--state", tmp_path / "a", "--max-new-tokens", 9, "--json", tmp_path / "2")
    assert run("generate", checkpoint, "It was", *first, *sampled).code == 0
    assert run("generate", checkpoint, "", *then, *sampled).code == 0
    tokens = [json.loads((tmp_path / name).read_text())["tokens"] for name in "12"]
    assert tokens[0] + tokens[1] == whole.tokens
    wrong = run("generate", checkpoint, "", *then, *FP32)
    assert wrong.code == 1 and "load the model with cache='int8' (--cache int8)" in wrong.err


@pytest.mark.parametrize("command", ("generate", "ask", "read"))
def test_a_state_of_another_kind_of_cache_is_refused_with_the_option_to_give(
    run, checkpoint, tmp_path, command: str
) -> None:
    plain, text = tmp_path / "plain", tmp_path / "text"
    text.write_text("It was late.")
    assert run("read", checkpoint, text, "--save-state", plain, *FP32).code == 0
    words = {
        "generate": ("x", "--state", plain),
        "ask": ("x", "--state", plain),
        "read": (text, "--state", plain, "--save-state", tmp_path / "other"),
    }[command]
    wrong = run(command, checkpoint, *words, "--cache", "int8", *FP32)
    assert wrong.code == 1 and "in float32" in wrong.err and "--cache auto" in wrong.err
    assert run(command, checkpoint, *words, *FP32).code == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--temperature", "-1"], "temperature"),
        (["--top-p", "2"], "top_p"),
        (["--stop", ""], "stop string"),
        (["--quantize", "int3"], "int8, int4"),
        (["--kernels", "triton"], "triton"),
        (["--kernels", "magic"], "none of"),
        (["--cache", "fp8"], "none of: auto, int8"),
        (["--device", "abacus"], "griffin doctor"),
        (["--dtype", "int8"], "float32"),
        (["--config", "{nonsense"], "no JSON"),
        (["--config", '{"windw": 3}'], "windw"),
        (["--state", "/no/state"], "/no/state"),
        (["--tokenizer", "/no/tokenizer"], "/no/tokenizer"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_what_cannot_be_meant_is_refused(run, checkpoint, options: list[str], words: str) -> None:
    result = run("generate", checkpoint, "x", *options)
    assert result.code == 1 and words in result.err and "Traceback" not in result.err


def test_standard_input_that_is_no_text_is_refused(run, checkpoint) -> None:
    result = run("generate", checkpoint, "-", stdin=b"ab\xff")
    assert result.code == 1 and "byte 2" in result.err


def test_ctrl_c_keeps_what_was_generated(run, checkpoint, lm, tmp_path, monkeypatch) -> None:
    class Interrupting(io.TextIOWrapper):
        """Ctrl-C after the third piece."""

        pieces = 0

        def write(self, text: str) -> int:
            self.pieces += bool(text)
            if self.pieces == 3 and text:
                os.kill(os.getpid(), signal.SIGINT)
            return super().write(text)

    monkeypatch.setattr(sys, "stdout", Interrupting(io.BytesIO(), encoding="utf-8"))
    options = ("--temperature", 30, "--seed", 2, "--max-new-tokens", 500, *FP32)
    files = ("--save-state", tmp_path / "state", "--json", tmp_path / "json")
    assert run("generate", checkpoint, "It was", *options, *files).code == 130
    figures = json.loads((tmp_path / "json").read_text())
    assert figures["finish_reason"] == "cancelled" and 3 <= len(figures["tokens"]) < 500
    state = State.load(tmp_path / "state", lm)
    assert state.tokens.item() == len(lm.encode("It was")) + len(figures["tokens"])


def test_progress_shows_on_a_terminal_only_and_only_if_it_takes_long(monkeypatch, capsys) -> None:
    meter = common.Meter("loading", "MB", 1e6)
    meter.begun -= 3
    meter.drawn -= 3
    meter(5_000_000, 9_000_000)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    meter(5_000_000, 9_000_000)
    assert "loading 5 of 9 MB" in capsys.readouterr().err
    with common.Meter("loading", "MB") as quick:
        quick(1, 2)
    assert capsys.readouterr().err == ""
