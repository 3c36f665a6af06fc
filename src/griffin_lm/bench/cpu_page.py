"""docs/results/cpu.md, of all that was measured: python -m griffin_lm.bench.cpu_page

`griffin bench decode | prefill | scan | quality | memory | counter` write their figures to
docs/results/cpu/NAME.json. This page holds them against the targets, and draws the plot. Why a
target is missed stands in docs/results/cpu/why.json, by the row's name.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import DataError, MissingExtra
from .cpu.plot import draw
from .cpu.study import table
from .cpu.targets import TARGETS, Figures, Found, Target

FOLDER = Path("docs/results")
COMMANDS: Mapping[str, str] = {
    "decode": "griffin bench decode --peers --profile --json docs/results/cpu/decode.json",
    "prefill": "griffin bench prefill --peers --profile --json docs/results/cpu/prefill.json",
    "scan": "griffin bench scan --json docs/results/cpu/scan.json",
    "quality": "griffin bench quality --json docs/results/cpu/quality.json",
    "memory": "griffin bench memory --json docs/results/cpu/memory.json",
    "counter": "griffin bench counter --json docs/results/cpu/counter.json",
}
SPEED = ("decode", "prefill", "scan")
HEAD = """# Speed on a CPU, as measured

Made by `python -m griffin_lm.bench.cpu_page` from the figures in `docs/results/cpu/`. Random
weights of RecurrentGemma-2B's shape, but for perplexity and where fledgling is named. llama.cpp has
no Griffin: it runs a random Gemma of as many parameters, width, depth and head. Every contender is
measured in every round, and the limit (reading memory, copying it, multiplying matrices, with as
many threads) before and after it. Rows are medians over rounds that other processes did not
disturb. On machines with AMX llama.cpp's own layouts of weights in 8 and 4 bits ended its process
at prompts: there prefill and 32k are measured without them (`GRIFFIN_LLAMA_PLAIN=1`), the empty
context with them. Scans run as training does, with an allocator that keeps freed memory, since
copying writes into memory that is there already. Where there are none but disturbed rounds, "busy"
stands beside the figure, with the share of all cores that others took: such a figure says little.

Other machines: [with AVX2 alone](cpu_avx2.md), and [with AMX](cpu_amx.md), measured earlier.
"""


def read(folder: Path) -> Figures:
    """The figures that are there. Raises DataError for a file that holds none."""
    found: dict[str, Mapping[str, Any]] = {}
    for name, command in COMMANDS.items():
        path = folder / f"{name}.json"
        if path.is_file():
            try:
                content: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
                _ = [row["what"] for row in content["rows"]], content["machine"]["processor"]
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(f"{path} is not what {command!r} writes ({error!r})") from error
            found[name] = content
    return found


def page(folder: Path) -> str:
    """The page, of the figures in a folder."""
    figures = read(folder)
    reasons = folder / "why.json"
    why: Mapping[str, str] = json.loads(reasons.read_text()) if reasons.is_file() else {}
    lines = [HEAD, *_targets(figures, why)]
    if (folder / "context.svg").is_file():
        lines += ["", "![Tokens a second against context](cpu/context.svg)"]
    for name in COMMANDS:
        lines += ["", *_section(name, figures.get(name))]
    return "\n".join(lines) + "\n"


def _targets(figures: Figures, why: Mapping[str, str]) -> list[str]:
    lines = [
        "| | beside | to reach | then | measured | |",
        "|---|---|--:|--:|--:|---|",
        *(_target(target, target.read(figures)) for target in TARGETS),
    ]
    missed = [t for t in TARGETS if (found := t.read(figures)) and not t.reached(found.value)]
    told = [f"- {_key(target)}: {why[_key(target)]}" for target in missed if _key(target) in why]
    heading = "What stands in the way where a target is missed:"
    return [*lines, "", heading, "", *told] if told else lines


def _key(target: Target) -> str:
    return f"{target.name}, {target.beside}"


def _target(target: Target, found: Found | None) -> str:
    sign = "≤ " if target.most else ""
    later = "" if target.later is None else sign + target.shown(target.later)
    cells = (target.name, target.beside, sign + target.shown(target.reach), later)
    if found is None:
        return f"| {' | '.join(cells)} | not measured | |"
    verdict = "reached" if target.reached(found.value) else "missed"
    verdict += ", busy" if found.busy else ""
    return f"| {' | '.join(cells)} | {target.shown(found.value)} | {verdict} |"


def _section(name: str, figures: Mapping[str, Any] | None) -> list[str]:
    """A measurement's command, machine and rows."""
    title = f"## {name.capitalize()}"
    if figures is None:
        return [title, "", f"Not run yet: `{COMMANDS[name]}`."]
    facts = ", ".join(f"{key} {value}" for key, value in figures["machine"].items())
    commands = ", ".join(f"`{command}`" for command in figures.get("commands", []))
    when = f" on {figures['date']}" if "date" in figures else ""
    lines = [title, "", f"Made by {commands}{when}. Machine: {facts}.", ""]
    if name in SPEED:
        lines += [table(figures["rows"]), *_profiles(figures.get("profiles", []))]
    else:
        lines += _plain(figures["rows"])
    return lines


def _plain(rows: list[Mapping[str, Any]]) -> list[str]:
    """Rows with all their columns that hold a number or a word."""
    names = (name for row in rows for name in row if name not in ("what", "who"))
    columns = list(dict.fromkeys(names))
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for row in rows:
        cells = (row.get(name, "") for name in columns)
        lines.append("| " + " | ".join(_cell(cell) for cell in cells) + " |")
    return lines


def _cell(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return "" if value is None else "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _profiles(profiles: list[Mapping[str, Any]]) -> list[str]:
    """The last profile of each kind of weights: the parts that take more than 1 %."""
    latest = {(p["what"], p["weights"], p["context"]): p for p in profiles}
    lines: list[str] = []
    for (what, weights, context), one in latest.items():
        parts = {name: value for name, value in one["seconds"].items() if name != "call"}
        whole = one["seconds"]["call"]
        shares = sorted(parts.items(), key=lambda part: -part[1])
        told = ", ".join(f"{name} {t / whole:.0%}" for name, t in shares if t / whole > 0.01)
        lines.append(f"- Where our time goes ({what}, {weights}, {context:,} tokens): {told}.")
    return ["", *lines] if lines else []


def main(folder: Path = FOLDER) -> None:
    """Writes cpu.md into a folder, and the plot, from the figures in its folder `cpu`."""
    if not folder.is_dir():
        sys.exit(f"there is no folder {folder}: run this from the repository's folder")
    try:
        draw(read(folder / "cpu").get("decode"), folder / "cpu" / "context.svg")
    except MissingExtra as error:
        print(f"the plot stays as it is: {error}", file=sys.stderr)
    path = folder / "cpu.md"
    path.write_text(page(folder / "cpu"), encoding="utf-8")
    print(f"written: {path}")


if __name__ == "__main__":
    main()
