"""`griffin chat` in processes of its own: piped, and at a terminal with keys and Ctrl-C."""

import json
import os
import re
import select
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

import griffin_lm as griffin
from griffin_lm.inference import Conversation, GenerateOptions, LanguageModel
from tests.inference.vocabulary import vocabulary

FP32 = ("--dtype", "float32", "--device", "cpu")
CHAT = [sys.executable, "-m", "griffin_lm.cli.main", "chat"]
OPTIONS = ("--max-new-tokens", "6", "--seed", "11", "--temperature", "3", "--top-p", "1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Gemma's markers, random weights: a reply ends at --max-new-tokens."""
    tokenizer = vocabulary(markers=("<start_of_turn>", "<end_of_turn>"))
    config = replace(griffin.PRESETS["tiny-griffin"], vocab=tokenizer.vocab_size)
    path = tmp_path_factory.mktemp("chat") / "tiny-it"
    griffin.save(LanguageModel(griffin.build(config, seed=3), tokenizer), path)
    return path


@pytest.fixture(scope="module")
def lm(folder: Path) -> LanguageModel:
    return griffin.load(folder, device="cpu", dtype="float32")


def environment(**changes: str) -> dict[str, str]:
    speech = ("LC_", "LANG", "PYTHONUTF8", "PYTHONIOENCODING", "PYTHONCOERCECLOCALE")
    left = {name: value for name, value in os.environ.items() if not name.startswith(speech)}
    return left | {"OMP_NUM_THREADS": "1", "TERM": "dumb", "LC_ALL": "C.UTF-8"} | changes


def piped(
    source: object, lines: str | bytes, *options: object, **variables: str
) -> subprocess.CompletedProcess[bytes]:
    """The command with these lines on standard input."""
    return subprocess.run(
        [*CHAT, str(source), *FP32, *OPTIONS, *map(str, options)],
        input=lines if isinstance(lines, bytes) else lines.encode(),
        env=environment(**variables),
        capture_output=True,
        timeout=120,
    )


def replies(lm: LanguageModel, *texts: str) -> list[str]:
    """What the model says, asked from Python."""
    talk = Conversation(lm, GenerateOptions(max_new_tokens=6, temperature=3.0, top_p=1.0, seed=11))
    return ["".join(talk.say(text)).lstrip() for text in texts]


def test_piped_lines_are_answered_on_standard_output_alone(folder: Path, lm) -> None:
    done = piped(folder, "Where is the key?\n\nWho said nothing? é 🐙\n")
    assert done.returncode == 0
    first, second = replies(lm, "Where is the key?", "Who said nothing? é 🐙")
    assert done.stdout.decode() == f"{first}\n{second}\n"
    assert "instruction-tuned" in done.stderr.decode() and b"Traceback" not in done.stderr


@pytest.mark.parametrize("utf8", ["0", pytest.param("1", marks=pytest.mark.slow)])
def test_text_is_utf_8_whatever_the_locale(folder: Path, lm, utf8: str) -> None:
    variables = {"LC_ALL": "POSIX", "PYTHONUTF8": utf8, "PYTHONCOERCECLOCALE": "0"}
    done = piped(folder, "Wo ist der Schlüssel? 🐙\n", **variables)
    assert done.stdout.decode() == replies(lm, "Wo ist der Schlüssel? 🐙")[0] + "\n"


def test_bytes_that_are_no_text_do_not_end_it(folder: Path, lm) -> None:
    done = piped(folder, b"a\xff\xfeb\nWho?\n", LC_ALL="C")
    assert done.returncode == 0
    expected = replies(lm, "a\ufffd\ufffdb", "Who?")
    assert done.stdout.decode() == "".join(f"{reply}\n" for reply in expected)


def test_every_command_does_what_it_promises(run, folder: Path, lm, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("The fog came in again.")
    state, figures = tmp_path / "s.state", tmp_path / "j.json"
    script = f"""Where?
/save {state}
/fork
Who?
/undo
/switch main
/retry
/read {tmp_path / "a.txt"}
What?
/stats
/help
/load {state}
//slash
/exit
never said
"""
    files = ("--json", figures, "--save-state", tmp_path / "end")
    code, out, err = run("chat", folder, *FP32, *OPTIONS, *files, stdin=script.encode())
    assert code == 0, err
    where, who = replies(lm, "Where?", "Who?")
    assert out.startswith(f"{where}\nsaved to {state}: {state.stat().st_size:,} bytes")
    assert f"now on fork-1; back with /switch main\n{who}\ntaken back: user: Who?" in out
    assert "* main\n  fork-1\n" in out
    assert f"read {tmp_path / 'a.txt'}: " in out
    assert re.search(r"\d+ tokens read; the state holds [\d,]+ bytes", out)
    assert "keys and values" in out and re.search(r"last reply: 6 tokens, [\d.]+ a second", out)
    for command in ["save", "load", "fork", "undo", "retry", "read", "stats", "help", "exit"]:
        assert f"\n/{command} " in out
    assert f"user: Where?\nmodel: {where}\nloaded: " in out
    told = json.loads(figures.read_text())
    turns = [(turn["role"], turn["text"]) for turn in told["turns"]]
    assert turns[:3:2] == [("user", "Where?"), ("user", "/slash")] and len(turns) == 4
    assert told["template"] == "gemma" and told["instruction_tuned"]
    assert told["tokens"] == int(griffin.State.load(tmp_path / "end", lm).tokens)


def test_a_conversation_is_gone_on_with_from_a_file(run, folder: Path, lm, tmp_path) -> None:
    asked = ("chat", folder, *FP32, *OPTIONS)
    run(*asked, "--save-state", tmp_path / "s", stdin=b"Where?\n")
    result = run(*asked, "--state", tmp_path / "s", stdin=b"Who?\n")
    assert result.out == replies(lm, "Where?", "Who?")[1] + "\n"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("/sttas", "did you mean /stats?"),
        ("/sav x", "did you mean /save"),
        ("/usr/bin", "no command /usr/bin; /help"),
        ("/xyzzy", "write two"),
        ("/save", "/save FILE"),
        ("/load /nowhere/at/all", "no state at /nowhere"),
        ("/read /nowhere/at/all", "can't read"),
        ("/undo", "nothing to undo"),
        ("/retry", "say something first"),
        ("/switch nowhere", "there are: main"),
        ("/fork main", "already"),
        ("/note x", "taught no notes"),
        ("/save /nowhere/at/all", "could not save"),
    ],
)
def test_what_cannot_be_done_is_explained_and_the_talk_goes_on(run, folder, line, words) -> None:
    result = run("chat", folder, *FP32, *OPTIONS, stdin=f"{line}\nWho?\n".encode())
    assert words in result.err and "Traceback" not in result.err
    assert result.out.count("\n") == 1  # the reply to what came after
    assert result.code == 1  # so that a script notices


@pytest.mark.parametrize("option", ["--save-state", "--json"])
def test_a_file_that_could_not_be_written_is_refused_before_the_talk(run, folder, option) -> None:
    result = run("chat", folder, *FP32, option, "/nowhere/at/all", stdin=b"Hi\n")
    assert result.code == 1 and "/nowhere/at" in result.err and result.out == ""


def test_ctrl_c_while_a_turn_is_read_takes_it_back_and_ends_a_script(
    run, folder, tmp_path: Path, monkeypatch
) -> None:
    def interrupted(*_: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("griffin_lm.inference.conversation.read_tokens", interrupted)
    result = run("chat", folder, *FP32, "--json", tmp_path / "j", stdin=b"Hi\nWho?\n")
    assert result.code == 130 and "not in the conversation" in result.err
    assert json.loads((tmp_path / "j").read_text())["turns"] == []


def test_it_says_at_once_what_the_model_is(run, folder, lm, tmp_path: Path) -> None:
    assert "instruction-tuned; turns in the template 'gemma'" in run("chat", folder, *FP32).err
    base = LanguageModel(lm.model, lm.tokenizer)
    griffin.save(base, tmp_path / "base")
    result = run("chat", tmp_path / "base", *FP32, *OPTIONS, stdin=b"Hi\n")
    assert "a base model" in result.err and "User: ... Assistant: ..." in result.err
    assert "fades" in result.err
    plain = vocabulary(markers=())
    config = replace(lm.config, vocab=plain.vocab_size)
    griffin.save(LanguageModel(griffin.build(config), plain, True), tmp_path / "other")
    assert "no turn markers that are known" in run("chat", tmp_path / "other", *FP32).err


def test_fledgling_is_the_default_and_answers_from_a_note(run, tmp_path: Path) -> None:
    note = "/note The name is Emma, the place is Bath, the number is 47."
    (tmp_path / "book.txt").write_text("The evening was cold, and the road was empty. " * 40)
    script = f"{note}\n/read {tmp_path / 'book.txt'}\nWhat is the place?\nWhat is the number?\n"
    result = run("chat", *FP32, stdin=script.encode())
    assert result.code == 0 and "keep a note through a long text" in result.err
    assert result.out.splitlines()[2:] == ["Bath", "47"]


def test_a_system_text_stands_at_the_head_of_the_first_turn(run, folder: Path, lm) -> None:
    result = run("chat", folder, *FP32, *OPTIONS, "--system", "Be brief.", stdin=b"Where?\n")
    assert result.out == replies(lm, "Be brief.\n\nWhere?")[0] + "\n"


# ---- at a terminal

pty = pytest.importorskip("pty", reason="no pseudo-terminals on this system")


# a session of its own, whose terminal this is, so that Ctrl-C there is a signal
OWN_TERMINAL = """
import fcntl, os, signal, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.argv[1], sys.argv[1:])
"""


class Terminal:
    """The command at the other end of a pseudo-terminal."""

    def __init__(self, *arguments: object, **variables: str) -> None:
        self.end, theirs = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-c", OWN_TERMINAL, *CHAT, *map(str, arguments), *FP32],
            env=environment(**variables),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        self.seen, self.at = "", 0

    def until(self, words: str) -> str:
        """Reads until the words come, after those waited for last; returns all since then."""
        while (found := self.seen.find(words, self.at)) < 0:
            self.more()
        begun, self.at = self.at, found + len(words)
        return self.seen[begun : self.at]

    def more(self) -> None:
        """Reads something, however little."""
        ready = select.select([self.end], [], [], 60)[0]
        assert ready, f"nothing came for a minute; so far: {self.seen!r}"
        with suppress(OSError):  # the other end is closed
            data = os.read(self.end, 65536)
            self.seen += data.decode(errors="replace")
            return
        raise AssertionError(f"it ended; so far: {self.seen!r}")

    def type(self, text: str) -> None:
        os.write(self.end, text.encode())

    def interrupt(self, words: str) -> str:
        """Ctrl-C until the words come.

        Again after a while: a signal between a prompt and Python's wait for a line is only seen at
        the next key (CPython's readline_until_enter_or_signal), here the next Ctrl-C.
        """
        for _ in range(20):
            self.type("\x03")
            ready = select.select([self.end], [], [], 3)[0]
            if ready:
                return self.until(words)
        raise AssertionError(f"Ctrl-C had no answer; so far: {self.seen!r}")

    def leave(self) -> int:
        """Ctrl-C until the process ends, as in `interrupt`; the exit status."""
        for _ in range(20):
            with suppress(OSError):  # the other end is closed
                self.type("\x03")
            with suppress(subprocess.TimeoutExpired):
                return self.process.wait(3)
        raise AssertionError(f"Ctrl-C did not end it; so far: {self.seen!r}")

    def code(self) -> int:
        """Waits for the end; the exit status."""
        with suppress(OSError):  # the other end is closed
            while os.read(self.end, 65536):
                pass
        return self.process.wait(60)

    def close(self) -> None:
        """Ends the process if it is still there."""
        self.process.kill()
        self.process.wait()
        os.close(self.end)


@pytest.fixture
def terminal():
    """Opens terminals and closes them."""
    opened: list[Terminal] = []

    def open_one(*arguments: object, **variables: str) -> Terminal:
        opened.append(Terminal(*arguments, **variables))
        return opened[-1]

    yield open_one
    for each in opened:
        each.close()


def said(path: Path) -> list[str]:
    """The users' texts in a --json file."""
    return [
        turn["text"] for turn in json.loads(path.read_text())["turns"] if turn["role"] == "user"
    ]


def test_ctrl_c_cuts_a_reply_short_and_keeps_it(terminal, folder, lm, tmp_path: Path) -> None:
    window = terminal(
        folder, "--max-new-tokens", 10**6, "--temperature", 3, "--seed", 1,
        "--json", tmp_path / "j", "--save-state", tmp_path / "s",
    )  # fmt: skip
    window.until("> ")
    window.type("Where is the key?\n")
    window.until("key?\r\n")
    while len(window.seen) < window.at + 20:
        window.more()
    window.type("\x03")
    window.until("cut short")
    window.until("> ")
    window.type("/stats\n")
    window.until("the last reply")
    window.until("> ")
    window.type("\x04")
    assert window.code() == 0
    told = json.loads((tmp_path / "j").read_text())
    user, model = (turn["text"] for turn in told["turns"])
    assert user == "Where is the key?" and len(model) > 3
    assert model.strip()[:20].split()[0] in window.seen
    assert told["tokens"] == int(griffin.State.load(tmp_path / "s", lm).tokens)


def test_ctrl_c_at_the_prompt_says_how_to_leave_and_twice_leaves(
    terminal, folder, tmp_path
) -> None:
    window = terminal(folder, "--max-new-tokens", 2, "--save-state", tmp_path / "s")
    window.until("> ")
    assert "/exit" in window.interrupt("> ")
    window.type("Hello\n")  # in between: the count begins anew
    window.until("> ")
    window.interrupt("Ctrl-C again leaves")
    window.until("> ")
    assert window.leave() == 130
    assert (tmp_path / "s").exists()


@pytest.mark.parametrize(
    "locale",
    [*(pytest.param(name, marks=pytest.mark.slow) for name in ("C", "C.UTF-8")), "POSIX"],
)
def test_a_line_can_be_edited_before_it_is_sent(terminal, folder, tmp_path, locale: str) -> None:
    window = terminal(
        folder, "--max-new-tokens", 1, "--json", tmp_path / "j", LC_ALL=locale, TERM="xterm"
    )
    window.until("> ")
    # é and its rubbing out; to the beginning; an arrow; the line before, changed
    window.type("bé\x7fc\x01a\x1b[C!\n")
    window.until("> ")
    window.type("\x1b[A? ü🐙\n")
    window.until("> ")
    window.type("\x04")
    assert window.code() == 0
    assert said(tmp_path / "j") == ["ab!c", "ab!c? ü🐙"]
