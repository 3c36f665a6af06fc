"""`griffin evaluate`: loss on a text, and recall of planted notes by distance."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from . import common


def evaluate(
    model: common.Model,
    text: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="loss on a text file, or on books (.jsonl[.bz2|.gz])"),
    ] = None,
    books: Annotated[str, typer.Option(metavar="ID,ID", help="of --text: only these books")] = "",
    forget: Annotated[
        bool, typer.Option(help="also the loss with h zeroed every window and every token")
    ] = False,
    segments: Annotated[int, typer.Option(min=1, help="pieces of the text read side by side")] = 32,
    segment: Annotated[int, typer.Option(min=1, help="tokens of a piece")] = 4096,
    recall: Annotated[
        bool, typer.Option("--recall", help="memo recall in --text, or else in the bundled book")
    ] = False,
    distances: Annotated[
        str, typer.Option(metavar="N,N", help="tokens between note and question")
    ] = "64,256,1024,4096,16384",
    rows: Annotated[int, typer.Option(min=1, help="rows with a note, and as many without")] = 32,
    samples: Annotated[int, typer.Option(min=0, help="samples of 120 tokens, as they come")] = 0,
    json: common.JsonOut = None,
    device: common.Device = "auto",
    dtype: common.DType = "auto",
    quantize: common.Quantize = None,
    kernels: common.Kernels = "auto",
    config: common.Config = None,
    tokenizer: common.Tokenizer = None,
    offline: common.Offline = False,
) -> None:
    """Measure a model: --text (bits per byte, loss by position), --recall (memos by distance)."""
    from ..evals import report
    from ..evals.recall import Cell, recall_table
    from ..inference.loading import BUNDLED

    if text is None and not recall and not samples:
        raise typer.BadParameter("nothing to measure: give --text FILE, --recall or --samples N")
    gaps = _distances(distances)
    began = time.perf_counter()
    options = common.LoadOptions(device, dtype, quantize, kernels, config, tokenizer, offline)
    lm = common.load(model, options)
    source = BUNDLED["fledgling"] / "book.txt" if text is None else text
    ids = tuple(part for part in books.split(",") if part)
    texts = report.encode_texts(lm, report.read_texts(source, ids))
    figures: dict[str, Any] = {"text": source.name, "books": list(ids)}
    meters: dict[str, common.Meter] = {}

    def progress(what: str, done: int, whole: int) -> None:
        meters.setdefault(what, common.Meter(what, "tokens a row"))(done, whole)

    if text is not None:
        figures["loss"] = report.measure_text(lm, texts, forget, segments, segment, progress)
        for name, row in figures["loss"].items():
            if isinstance(row, dict):
                bits, nats = row["bits_per_byte"], row["nats_per_token"]
                print(
                    f"{name:24} {bits:.4f} bits per byte, {nats:.4f} nats per token, "
                    f"perplexity {row['perplexity']:.2f} ({row['tokens']:,} tokens)"
                )
        print("nats per token from position 2^k on:")
        carried = figures["loss"]["carried"]["nats_by_position"]
        print("  " + "  ".join(f"{place}: {nats:.3f}" for place, nats in carried.items()))
    if recall:
        figures["recall"] = report.measure_memos(lm, texts, gaps, rows, progress)
        kept = ({k: v for k, v in row.items() if k != "share"} for row in figures["recall"])
        print(recall_table([Cell(**row) for row in kept]))
    if samples:
        figures["samples"] = report.draw_samples(lm, samples)
        for sample in figures["samples"]:
            print(f"--- seed {sample['seed']}\n{sample['text']}")
    for meter in meters.values():
        meter.__exit__()
    common.write_json(json, report.stamp(lm, model, began) | figures)


def _distances(text: str) -> list[int]:
    """--distances as numbers."""
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or min(found) < 1:
        raise typer.BadParameter(f"--distances are whole numbers above 0 by commas, not {text!r}")
    return found
