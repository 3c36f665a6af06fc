"""The report's tasks beside its columns, on tasks of the same names that need no network."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

pytest.importorskip("lm_eval", reason="needs the extra `eval`")

from griffin_lm.cli.main import app
from griffin_lm.errors import DataError
from griffin_lm.evals.harness import published
from griffin_lm.evals.harness.published import AVERAGE, REPORT, report_table, run_report
from griffin_lm.inference import LanguageModel, load

ROWS = [
    {"ask": "It was a dark and stormy", "choices": ["night", "of", "zebra"], "gold": 0},
    {"ask": "She held out her", "choices": ["twelve", "hand", "between"], "gold": 1},
]
TASK = """task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}, train: {file}}}}}
test_split: test
fewshot_split: train
output_type: multiple_choice
doc_to_text: "{{{{ask}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{gold}}}}"
metric_list: [{{metric: acc}}, {{metric: acc_norm}}]
"""


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return load("fledgling", device="cpu", dtype="float32")


def stub(lm: object, names: list[str], folder: object, shots: int | None, *rest: Any) -> Any:
    """What `run_tasks` gives; TriviaQA's data can't be had, PIQA has no metric that is known."""
    if names == ["triviaqa"]:
        raise DataError("triviaqa can't be loaded (ConnectionError)")
    (one,) = [line for line in REPORT if line.task == names[0]]
    metric = "other,none" if names == ["piqa"] else one.metrics[0]
    figures = {metric: 0.5, metric.replace(",", "_stderr,"): 0.0125}
    where = "groups" if names == ["mmlu"] else "results"
    return {
        "lm_eval": "0",
        "results": {},
        "n-shot": {names[0]: shots or 3},
        where: {names[0]: figures},
    }


def test_every_line_that_can_be_run_is_run_and_the_others_say_why(
    monkeypatch: pytest.MonkeyPatch, lm: LanguageModel
) -> None:
    monkeypatch.setattr(published, "run_tasks", stub)
    found = run_report(lm)
    lines = {line["what"]: line for line in found["report"]}
    assert lines["MMLU"]["measured"] == 50.0 and lines["MMLU"]["stderr"] == 1.25
    assert lines["MMLU"]["shots_run"] == 5 and lines["GSM8K"]["shots_run"] == 3
    assert lines["TriviaQA"]["measured"] is None and "ConnectionError" in lines["TriviaQA"]["note"]
    assert "lm-eval gave none of" in lines["PIQA"]["note"]
    assert "executes" in lines["HumanEval"]["note"] and lines["MBPP"]["measured"] is None
    table = found["table"]
    assert "| MMLU | 5 | 50.0 ± 1.2 | 42.3 | 64.3 | 38.4 | 60.5 |" in table
    assert "| average of all, as published | | – | 45.0 | 56.9 | 44.6 | 56.1 | |" in table
    assert "average of the 14 measured | | 50.0 |" in table


def test_the_published_averages_are_those_of_the_lines() -> None:
    for column, average in enumerate(AVERAGE):
        mean = sum(line.columns[column] for line in REPORT) / len(REPORT)
        assert mean == pytest.approx(average, abs=0.06)


def test_a_limit_is_said_to_make_no_figure_of_it() -> None:
    lines = [{**line._asdict(), "measured": None} for line in REPORT]
    assert "no figure to compare" in report_table(lines, 5)
    assert "no figure to compare" not in report_table(lines, None)


def test_from_the_command_line_on_tasks_that_stand_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets.config

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    kept = tuple(line for line in REPORT if line.task in ("hellaswag", "boolq"))
    monkeypatch.setattr(published, "REPORT", kept)
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    for line in kept:
        text = TASK.format(name=line.task, file=rows)
        (tmp_path / f"{line.task}.yaml").write_text(text)
    words = [
        "evaluate",
        "fledgling",
        "--tasks",
        "recurrentgemma-report",
        "--tasks-dir",
        str(tmp_path),
    ]
    out = tmp_path / "report.json"
    result = CliRunner().invoke(app, [*words, "--json", str(out)])
    assert result.exit_code == 0, result.output
    lines = json.loads(out.read_text())["tasks"]["report"]
    assert [line["measured"] for line in lines] == [100.0, 50.0]
    assert [line["metric"] for line in lines] == ["acc_norm,none", "acc,none"]
    assert "| HellaSwag | 0 | 100.0" in result.output
    refused = CliRunner().invoke(app, [*words, "--shots", "2"])
    assert refused.exit_code == 2 and "its own tasks and shots" in refused.output


@pytest.mark.slow  # lm-eval reads the 14 thousand YAML files that come with it
def test_lm_eval_knows_every_task_by_its_name() -> None:
    from lm_eval.tasks import TaskManager

    known = set(TaskManager().all_tasks)
    assert {line.task for line in REPORT if line.task} <= known
