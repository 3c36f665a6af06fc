"""Everything that `griffin evaluate` measures, in one call, in plain values."""

import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import DataError
from ..inference import LanguageModel
from ..inference.resolution import BUNDLED
from .books import read_books
from .long_text import BOOKS, documents_of, long_text_loss
from .needle import NeedleCell, measure_needle, needle_table
from .needle import to_json as needle_to_json
from .perplexity import Forget, cut_segments, text_loss
from .recall import Cell, knows_memos, measure_recall, recall_table, to_json

Progress = Callable[[str, int, int], None]
SEGMENTS, SEGMENT = 32, 4096  # pieces of the text for the loss, and their length in tokens


def _silent(what: str, done: int, whole: int) -> None:
    """No progress."""


def machine() -> dict[str, object]:
    """The processor, its cores, torch and the threads it uses."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        rows = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        name = rows[0].partition(":")[2].strip() if rows else name
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "processor": name,
        "cores": torch.multiprocessing.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": gpu,
        "torch": torch.__version__,
    }


def read_texts(path: Path, ids: Sequence[str] = ()) -> dict[str, str]:
    """Text by name: a text file, or books of a .jsonl (.bz2, .gz), only those with these ids."""
    if not path.exists():
        raise DataError(f"no such text: {path}")
    if path.is_file() and not path.name.endswith(BOOKS):
        try:
            return {path.name: path.read_text(encoding="utf-8")}
        except UnicodeDecodeError as error:
            raise DataError(f"{path} is not UTF-8 ({error})") from error
    books = {book.id: book.text for book in read_books(path) if not ids or book.id in ids}
    if missing := sorted(set(ids) - set(books)):
        raise DataError(f"{path} has no book {missing[0]!r}")
    return books


def encode_texts(lm: LanguageModel, texts: dict[str, str]) -> list[np.ndarray]:
    """Token arrays of whole texts, without BOS."""
    return [np.array(lm.encode(text, bos=False), dtype=np.int64) for text in texts.values()]


def measure_text(
    lm: LanguageModel,
    source: Path,
    ids: Sequence[str] = (),
    tokens: int | None = None,
    progress: Progress = _silent,
) -> dict[str, Any]:
    """Loss on whole documents, each read from its beginning with the state carried.

    source: a text file, "-" for standard input, or books. tokens: of each document; None: all.
    """
    documents = documents_of(
        source, tuple(ids), lambda done, whole: progress("bytes of the text", done, whole)
    )
    loss, state = long_text_loss(lm, documents, tokens)
    return {"carried": loss.to_dict(), "documents": loss.documents, "state_bytes": state.nbytes}


def measure_segments(
    lm: LanguageModel,
    source: Path,
    ids: Sequence[str] = (),
    forget: bool = False,
    segments: int | None = None,
    length: int | None = None,
    progress: Progress = _silent,
) -> dict[str, Any]:
    """Loss on pieces of the texts side by side, each read from its beginning.

    With `forget` also with h zeroed every window and every token. Pieces shrink to the longest text
    where it is shorter.
    """
    texts = encode_texts(lm, read_texts(source, ids))
    length = min(length or SEGMENT, max((len(text) for text in texts), default=0))
    if not length:
        raise DataError("the text is empty")
    cut = cut_segments(texts, length, segments or SEGMENTS)
    result: dict[str, Any] = {}
    modes: list[Forget] = ["never", "window", "token"] if forget else ["never"]
    for mode in modes:
        name = {"never": "carried", "window": "h_zeroed_every_window"}.get(
            mode, "h_zeroed_every_token"
        )
        loss = text_loss(
            lm.model,
            lm.tokenizer,
            cut,
            mode,
            progress=lambda done, whole, name=name: progress(f"{name}: tokens a row", done, whole),
        )
        result[name] = loss.to_dict()
    result["segments"], result["segment_tokens"] = cut.shape
    return result


def measure_recalls(
    lm: LanguageModel,
    source: Path | None,
    ids: Sequence[str],
    distances: Sequence[int],
    rows: int,
    progress: Progress = _silent,
) -> dict[str, Any]:
    """The needle, for any model, and memos where the vocabulary has fledgling's; in plain values.

    source: prose to plant in; None: the bundled book. {"needle": [...], "recall": [...],
    "longest_text": in tokens}
    """
    prose = BUNDLED["fledgling"] / "book.txt" if source is None else source
    texts = encode_texts(lm, read_texts(prose, ids))
    needle = measure_needle(
        lm.model,
        lm.tokenizer,
        texts,
        distances,
        rows,
        progress=lambda done, whole: progress("needle: tokens a row", done, whole),
    )
    figures: dict[str, Any] = {"needle": needle_to_json(needle)}
    figures["longest_text"] = max(len(text) for text in texts)
    if knows_memos(lm.tokenizer):
        cells = measure_recall(
            lm.model,
            lm.tokenizer,
            texts,
            distances,
            rows,
            progress=lambda done, whole: progress("memos: tokens a row", done, whole),
        )
        figures["recall"] = to_json(cells)
    return figures


def recall_tables(figures: dict[str, Any]) -> list[str]:
    """Markdown of what `measure_recalls` gave."""
    needle = [NeedleCell(**_without(row, "gain")) for row in figures["needle"]]
    tables = [needle_table(needle)]
    if "recall" in figures:
        tables.append(recall_table([Cell(**_without(row, "share")) for row in figures["recall"]]))
    return tables


def _without(row: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != name}


def draw_samples(lm: LanguageModel, count: int, tokens: int = 120) -> list[dict[str, object]]:
    """The first samples with seeds 0, 1, ...: none is left out."""
    samples: list[dict[str, object]] = []
    for seed in range(count):
        out = lm.generate("", max_new_tokens=tokens, temperature=0.8, top_p=0.95, seed=seed)
        samples.append({"seed": seed, "temperature": 0.8, "top_p": 0.95, "text": out.text})
    return samples


def stamp(lm: LanguageModel, source: str, began: float) -> dict[str, Any]:
    """What was measured, on what, and how long it took."""
    return {
        "model": source,
        "parameters": sum(parameter.numel() for parameter in lm.model.parameters()),
        "dtype": str(lm.model.embed.weight.dtype).removeprefix("torch."),
        "machine": machine(),
        "seconds": round(time.perf_counter() - began, 1),
    }
