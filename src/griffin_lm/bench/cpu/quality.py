"""Perplexity of a text with weights in 8 and 4 bits, or keys and values in 8, over that of bf16."""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ...evals.long_text import long_text_loss
from ...inference.calibration import calibrate, own_text
from ...inference.loading import load
from ...inference.resolution import BUNDLED
from ...shapes import JSON

TARGETS = {"int8": 1.003, "int4": 1.03, "int4, calibrated": 1.03}
Said = Callable[[str], None]


def measure(model: str, text: Path | None, limit: int | None, said: Said) -> list[JSON]:
    """A row for fp32, bf16, a rounded cache and each kind; all but fp32 compute in bf16.

    "int4, calibrated" is fitted to text that the model writes itself, with the first seed.

    text: a UTF-8 file; None: the book beside fledgling, of which it has read nothing in training.
    limit: tokens at most.
    """
    file = text or BUNDLED["fledgling"] / "book.txt"
    rows: list[JSON] = []
    for weights, dtype, quantize, cache in (
        ("bf16", "bfloat16", None, "auto"),
        ("fp32", "float32", None, "auto"),
        ("bf16, keys and values int8", "bfloat16", None, "int8"),
        ("int8", "bfloat16", "int8", "auto"),
        ("int4", "bfloat16", "int4", "auto"),
        ("int4, calibrated", "bfloat16", None, "auto"),
    ):
        lm = load(model, device="cpu", dtype=dtype, quantize=quantize, cache=cache)
        if weights == "int4, calibrated":
            calibrate(lm.model, own_text(lm.model, lm.tokenizer))
        loss, _ = long_text_loss(lm, [_pieces(file)], limit)
        row: JSON = {"what": "quality", "who": "griffin", "model": model, "weights": weights}
        row |= {"text": file.name, "tokens": loss.tokens, "bytes": loss.bytes}
        row |= {"nats_per_token": loss.nats_per_token, "bits_per_byte": loss.bits_per_byte}
        row["perplexity"] = math.exp(loss.nats_per_token)
        base = rows[0]["perplexity"] if rows else row["perplexity"]
        row |= {"over_bf16": row["perplexity"] / base, "target": TARGETS.get(weights)}
        rows.append(row)
        said(f"{weights}: perplexity {row['perplexity']:.4f}, {row['over_bf16']:.5f} of bf16")
    return rows


def _pieces(file: Path) -> Iterator[str]:
    with open(file, encoding="utf-8", newline="") as text:
        while piece := text.read(1 << 16):
            yield piece


def table(rows: Sequence[JSON]) -> str:
    """Markdown."""
    lines = ["| weights | perplexity | bits a byte | over bf16 | target |", "|---|---|---|---|---|"]
    for row in rows:
        target = "" if row["target"] is None else f"{row['target']}"
        lines.append(
            f"| {row['weights']} | {row['perplexity']:.3f} | {row['bits_per_byte']:.4f} "
            f"| {row['over_bf16']:.5f} | {target} |"
        )
    return "\n".join(lines)
