"""The report: facts, sections of lines, as Markdown to paste and as plain values."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ...shapes import JSON
from .inventory import Files
from .lines import Line, Result


@dataclass(frozen=True)
class Section:
    """Lines that belong together, and how long they took."""

    title: str
    lines: list[Line]
    seconds: float


@dataclass
class Report:
    """What `verify` returns. facts: one line each, in order."""

    model: str
    facts: dict[str, str]
    config: JSON
    parts: dict[str, int]
    files: Files
    sections: list[Section] = field(default_factory=list[Section])

    @property
    def failed(self) -> list[Line]:
        """Lines that failed."""
        return [line for section in self.sections for line in section.lines if _is(line, "FAIL")]

    @property
    def verdict(self) -> str:
        """One line: PASS or FAIL, and how many lines of each kind."""
        lines = [line for section in self.sections for line in section.lines]
        counts = {kind: sum(_is(line, kind) for line in lines) for kind in _KINDS}
        words = f"{counts['PASS']} lines pass, {counts['FAIL']} fail"
        words += f", {counts['not done']} not done" if counts["not done"] else ""
        return f"{'FAIL' if self.failed else 'PASS'}: {words}"

    def to_dict(self) -> JSON:
        """Plain values."""
        return {
            "model": self.model,
            "passed": not self.failed,
            "facts": self.facts,
            "config": self.config,
            "parts": self.parts,
            **self.files.to_dict(),
            "sections": [
                {
                    "title": section.title,
                    "seconds": round(section.seconds, 1),
                    "lines": [line.to_dict() for line in section.lines],
                }
                for section in self.sections
            ],
        }

    def to_markdown(self) -> str:
        """A page."""
        count = sum(self.parts.values())
        blocks = [
            f"# griffin verify: {self.model}",
            f"**{self.verdict}**",
            _table(("fact", ""), self.facts.items()),
            "## Lines",
        ]
        for section in self.sections:
            rows = [_bold(line) for line in section.lines]
            blocks.append(f"### {section.title} ({section.seconds:.1f} s)")
            blocks.append(_table(("line", "result", "measured", "limit", "what"), rows))
        blocks += ["## Inventory", "### Files"]
        hashes = self.files.hashes.items()
        rows = [(name, f"{size:,}", f"`{digest}`") for name, (size, digest) in hashes]
        blocks.append(_table(("file", "bytes", "SHA-256"), rows))
        dtypes = self.files.dtypes.items()
        rows = [(name, str(tensors), f"{size:,}") for name, (tensors, size) in dtypes]
        blocks.append(_table(("dtype in the files", "tensors", "bytes"), rows))
        rows = [*self.parts.items(), ("all", count)]
        blocks.append(_table(("part", "parameters"), [(n, f"{c:,}") for n, c in rows]))
        settings = {k: v for k, v in self.config.items() if k != "pattern"}
        rows = [(name, str(value)) for name, value in settings.items()]
        for place, mixer in enumerate(self.config["pattern"]):
            words = ", ".join(f"{k} {v}" for k, v in mixer.items() if k != "kind")
            rows.append((f"pattern {place}: {mixer['kind']}", words))
        blocks += ["### Config", _table(("setting", ""), rows)]
        return "\n\n".join(blocks) + "\n"


_KINDS: tuple[Result, ...] = ("PASS", "FAIL", "info", "not done")


def _is(line: Line, kind: Result) -> bool:
    return line.result == kind


def _bold(line: Line) -> tuple[str, ...]:
    """A line's cells; a failure stands out."""
    result = f"**{line.result}**" if _is(line, "FAIL") else line.result
    return line.name, result, line.figure, line.limit, line.note


def _table(head: tuple[str, ...], rows: Iterable[Sequence[str]]) -> str:
    """Markdown; a bar or a newline in a cell would end it."""
    body = [list(map(_cell, row)) for row in rows]
    lines = [_row(list(head)), _row(["---"] * len(head)), *map(_row, body)]
    return "\n".join(lines)


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
