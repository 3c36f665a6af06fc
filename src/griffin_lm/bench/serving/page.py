"""The figures of `griffin bench serve` as a page of docs/results, with what was to be reached."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ...shapes import JSON
from . import delay, disk, reading
from .engine import FRESH, RESUMED

PLOT = "serving_reading.svg"
MIB = 1 << 20

Line = tuple[str, str, str]
"""What, measured, to reach."""


def table(figures: JSON) -> str:
    """The figures as lines to be read."""
    return "\n".join(
        f"{what}: {value}" + (f" (to reach: {wanted})" if wanted else "")
        for _, lines, _ in _parts(figures)
        for what, value, wanted in lines
    )


def page(figures: JSON) -> str:
    """docs/results/serving.md."""
    sections = [
        f"## {_TITLES[part]}\n\n{about}\n\n{_table(lines)}"
        for part, lines, about in _parts(figures)
    ]
    return "\n".join(["# Serving\n", *sections])


def _parts(figures: JSON) -> Iterator[tuple[str, list[Line], str]]:
    """Name, lines and introduction of each part that was measured."""
    for part, of in figures["parts"].items():
        rows = [row for row in figures["rows"] if row["part"] == part]
        lines, about = _LINES[part](rows, of["options"])
        yield part, lines, f"{_made(of)} {about}"


def _made(part: Mapping[str, Any]) -> str:
    machine = part["machine"]
    return (
        f"`{part['command']}` on {part['date']}: {machine['processor']}, {machine['cores']} cores, "
        f"PyTorch {machine['PyTorch']}."
    )


def _table(lines: Sequence[Line]) -> str:
    rows = "".join(f"| {what} | {value} | {wanted} |\n" for what, value, wanted in lines)
    return f"| | measured | to reach |\n|---|--:|--:|\n{rows}"


def _engine(rows: list[JSON], options: JSON) -> tuple[list[Line], str]:
    bare, engine = rows[:2]
    ms = {row["what"]: 1000 * row["seconds"] for row in rows if "seconds" in row}
    (state,) = [row for row in rows if row["what"] == "state"]
    raw, ratio = ms[disk.RAW], ms["resumed session"] / ms["fresh prompt"]
    lines = [
        ("bare batched loop, tokens/s", f"{bare['tokens_per_s']:.2f}", ""),
        ("engine, tokens/s", f"{engine['tokens_per_s']:.2f}", ""),
        ("engine over the bare loop", f"{engine['fraction_of_bare']:.3f}", ">= 0.92"),
        ("first token of a fresh prompt, ms", f"{ms['fresh prompt']:.1f}", ""),
        ("first token of a resumed session, ms", f"{ms['resumed session']:.1f}", ""),
        ("resumed over fresh", f"{ratio:.3f}", "<= 1.2"),
        ("state in its file, MB", f"{state['bytes'] / 1e6:.2f}", "<= 17.3"),
        ("write and fsync of as many bytes, ms", f"{raw:.1f}", ""),
        ("the same, renamed and the folder synced, ms", f"{ms[disk.RENAMED]:.1f}", ""),
        ("state saved, ms", f"{ms['state save']:.1f}", f"<= {raw + 15:.1f} (bare write and 15 ms)"),
        ("state loaded, ms", f"{ms['state load']:.1f}", "<= 30"),
    ]
    part = options["of_engine"]
    return lines, (
        f"Random {part['weights']} weights of {part['preset']}, {part['streams']} requests that "
        f"have read {part['context']:,} tokens each, {part['tokens']} steps a measurement, "
        f"medians of {part['rounds']} rounds in which all contenders take turns. A fresh prompt "
        f"has {FRESH} tokens; the session taken up again has read {RESUMED:,} and comes from its "
        "file. HTTP is not in these figures. A save also computes checksums, renames, and syncs "
        "the folder."
    )


def _delay(rows: list[JSON], options: JSON) -> tuple[list[Line], str]:
    (row,) = rows
    target = delay.TARGET
    p50, p99 = (1000 * row[f"p{share}_at_most"] for share in (50, 99))
    within = f"{100 * row['share_within_target']:.2f} %"
    lines = [
        ("delay of a token, p50, ms, at most", f"{p50:g}", ""),
        ("delay of a token, p99, ms, at most", f"{p99:g}", f"<= {1000 * target:g}"),
        (f"tokens within {1000 * target:g} ms", within, ">= 99 %"),
        ("mean, ms", f"{1000 * row['mean_seconds']:.2f}", ""),
    ]
    return lines, (
        f"fledgling, {row['streams']} streams of {options['stream_tokens']} tokens at once, "
        f"{row['tokens']:,} pieces in all. From a token being ready in the engine to its bytes "
        "being with the connection, by the server's own histogram "
        "(`griffin_token_delay_seconds`: a figure is the upper edge of its bucket). The clients "
        "run on the same cores."
    )


def _parked(rows: list[JSON], options: JSON) -> tuple[list[Line], str]:
    (row,) = rows
    lines = [
        ("sessions parked, and answered after a restart", f"{row['answered']:,}", "10,000"),
        ("bytes in files, of a session", f"{row['bytes'] / row['sessions']:,.0f}", ""),
        ("on the disk, MB in all", f"{row['disk_bytes'] / 1e6:.0f}", ""),
        ("made and read into, sessions/s", f"{row['sessions'] / row['parking_seconds']:.0f}", ""),
        ("server started again, s", f"{row['start_seconds']:.1f}", ""),
        ("all listed, s", f"{row['list_seconds']:.1f}", ""),
        ("one resumed and answered, median, ms", f"{1000 * row['resume_seconds']:.1f}", ""),
        ("the same, p99, ms", f"{1000 * row['resume_p99_seconds']:.1f}", ""),
        ("all asked, sessions/s", f"{row['sessions'] / row['answer_all_seconds']:.0f}", ""),
    ]
    return lines, (
        "fledgling, sessions of one key in one `--state-dir`. Each is made and read into over "
        "HTTP, eight at a time; the server is killed (SIGKILL), and another one lists them all and "
        "answers a question out of every one, from a state of its own number of tokens. A hundred "
        "drawn at random are asked one by one (4 tokens) and their answers compared with those of "
        "the same text read in another process. Marks are in the bytes: the empty state that each "
        "began with."
    )


def _reading(rows: list[JSON], options: JSON) -> tuple[list[Line], str]:
    (row,) = rows
    growing = row["growing_cache_bytes"] / MIB
    lines = [
        ("tokens read", f"{row['tokens']:,}", "1,000,000"),
        ("tokens/s", f"{row['tokens_per_s']:,.0f}", ""),
        ("the server's memory, MiB, median", f"{row['memory_bytes'] / MIB:.1f}", ""),
        ("least and most beside it", _percent(row), "± 2 %"),
        ("bytes of the state", f"{row['state_bytes']:,}", ""),
        ("a growing cache of the same shape by then, MiB", f"{growing:,.0f}", ""),
    ]
    return lines, (
        "fledgling reads the bundled book over and over into one session, over HTTP, after it has "
        f"read it {reading.WARM} times into another. Memory is the server process's own, anonymous "
        "and shared (`RssAnon` and `RssShmem`), looked at "
        f"{len(row['samples'])} times from the first token to the last.\n\n"
        f"![Memory while a text is read: the server's stays level, a cache grows]({PLOT})"
    )


def _percent(row: JSON) -> str:
    return f"{100 * row['memory_low']:+.2f} %, {100 * row['memory_high']:+.2f} %"


_TITLES = {
    "engine": "Engine and disk",
    "delay": "The server's own delay",
    "parked": "Parked sessions",
    "reading": "A long text",
}
_LINES: Mapping[str, Callable[[list[JSON], JSON], tuple[list[Line], str]]] = {
    "engine": _engine,
    "delay": _delay,
    "parked": _parked,
    "reading": _reading,
}
