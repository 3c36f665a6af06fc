"""Writes docs/cli.md from the commands themselves, so that the page cannot say anything else.

python docs/generate_cli.py            writes the page
python docs/generate_cli.py --check    exits 1 if the page is not what would be written
"""

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

PAGE = Path(__file__).with_name("cli.md")
HEAD = """# The command `griffin`

Made by `python docs/generate_cli.py` from what `--help` shows; change the commands, not this page.

Every command prints errors on standard error and exits 0 on success, 1 on a failure that it
explains, 2 on wrong usage, 130 on Ctrl-C.
"""


def page() -> str:
    """The whole page, in Markdown."""
    from griffin_lm.cli.main import app

    command = typer.main.get_command(app)
    return "\n".join([HEAD, *section("griffin", command, level=2)]).rstrip() + "\n"


def section(name: str, command: Any, level: int) -> Iterator[str]:
    """The Markdown lines of a command, or of a group and all its commands."""
    commands: dict[str, Any] = getattr(command, "commands", {})
    shown = [param for param in command.params if not getattr(param, "hidden", False)]
    if commands:
        if level > 2:
            yield from (f"{'#' * level} `{name}`", "", text(command.help), "")
        for word in sorted(commands):
            if not getattr(commands[word], "hidden", False):
                yield from section(f"{name} {word}", commands[word], level + (level > 2))
        return
    arguments = [param for param in shown if not is_option(param)]
    options = [param for param in shown if is_option(param)]
    places = "".join(f" {place(param)}" for param in arguments)
    yield from (f"{'#' * level} `{name}`", "", text(command.help), "")
    yield from ("```", f"{name}{places}{' [OPTIONS]' if options else ''}", "```", "")
    if arguments:
        yield from ("| argument | |", "|---|---|")
        yield from (f"| `{label(param)}` | {cell(param)} |" for param in arguments)
        yield ""
    if options:
        yield from ("| option | |", "|---|---|")
        yield from (f"| {names(param)} | {cell(param)} |" for param in options)
        yield ""


def is_option(param: Any) -> bool:
    """True for --option, False for a positional argument."""
    return param.opts[0].startswith("-")


def label(param: Any) -> str:
    """How the usage line calls an argument."""
    return param.metavar or param.name.upper()


def place(param: Any) -> str:
    """An argument in the usage line: brackets where it may be left out."""
    word = label(param) + ("..." if param.nargs == -1 else "")
    return word if param.required else f"[{word}]"


def names(param: Any) -> str:
    """All spellings of an option, with what it takes where it has a name."""
    takes = f" {param.metavar}".replace("|", "\\|") if param.metavar else ""
    spellings = [*param.opts, *param.secondary_opts]
    return ", ".join(f"`{spelling}{takes}`" for spelling in spellings)


def cell(param: Any) -> str:
    """Help, and default or duty, as one table cell."""
    words = text(param.help).replace("\n", " ").replace("|", "\\|")
    if is_option(param) and param.required:
        return f"{words} (required)"
    default = param.default
    silent = default is None or default is False or default == "" or default == ()
    if silent or callable(default) or not getattr(param, "show_default", True):
        return words
    return f"{words} (default `{default}`)".strip()


def text(words: str | None) -> str:
    """A help text without its indentation and its form feeds."""
    return inspect.cleandoc(words or "").replace("\f", "").strip()


def main(arguments: list[str]) -> int:
    """0 if the page is current (or was written), 1 if --check found another."""
    wanted = page()
    if arguments == ["--check"]:
        if PAGE.exists() and PAGE.read_text(encoding="utf-8") == wanted:
            return 0
        print(f"{PAGE.name} is not current; run: python docs/generate_cli.py", file=sys.stderr)
        return 1
    PAGE.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
