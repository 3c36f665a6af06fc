"""`griffin evaluate`: loss on texts, recall of what was planted by distance, tasks of lm-eval."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import common
from .stages import Stages

if TYPE_CHECKING:
    from ..inference import LanguageModel


def evaluate(
    model: common.Model,
    text: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="loss on a text file, -, or books (.jsonl[.bz2|.gz])"),
    ] = None,
    books: Annotated[str, typer.Option(metavar="ID,ID", help="of --text: only these books")] = "",
    tokens: Annotated[
        int | None, typer.Option(min=1, help="of --text: only the first so many of each document")
    ] = None,
    forget: Annotated[
        bool,
        typer.Option(help="of --text in segments: also with h zeroed every window and every token"),
    ] = False,
    segments: Annotated[
        int | None,
        typer.Option(min=1, help="of --text: so many pieces side by side, not whole documents"),
    ] = None,
    segment: Annotated[
        int | None, typer.Option(min=1, help="of --text in segments: tokens of a piece")
    ] = None,
    recall: Annotated[
        bool,
        typer.Option(
            "--recall",
            help="digits planted in --text or the bundled book, by distance; memos where the "
            "vocabulary has fledgling's",
        ),
    ] = False,
    distances: Annotated[
        str, typer.Option(metavar="N,N", help="of --recall: tokens until it is asked")
    ] = "64,256,1024,4096,16384",
    rows: Annotated[
        int, typer.Option(min=1, help="of --recall: rows; of --tasks: contexts side by side")
    ] = 32,
    tasks: Annotated[
        str,
        typer.Option(
            metavar="NAME,NAME",
            help="tasks of lm-eval (the extra `eval`); recurrentgemma-report: the report's, beside "
            "its figures",
        ),
    ] = "",
    tasks_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="of --tasks: a folder of YAML files too")
    ] = None,
    shots: Annotated[
        int | None, typer.Option(min=0, help="of --tasks: examples in front; as the task says")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="of --tasks: only so many documents of each")
    ] = None,
    chat: Annotated[
        bool, typer.Option("--chat", help="of --tasks: ask in the model's own turn template")
    ] = False,
    samples: Annotated[int, typer.Option(min=0, help="samples of 120 tokens, as they come")] = 0,
    json: common.JsonOut = None,
    device: common.Device = "auto",
    dtype: common.DType = "auto",
    quantize: common.Quantize = None,
    kernels: common.Kernels = "auto",
    config: common.Config = None,
    tokenizer: common.Tokenizer = None,
    offline: common.Offline = False,
    adapter: common.Adapter = None,
    cache: common.KeysAndValues = "auto",
) -> None:
    """Measure a model: --text (bits per byte, loss by position), --recall (by distance), --tasks.

    --text reads whole documents of any length at constant memory, the state carried all the way;
    with --segments, --segment or --forget pieces of them side by side, which is quicker.
    """
    from ..evals import report

    if text is None and not recall and not samples and not tasks:
        raise typer.BadParameter(
            "nothing to measure: give --text FILE, --recall, --tasks NAMES or --samples N"
        )
    if recall and text is not None and str(text) == "-":
        raise typer.BadParameter("--recall reads its prose more than once: give a file, not -")
    gaps = _distances(distances)
    began = time.perf_counter()
    options = common.LoadOptions(
        device, dtype, quantize, kernels, config, tokenizer, offline, adapter, cache
    )
    lm = common.load(model, options)
    ids = tuple(part for part in books.split(",") if part)
    figures: dict[str, Any] = {}
    stages = Stages()
    if text is not None:
        figures |= {"text": text.name, "books": list(ids)}
        if forget or segments is not None or segment is not None:
            figures["loss"] = report.measure_segments(
                lm, text, ids, forget, segments, segment, stages
            )
        else:
            figures["loss"] = report.measure_text(lm, text, ids, tokens, stages)
        stages.close()
        _print_loss(figures["loss"])
    if recall:
        figures |= report.measure_recalls(lm, text, ids, gaps, rows, stages)
        stages.close()
        print("\n\n".join(report.recall_tables(figures)))
    if tasks:
        figures["tasks"] = _tasks(lm, tasks, tasks_dir, shots, limit, rows, chat, stages)
    if samples:
        figures["samples"] = report.draw_samples(lm, samples)
        for sample in figures["samples"]:
            print(f"--- seed {sample['seed']}\n{sample['text']}")
    common.write_json(json, report.stamp(lm, model, began) | figures)


def _print_loss(loss: dict[str, Any]) -> None:
    """A line for each way of reading, and the loss by position of the first."""
    for name, row in loss.items():
        if isinstance(row, dict):
            bits, nats = row["bits_per_byte"], row["nats_per_token"]
            print(
                f"{name:24} {bits:.4f} bits per byte, {nats:.4f} nats per token, "
                f"perplexity {row['perplexity']:.2f} ({row['tokens']:,} tokens)"
            )
    print("nats per token from position 2^k on:")
    carried = loss["carried"]["nats_by_position"]
    print("  " + "  ".join(f"{place}: {nats:.3f}" for place, nats in carried.items()))


def _tasks(
    lm: "LanguageModel",
    names: str,
    folder: Path | None,
    shots: int | None,
    limit: int | None,
    rows: int,
    chat: bool,
    stages: Stages,
) -> dict[str, Any]:
    """--tasks: lm-eval's own table is printed, its results are returned."""
    from ..evals.harness.published import NAME, run_report
    from ..evals.harness.running import run_tasks

    wanted = [name.strip() for name in names.split(",") if name.strip()]
    if NAME in wanted:
        if len(wanted) > 1 or shots is not None:
            raise typer.BadParameter(
                f"{NAME} has its own tasks and shots: give it alone, without --shots"
            )
        report = run_report(lm, folder, limit, rows, chat, stages)
        stages.close()
        print(report.pop("table"))
        return report
    found = run_tasks(lm, wanted, folder, shots, limit, rows, chat, stages)
    stages.close()
    print(found.pop("table"))
    return found


def _distances(text: str) -> list[int]:
    """--distances as numbers."""
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or min(found) < 1:
        raise typer.BadParameter(f"--distances are whole numbers above 0 by commas, not {text!r}")
    return found
