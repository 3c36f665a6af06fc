"""`griffin chat`: a conversation at the terminal, or line by line on standard input.

Standard output holds replies and what a command asked for; what the model is, prompts and refusals
go to standard error.
"""

import codecs
import difflib
import locale
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from ..errors import GriffinError, InputError
from . import common
from .common import LoadOptions, Meter

if TYPE_CHECKING:
    from ..inference import Conversation, LanguageModel, Reply

TEMPERATURE = 0.7  # of instruction-tuned and base models; fledgling's notes want the likeliest
LONGEST = 1024  # tokens of a reply
PROMPT = "> "


def chat(
    model: common.Model = "fledgling",
    system: Annotated[
        str, typer.Option(metavar="TEXT", help="stands at the head of your first turn")
    ] = "",
    max_new_tokens: Annotated[
        int | None,
        typer.Option(help=f"at most so many tokens a reply [default: {LONGEST}, fledgling: 48]"),
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(help=f"0: always the likeliest token [default: {TEMPERATURE}, fledgling: 0]"),
    ] = None,
    top_k: Annotated[int | None, typer.Option(help="draw among the K likeliest")] = None,
    top_p: Annotated[float | None, typer.Option(help="among the fewest that reach P")] = 0.95,
    min_p: Annotated[float | None, typer.Option(help="at least P times the likeliest")] = None,
    repetition_penalty: Annotated[
        float | None, typer.Option(help="above 1: tokens of a reply become less likely")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="the same seed draws the same text")] = None,
    stop: Annotated[
        list[str] | None, typer.Option(help="end a reply before this text; may be repeated")
    ] = None,
    undo: Annotated[
        int, typer.Option(min=0, help="exchanges that /undo can take back, two states each")
    ] = 8,
    state: common.StateIn = None,
    save_state: common.StateOut = None,
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
    """Talk with a model, in its own turn template; /help lists the commands.

    The conversation is a state of fixed size: /undo, /retry and /fork keep states, nothing is read
    again. Without a terminal each line of standard input is a message, and commands work as well.
    Ctrl-C cuts a reply short and keeps it; twice at the prompt leaves.
    """
    use_utf8()
    for path in (save_state, json):
        if path is not None and not path.expanduser().absolute().parent.is_dir():
            raise InputError(f"no folder {path.parent} to write {path.name} into; make it first")
    lm = common.load(
        model,
        LoadOptions(device, dtype, quantize, kernels, config, tokenizer, offline, adapter, cache),
    )
    from ..inference import Conversation, GenerateOptions
    from ..text import FLEDGLING

    small = lm.tokenizer.turn is FLEDGLING  # it answers in a word, or not at all
    usual = (48, 0.0) if small else (LONGEST, TEMPERATURE)
    options = GenerateOptions(
        max_new_tokens=usual[0] if max_new_tokens is None else max_new_tokens,
        temperature=usual[1] if temperature is None else temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        seed=seed,
        stop=stop or (),
    )
    talk = Talk(Conversation(lm, options, system=system, undo=undo), model)
    if state is not None:
        talk.conversation.load(state)
    code = talk.run()
    if save_state is not None:
        talk.conversation.save(save_state)
    common.write_json(json, talk.figures())
    sys.exit(code)


def use_utf8() -> None:
    """UTF-8 whatever the locale says; bytes that are none become U+FFFD instead of an error."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        reconfigure: Any = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(encoding="utf-8", errors="replace")
    if codecs.lookup(locale.getpreferredencoding(False)).name != "utf-8" or (
        locale.setlocale(locale.LC_CTYPE) in ("C", "POSIX")
    ):
        with suppress(locale.Error):
            locale.setlocale(locale.LC_CTYPE, "C.UTF-8")
            os.environ["LC_ALL"] = "C.UTF-8"  # which the line editor asks at every line


class Leave(Exception):
    """The conversation ends, with this exit status."""

    def __init__(self, code: int) -> None:
        self.code = code


class Talk:
    """The loop: a line, a reply."""

    def __init__(self, conversation: "Conversation", model: str) -> None:
        self.conversation, self.model = conversation, model
        self.terminal = sys.stdin.isatty()
        self.failed = False
        self.warned = False  # that a second Ctrl-C leaves
        self.commands: dict[str, tuple[Callable[[str], None], str]] = {
            "save": (self.save, "FILE: write the state, with the transcript"),
            "load": (self.load, "FILE: go on from a state file"),
            "fork": (self.fork, "[NAME]: go on under another name; this branch stays as it is"),
            "switch": (self.switch, "[NAME]: go to another branch, or list them"),
            "undo": (self.undo, "take back the last exchange; the state is the one from before"),
            "retry": (self.retry, "the last question again, with the next seed"),
            "read": (self.read, "FILE: read a text for your next question, of any length"),
            "note": (self.note, "TEXT: a note outside the turns, for models that know notes"),
            "stats": (self.stats, "tokens, bytes and speed"),
            "help": (self.help, "this list"),
            "exit": (self.exit, "leave (so does Ctrl-D)"),
        }

    def run(self) -> int:
        """Talks until the input ends; returns the exit status."""
        tell(about(self.conversation.lm, self.model, self.conversation.template.name))
        if self.terminal:
            tell("/help lists the commands; Ctrl-C cuts a reply short; Ctrl-D leaves.")
            with suppress(ImportError):
                import_module("readline")  # line editing and history, in memory only
        try:
            while True:
                self.one_line()
        except Leave as leave:
            return leave.code

    def one_line(self) -> None:
        """Reads a line and does what it says. Raises `Leave` at the end of input, or on /exit."""
        try:
            line = self.next_line()
            self.warned = False
            self.take(line)
        except KeyboardInterrupt:
            if self.warned or not self.terminal:
                raise Leave(130) from None
            self.warned = True
            tell("\nCtrl-C again leaves, as do /exit and Ctrl-D.")
        except (GriffinError, OSError) as error:
            self.failed = True
            tell(f"griffin: {error}")

    def next_line(self) -> str:
        """The next line of input, prompted for on a terminal."""
        if not self.terminal:
            line = sys.stdin.readline()
            return line.rstrip("\r\n") if line else self.exit()
        try:
            return input(PROMPT)
        except EOFError:
            print()
            return self.exit()

    def take(self, line: str) -> None:
        """A message, a command, or a message that begins with a slash (//)."""
        if not line.strip():
            return
        if not line.startswith("/") or line.startswith("//"):
            try:
                with Meter("reading:", "tokens") as meter:
                    reply = self.conversation.say(line.removeprefix("/"), meter)
            except KeyboardInterrupt:
                self.interrupted("your turn was not read to its end: it is not in the conversation")
            else:
                self.show(reply)
            return
        word, _, rest = line[1:].partition(" ")
        if word not in self.commands:
            near = difflib.get_close_matches(word, self.commands, n=2, cutoff=0.5)
            meant = " or ".join(f"/{name}" for name in near)
            raise InputError(
                f"no command /{word}; "
                + (f"did you mean {meant}? " if near else "")
                + "/help lists them; to send a line that begins with a slash, write two"
            )
        self.commands[word][0](rest.strip())

    def show(self, reply: "Reply") -> None:
        """Prints a reply as it comes; Ctrl-C cuts it short, and it stays."""
        begun = False

        def put(piece: str) -> None:
            nonlocal begun
            piece = piece if begun else piece.lstrip()  # the space that the vocabulary begins with
            begun = begun or bool(piece)
            print(piece, end="", flush=True)

        with common.ctrl_c_noted() as interrupted:
            for piece in reply:
                put(piece)
                if interrupted:
                    break
            put(reply.cancel())
        print(flush=True)
        if interrupted:
            self.interrupted("cut short; it stays in the conversation: /undo takes it back")
        elif reply.finish_reason == "length":
            tell(f"(cut after {reply.tokens:,} tokens: --max-new-tokens)")

    def interrupted(self, words: str) -> None:
        """Says what Ctrl-C did; a script ends with it."""
        tell(f"({words})")
        if not self.terminal:
            raise Leave(130)

    # ---- the commands

    def save(self, rest: str) -> None:
        """/save FILE."""
        path = file_named(rest, "save")
        self.conversation.save(path)
        print(f"saved to {path}: {path.stat().st_size:,} bytes, {self.tokens():,} tokens read")

    def load(self, rest: str) -> None:
        """/load FILE."""
        self.conversation.load(file_named(rest, "load"))
        for entry in self.conversation.entries[-2:]:
            print(f"{entry.role}: {entry.text.strip()}")
        print(f"loaded: {self.tokens():,} tokens read")

    def fork(self, rest: str) -> None:
        """/fork [NAME]."""
        here, taken = self.conversation.name, self.conversation.branches
        name = rest or next(
            f"fork-{n}" for n in range(1, len(taken) + 2) if f"fork-{n}" not in taken
        )
        self.conversation.fork(name)
        print(f"now on {name}; back with /switch {here}")

    def switch(self, rest: str) -> None:
        """/switch [NAME]."""
        if rest:
            self.conversation.switch(rest)
        for name in self.conversation.branches:
            print(f"{'*' if name == self.conversation.name else ' '} {name}")

    def undo(self, rest: str) -> None:
        """/undo."""
        gone = self.conversation.undo()
        for entry in gone:
            print(f"taken back: {entry.role}: {shortened(entry.text)}")
        if not gone:
            print("taken back")

    def retry(self, rest: str) -> None:
        """/retry."""
        if self.conversation.options.temperature == 0:
            tell("(at temperature 0 the reply is the same again: --temperature 0.7 draws)")
        self.show(self.conversation.retry())

    def read(self, rest: str) -> None:
        """/read FILE."""
        path = file_named(rest, "read")
        try:
            with Meter(f"reading {path.name}:", "kB", 1e3) as meter:
                count = self.conversation.read(path, meter)
        except KeyboardInterrupt:
            self.interrupted("nothing of the file was kept")
            return
        print(f"read {path}: {count:,} tokens; ask about it")

    def note(self, rest: str) -> None:
        """/note TEXT."""
        if not rest:
            raise InputError("give the note: /note The name is Emma, the place is Bath, ...")
        self.conversation.note(rest)
        print("noted")

    def stats(self, rest: str) -> None:
        """/stats."""
        stats = self.conversation.stats()
        ever = "" if self.conversation.state.bytes_per_token else ", however much it reads"
        print(f"{stats.tokens:,} tokens read; the state holds {stats.state_bytes:,} bytes{ever}")
        print(f"a Gemma of this shape would hold {stats.cache_bytes:,} bytes of keys and values")
        print(f"for undo and branches: {stats.kept_states} states, {stats.kept_bytes:,} bytes")
        if stats.reply_seconds:
            speed = stats.reply_tokens / stats.reply_seconds
            print(f"the last reply: {stats.reply_tokens:,} tokens, {speed:.1f} a second")

    def help(self, rest: str) -> None:
        """/help."""
        for name, (_, text) in self.commands.items():
            print(f"/{name:<7} {text}")
        print("//text   sends /text. Nothing is ever cut off: what is long ago fades.")

    def exit(self, rest: str = "") -> NoReturn:
        """/exit. After a refusal a script gets the status 1; a person has seen it."""
        raise Leave(1 if self.failed and not self.terminal else 0)

    # ---- figures

    def tokens(self) -> int:
        """Tokens that the state stands for."""
        return int(self.conversation.state.tokens)

    def figures(self) -> dict[str, Any]:
        """What --json writes."""
        talk = self.conversation
        return {
            "model": self.model,
            "instruction_tuned": talk.lm.instruction_tuned,
            "template": talk.template.name,
            "turns": [asdict(entry) for entry in talk.entries],
            **asdict(talk.stats()),
        }


def about(lm: "LanguageModel", name: str, template: str) -> str:
    """What the model is, and what to expect of it."""
    count = sum(parameter.numel() for parameter in lm.model.parameters())
    said = f"{name}: {count:,} parameters"
    fading = "Nothing is ever cut off; what is long ago fades."
    if template == "fledgling":
        return (
            f"{said}. It is fledgling, the model that comes with griffin-lm: it has no knowledge "
            "and cannot converse. What it can do is keep a note through a long text. Try\n"
            "  /note The name is Emma, the place is Bath, the number is 47.\n"
            "  /read BOOK.txt\n"
            "  What is the place?"
        )
    if not lm.instruction_tuned:
        return (
            f"{said}, a base model: it continues text and was not taught to take turns. The "
            "conversation is written for it in plain words, User: ... Assistant: ...; it may lose "
            f"the thread. {fading}"
        )
    if template == "plain":
        return (
            f"{said}, instruction-tuned, but its vocabulary has no turn markers that are known "
            f"here: the conversation is written in plain words, User: ... Assistant: ... {fading}"
        )
    return f"{said}, instruction-tuned; turns in the template {template!r}. {fading}"


def tell(text: str) -> None:
    """A line that is no part of the conversation."""
    print(text, file=sys.stderr, flush=True)


def shortened(text: str) -> str:
    """The beginning of a text, in one line."""
    line = " ".join(text.split())
    return line if len(line) <= 60 else line[:59] + "…"


def file_named(rest: str, command: str) -> Path:
    """The file that a command names. Raises `InputError` where it names none."""
    if not rest:
        raise InputError(f"name a file: /{command} FILE")
    return Path(rest).expanduser()
