"""A tiny checkpoint with fledgling's markers, and the command run inside this process."""

import io
import sys
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
import sentencepiece

import griffin_lm as griffin
from griffin_lm.evals.memo_text import MARKS, note_text, question_text
from griffin_lm.inference import LanguageModel
from griffin_lm.text.sentencepiece_tokenizer import SentencePieceTokenizer

VALUES = {
    "name": ["Emma", "Jane", "John"],
    "place": ["London", "Paris", "Rome"],
    "number": ["10", "11", "12"],
}


def memo_vocabulary() -> SentencePieceTokenizer:
    """As fledgling's, but small: the values above are one piece each, in notes and answers."""
    rows = [dict(zip(VALUES, row, strict=True)) for row in zip(*VALUES.values(), strict=True)]
    lines = [note_text(row) for row in rows]
    lines += [f"{question_text(field)} {row[field]}<end>" for row in rows for field in row]
    lines += ["It was late in the evening when the wind rose. There is no such note."]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines * 20),
        model_writer=model,
        vocab_size=480,
        hard_vocab_limit=False,
        model_type="bpe",
        byte_fallback=True,
        add_dummy_prefix=False,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        split_digits=False,
        character_coverage=1.0,
        user_defined_symbols=[
            *MARKS,
            *("\u2581" + word for words in VALUES.values() for word in words),
        ],
        num_threads=1,
        minloglevel=2,
    )
    return SentencePieceTokenizer(model.getvalue())


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model of random weights, bfloat16-free: what it says is the same everywhere."""
    tokenizer = memo_vocabulary()
    config = replace(griffin.PRESETS["tiny-griffin"], vocab=tokenizer.vocab_size)
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    griffin.save(LanguageModel(griffin.build(config, seed=3), tokenizer), folder)
    return folder


class Result(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    """Runs `griffin ARGUMENTS` with nothing on standard input, or with `stdin`."""
    from griffin_lm.cli.main import main

    def command(*arguments: object, stdin: bytes = b"") -> Result:
        monkeypatch.setattr(sys, "argv", ["griffin", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        monkeypatch.setenv("TERMINAL_WIDTH", "100")
        capfd.readouterr()
        with pytest.raises(SystemExit) as exit:
            main()
        out, err = capfd.readouterr()
        return Result(int(exit.value.code or 0), out, err)

    return command
