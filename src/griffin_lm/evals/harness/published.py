"""The tasks and shots of the RecurrentGemma report, through lm-eval, beside its published columns.

`griffin evaluate MODEL --tasks recurrentgemma-report`. Published: Botev et al. 2024 (2404.07839),
its table of benchmarks with the Gemma columns that stand beside. Their own harness is not public:
prompts, scoring and extraction of answers differ from lm-eval's; a few points mean little.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import DataError
from ...inference import LanguageModel
from ..likelihood import ROWS
from .running import run_tasks

NAME = "recurrentgemma-report"
COLUMNS = ("Gemma 2B", "Gemma 7B", "RecurrentGemma 2B", "RecurrentGemma 9B")


class Published(NamedTuple):
    """A line of the table.

    task: lm-eval's name; "" where nothing of it is run, and `note` says why. shots: None: the
    report does not say, and the task's own are taken. metrics: lm-eval's, the first one found
    counts. columns: percent, in the order of COLUMNS.
    """

    what: str
    task: str
    shots: int | None
    metrics: tuple[str, ...]
    columns: tuple[float, float, float, float]
    note: str = ""


_UNSAFE = "not run: it executes what the model has written"
_NORM, _ACC = ("acc_norm,none", "acc,none"), ("acc,none",)
_EXACT = ("exact_match,remove_whitespace", "exact_match,none")

REPORT = (
    Published("MMLU", "mmlu", 5, _ACC, (42.3, 64.3, 38.4, 60.5)),
    Published("HellaSwag", "hellaswag", 0, _NORM, (71.4, 81.2, 71.0, 80.4)),
    Published("PIQA", "piqa", 0, _NORM, (77.3, 81.2, 78.5, 81.3)),
    Published("SIQA", "social_iqa", 0, _ACC, (49.7, 51.8, 51.8, 52.3)),
    Published("BoolQ", "boolq", 0, _ACC, (69.4, 83.2, 71.3, 80.3)),
    Published(
        "WinoGrande",
        "winogrande",
        0,
        _ACC,
        (65.4, 72.3, 67.8, 73.6),
        "partial scoring, as lm-eval's",
    ),
    Published("CommonsenseQA", "commonsense_qa", 7, _ACC, (65.3, 71.3, 63.7, 73.2)),
    Published("OpenBookQA", "openbookqa", None, _NORM, (47.8, 52.8, 47.2, 51.8)),
    Published("ARC-e", "arc_easy", None, _NORM, (73.2, 81.5, 72.9, 78.8)),
    Published("ARC-c", "arc_challenge", None, _NORM, (42.1, 53.2, 42.3, 52.0)),
    Published("TriviaQA", "triviaqa", 5, _EXACT, (53.2, 63.4, 52.5, 70.5)),
    Published("NQ", "nq_open", 5, _EXACT, (12.5, 23.0, 11.5, 21.7)),
    Published("HumanEval", "", None, (), (22.0, 32.3, 21.3, 31.1), _UNSAFE),
    Published("MBPP", "", 3, (), (29.2, 44.4, 28.8, 42.0), _UNSAFE),
    Published(
        "GSM8K",
        "gsm8k",
        None,
        ("exact_match,flexible-extract", "exact_match,strict-match", "exact_match,none"),
        (17.7, 46.4, 13.4, 42.6),
        "maj@1",
    ),
    Published(
        "MATH",
        "minerva_math",
        4,
        ("math_verify,none", "exact_match,none"),
        (11.8, 24.3, 11.0, 23.8),
    ),
    Published("AGIEval", "agieval_en", None, _ACC, (24.2, 41.7, 23.8, 39.3), "its English part"),
    Published(
        "BBH",
        "bbh_cot_fewshot",
        None,
        ("exact_match,get-answer", "exact_match,none"),
        (35.2, 55.1, 35.3, 55.2),
    ),
)
AVERAGE = (45.0, 56.9, 44.6, 56.1)  # of all lines, as published


def run_report(
    lm: LanguageModel,
    folder: Path | None = None,
    limit: int | None = None,
    rows: int = ROWS,
    chat: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, Any]:
    """Every line that can be run, each by itself: {"report": lines, "table": Markdown}.

    A task whose data can't be had is left out with the reason, and the others go on. limit:
    documents of each task (of each of its parts); then the table says so. folder: of YAML files
    that stand in for lm-eval's tasks of the same names. Raises InputError without lm-eval.
    """
    lines: list[dict[str, Any]] = []
    for one in REPORT:
        line: dict[str, Any] = {**one._asdict(), "metrics": list(one.metrics), "measured": None}
        if one.task:
            try:
                found = run_tasks(lm, [one.task], folder, one.shots, limit, rows, chat, progress)
                line |= _measured(one, found)
            except DataError as error:
                line["note"] = f"not run: {error}"
        lines.append(line)
    return {"report": lines, "limit": limit, "table": report_table(lines, limit)}


def _measured(one: Published, found: Mapping[str, Any]) -> dict[str, Any]:
    """The figure in percent, its standard error, and by which metric and shots."""
    results: Mapping[str, Any] = {**found["results"], **found.get("groups", {})}[one.task]
    metric = next((name for name in one.metrics if name in results), None)
    if metric is None:
        return {"note": f"not run: lm-eval gave none of {', '.join(one.metrics)}"}
    error = results.get(metric.replace(",", "_stderr,", 1))
    shots = found.get("n-shot", {}).get(one.task)
    return {
        "measured": round(100 * results[metric], 2),
        "stderr": round(100 * error, 2) if isinstance(error, float) else None,
        "metric": metric,
        "shots_run": shots if isinstance(shots, int) else one.shots,
        "lm_eval": found["lm_eval"],
    }


def report_table(lines: list[dict[str, Any]], limit: int | None) -> str:
    """Markdown; the averages are over the lines that were measured, the published ones too."""
    head = ["benchmark", "shots", "this model", *COLUMNS, ""]
    made = ["| " + " | ".join(head) + " |", "|---|" + "--:|" * (len(head) - 2) + "---|"]
    for line in lines:
        shots = line.get("shots_run", line["shots"])
        cells = [
            line["what"],
            "–" if shots is None else str(shots),
            _said(line["measured"], line.get("stderr")),
            *(f"{value:.1f}" for value in line["columns"]),
            line["note"],
        ]
        made.append("| " + " | ".join(cells) + " |")
    done = [line for line in lines if line["measured"] is not None]
    if done:
        columns = [sum(line["columns"][i] for line in done) / len(done) for i in range(4)]
        ours = sum(line["measured"] for line in done) / len(done)
        figures = " | ".join(f"{value:.1f}" for value in (ours, *columns))
        made.append(f"| average of the {len(done)} measured | | {figures} | |")
    published = " | ".join(f"{value:.1f}" for value in AVERAGE)
    made.append(f"| average of all, as published | | – | {published} | |")
    if limit is not None:
        made.append(f"\nOnly the first {limit} documents of each task: no figure to compare.")
    return "\n".join(made)


def _said(measured: float | None, error: float | None) -> str:
    if measured is None:
        return "–"
    return f"{measured:.1f}" if error is None else f"{measured:.1f} ± {error:.1f}"
