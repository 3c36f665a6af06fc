"""Whole tasks, from files of one's own, without the network: from Python, the shell and lm-eval."""

import importlib.metadata
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lm_eval", reason="needs the extra `eval`")

from griffin_lm.errors import DataError, InputError
from griffin_lm.evals.harness.adapter import GriffinLM
from griffin_lm.evals.harness.running import run_tasks
from griffin_lm.evals.likelihood import Asked, score_after_contexts
from griffin_lm.inference import LanguageModel, load

ROOT = Path(__file__).parents[3]
ROWS = [
    {"ask": "It was a dark and stormy", "choices": ["night", "of", "zebra"], "gold": 0},
    {"ask": "She held out her", "choices": ["twelve", "hand", "between"], "gold": 1},
    {"ask": "He shook his", "choices": ["had", "were", "head", "Monday"], "gold": 2},
    {"ask": "They went to the", "choices": ["is", "what"], "gold": 1},
]
COMMON = """
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
"""
CHOICE = """task: own_choice
output_type: multiple_choice
doc_to_text: "{{ask}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{gold}}"
metric_list: [{metric: acc}, {metric: acc_norm}]
"""
ANSWER = """task: own_answer
output_type: generate_until
doc_to_text: "{{ask}}"
doc_to_target: "{{said}}"
generation_kwargs: {until: ["."], max_gen_toks: 4}
metric_list: [{metric: exact_match}]
"""
ROLLING = """task: own_text
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{ask}}"
metric_list: [{metric: bits_per_byte}]
"""


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return load("fledgling", device="cpu", dtype="float32")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `datasets` keeps goes to the test's folder."""
    import datasets.config

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(lm: LanguageModel, tmp_path: Path) -> Path:
    """Three tasks over one JSON-lines file; half of its answers are what the model says."""
    data = tmp_path / "rows.jsonl"
    rows = [row | {"said": "nothing of the kind"} for row in ROWS]
    for row in rows[:2]:
        row["said"] = lm.generate(row["ask"], max_new_tokens=4, stop=".").text
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, text in (("choice", CHOICE), ("answer", ANSWER), ("text", ROLLING)):
        (tmp_path / f"{name}.yaml").write_text(text + COMMON.format(file=data))
    return tmp_path


def test_local_tasks_give_the_figures_that_a_plain_reading_gives(lm: LanguageModel, folder: Path):
    told: list[tuple[Any, ...]] = []
    names = ["own_choice", "own_answer", "own_text"]
    found = run_tasks(lm, names, folder, progress=lambda *at: told.append(at))
    hits = bits = size = 0.0
    for row in ROWS:
        context = lm.encode(row["ask"])
        asked = [
            Asked(tuple(context), tuple(lm.encode(f"{row['ask']} {word}")[len(context) :]))
            for word in row["choices"]
        ]
        scores = [score.logprob for score in score_after_contexts(lm.model, asked)]
        hits += scores.index(max(scores)) == row["gold"]
        one = score_after_contexts(lm.model, [Asked((context[0],), tuple(context[1:]))])
        bits += -one[0].logprob / 0.6931471805599453
        size += len(row["ask"].encode())
    assert found["results"]["own_choice"]["acc,none"] == hits / 4
    assert found["results"]["own_text"]["bits_per_byte,none"] == pytest.approx(bits / size)
    assert found["results"]["own_answer"]["exact_match,none"] == 0.5
    assert "own_choice" in found["table"] and found["n-samples"]["own_text"]["effective"] == 4
    assert {what for what, _, _ in told} == {"loglikelihood", "rolling", "generate"}
    few = run_tasks(lm, ["own_choice"], folder, limit=2, chat=True)
    assert few["n-samples"]["own_choice"] == {"original": 4, "effective": 2}


def test_examples_stand_in_front_where_asked_for(
    lm: LanguageModel, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    seen: list[str] = []
    plain = GriffinLM._encode_pair

    def noted(self: GriffinLM, context: str, end: str) -> Any:
        seen.append(context)
        return plain(self, context, end)

    monkeypatch.setattr(GriffinLM, "_encode_pair", noted)
    run_tasks(lm, ["own_choice"], folder, shots=2)
    assert all(context.count("\n\n") == 2 for context in seen) and len(seen) == 12


@pytest.mark.slow  # lm-eval reads the 14 thousand YAML files that come with it
def test_a_task_that_there_is_not_is_answered_with_those_near(lm: LanguageModel, folder: Path):
    with pytest.raises(InputError, match=r"no task 'own_chioce' in lm-eval or in .*own_choice"):
        run_tasks(lm, ["own_chioce"], folder)


def test_a_folder_that_there_is_not_is_named(lm: LanguageModel, folder: Path):
    with pytest.raises(InputError, match="there is no folder"):
        run_tasks(lm, ["own_choice"], folder / "missing")


def test_data_that_is_not_there_is_said_in_one_line(lm: LanguageModel, folder: Path):
    (folder / "rows.jsonl").unlink()
    with pytest.raises(DataError, match="own_choice can't be loaded") as caught:
        run_tasks(lm, ["own_choice"], folder)
    assert "\n" not in str(caught.value) and "dataset_path: json" in str(caught.value)


def test_without_lm_eval_the_extra_is_named(
    lm: LanguageModel, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(InputError, match=r"needs lm-eval .*pip install 'griffin-lm\[eval\]'"):
        run_tasks(lm, ["own_choice"], folder)


def test_the_entry_point_names_the_adapter():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = project["entry-points"]["lm_eval.models"]["griffin"]
    point = importlib.metadata.EntryPoint("griffin", named, "lm_eval.models")
    assert point.load() is GriffinLM


def shell(*arguments: str | Path, home: Path) -> subprocess.CompletedProcess[str]:
    """From the repository's folder, where the example's file is found."""
    return subprocess.run(
        [sys.executable, "-m", *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=240,
    )


@pytest.mark.slow
def test_the_example_task_runs_from_the_shell(tmp_path: Path):
    options = ("--tasks", "next_word", "--tasks-dir", "examples/tasks", "--json", tmp_path / "j")
    done = shell("griffin_lm.cli.main", "evaluate", "fledgling", *options, home=tmp_path)
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "j").read_text())
    result = figures["tasks"]["results"]["next_word"]
    assert result["acc,none"] > 0.6 and f"|{result['acc,none']:6.4f}|" in done.stdout
    wrong = shell("griffin_lm.cli.main", "evaluate", "fledgling", "--tasks", "x_y", home=tmp_path)
    assert wrong.returncode == 1 and "there is no task 'x_y' in lm-eval;" in wrong.stderr


@pytest.mark.slow
def test_lm_eval_s_own_command_line_runs_our_model_offline(tmp_path: Path):
    done = shell(
        *("griffin_lm.evals.harness", "run", "--model", "griffin"),
        *("--model_args", "pretrained=fledgling,dtype=float32", "--batch_size", "8"),
        *("--include_path", "examples/tasks", "--tasks", "next_word", "--limit", "8"),
        *("--output_path", tmp_path / "out"),
        home=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "next_word" in done.stdout
    [results] = (tmp_path / "out").rglob("results_*.json")
    figures = json.loads(results.read_text())
    assert figures["results"]["next_word"]["acc,none"] >= 0.5
