"""Text to token files: every form of source, and everything malformed by file and line."""

import bz2
import gzip
import hashlib
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from griffin_lm.cli.main import app
from griffin_lm.errors import DataError
from griffin_lm.text import Tokenizer, Turn, encode_turns
from griffin_lm.training.data import known
from griffin_lm.training.data.check import check
from griffin_lm.training.data.prepare import prepare
from griffin_lm.training.data.prepared import open_shards

CHAT = [{"role": "user", "content": "Who goes there?"}, {"role": "assistant", "content": "A fox."}]


def jsonl(*rows: object) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def documents(folder: Path) -> list[list[int]]:
    shards = open_shards(folder)
    return [shards.read(n, 0, shards.size(n)).tolist() for n in range(len(shards))]


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress])
def test_every_row_and_every_text_becomes_a_document(
    tmp_path: Path, vocabulary: Tokenizer, pack: object
) -> None:
    end = {bytes: "", gzip.compress: ".gz", bz2.compress: ".bz2"}[pack]  # type: ignore[index]
    source = tmp_path / "source"
    (source / "b").mkdir(parents=True)
    rows = jsonl({"text": "One."}, {"messages": CHAT}, {"prompt": "2 + 2 =", "completion": " 4"})
    (source / f"a.jsonl{end}").write_bytes(pack(b"\xef\xbb\xbf" + rows + b"\n"))  # type: ignore[operator]
    (source / "b" / f"c.txt{end}").write_bytes(pack(b"Long ago\r\nin a wood."))  # type: ignore[operator]
    (source / "notes.md").write_text("passed over")
    index = prepare(source, vocabulary, tmp_path / "out")
    turns = [Turn(role="user", text="Who goes there?"), Turn(role="model", text="A fox.")]
    assert vocabulary.turn is not None and vocabulary.eos_id is not None
    chat = encode_turns(vocabulary, vocabulary.turn, turns, open_model=False)
    assert documents(tmp_path / "out") == [
        vocabulary.encode("One."),
        chat,
        [
            *vocabulary.encode("2 + 2 ="),
            *vocabulary.encode(" 4", bos=False, continues=True),
            vocabulary.eos_id,
        ],
        vocabulary.encode("Long ago\r\nin a wood."),
    ]
    assert index["documents"] == 4 and index["tokenizer"] == vocabulary.fingerprint
    assert (tmp_path / "out" / "tokenizer.model").exists()


def test_a_long_text_is_encoded_as_in_one_go(
    tmp_path: Path, vocabulary: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("griffin_lm.training.data.sources.PIECE", 7)
    text = "It was the best of times, it was the worst of times — ".replace(" ", "  ") * 5
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    prepare(tmp_path / "a.txt", vocabulary, tmp_path / "out")
    assert documents(tmp_path / "out") == [vocabulary.encode(text)]


def test_files_are_closed_past_a_number_of_tokens_and_read_as_one(
    tmp_path: Path, vocabulary: Tokenizer
) -> None:
    texts = [f"Line number {n}." for n in range(10)]
    (tmp_path / "a.jsonl").write_bytes(jsonl(*({"text": text} for text in texts)))
    index = prepare(tmp_path / "a.jsonl", vocabulary, tmp_path / "out", shard_tokens=20)
    assert len(index["files"]) > 2
    assert documents(tmp_path / "out") == [vocabulary.encode(text) for text in texts]


BAD = [
    (b"{nonsense", "not JSON"),
    (b"[1, 2]", "not a JSON object but list"),
    (b'{"body": "x"}', 'only "body"'),
    (b'{"text": 3}', "where a string should be"),
    (b'{"text": "\xff"}', "not UTF-8"),
    (b'{"text": "\\ud800"}', "lone surrogate"),
    (b'{"text": ""}', "no text"),
    (b'{"messages": []}', "not a list of turns"),
    (b'{"messages": ["hello"]}', "not an object"),
    (b'{"messages": [{"role": "wizard", "content": "x"}]}', "the role 'wizard'"),
    (b'{"turns": [{"role": "user"}]}', 'no "content"'),
    (b'{"prompt": "x"}', 'only "prompt"'),
    (b"[" * 100_000, "not JSON"),
]


@pytest.mark.parametrize(("line", "reason"), BAD, ids=[reason for _, reason in BAD])
def test_a_malformed_line_is_named_by_file_and_number(
    tmp_path: Path, vocabulary: Tokenizer, line: bytes, reason: str
) -> None:
    (tmp_path / "a.jsonl").write_bytes(jsonl({"text": "good"}) + b"\n" + line + b"\n")
    with pytest.raises(DataError, match=r"a\.jsonl, line 3: ") as caught:
        prepare(tmp_path / "a.jsonl", vocabulary, tmp_path / "out", max_bad=0)
    assert reason in str(caught.value)
    index = prepare(tmp_path / "a.jsonl", vocabulary, tmp_path / "out", max_bad=1)
    assert index["malformed_lines"] == 1 and "line 3" in index["malformed"][0]
    assert documents(tmp_path / "out") == [vocabulary.encode("good")]


def test_it_stops_at_the_first_line_past_the_limit(tmp_path: Path, vocabulary: Tokenizer) -> None:
    (tmp_path / "a.jsonl").write_bytes(jsonl({"text": "good"}) + b"bad\n" * 50)
    with pytest.raises(DataError, match="more than 7 malformed lines") as caught:
        prepare(tmp_path / "a.jsonl", vocabulary, tmp_path / "out", max_bad=7)
    assert "line 2:" in str(caught.value) and "line 9:" in str(caught.value)
    with pytest.raises(DataError, match=r"not finished|no token files"):
        open_shards(tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.jsonl", b"", "is empty"),
        ("a.txt", b"", "is empty"),
        ("a.txt.gz", gzip.compress(b"", mtime=0), "no document"),
        ("a.jsonl", b"\n\n", "no document"),
        ("a.txt", b"ab\xffcd", "not UTF-8"),
        ("a.txt.gz", gzip.compress(b"x" * 9999, mtime=0)[:-9], "cannot be read to its end"),
        ("a.jsonl.gz", b"not packed at all", "cannot be read to its end"),
        ("a.txt.bz2", bz2.compress(b"x" * 9999)[:-9], "cannot be read to its end"),
        ("a.pdf", b"%PDF", r"not a \.txt or \.jsonl"),
    ],
)
def test_a_source_that_cannot_be_used_is_named(
    tmp_path: Path, vocabulary: Tokenizer, name: str, data: bytes, reason: str
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=rf"{name}.*{reason}"):
        prepare(tmp_path / name, vocabulary, tmp_path / "out")


def test_prepared_text_is_never_overwritten(tmp_path: Path, vocabulary: Tokenizer) -> None:
    (tmp_path / "a.txt").write_text("Once.")
    prepare(tmp_path / "a.txt", vocabulary, tmp_path / "out")
    with pytest.raises(DataError, match="holds prepared text already"):
        prepare(tmp_path / "a.txt", vocabulary, tmp_path / "out")


def test_what_a_killed_run_left_is_refused_and_then_replaced(
    tmp_path: Path, vocabulary: Tokenizer
) -> None:
    (tmp_path / "a.txt").write_text("Once.")
    out = tmp_path / "out"
    prepare(tmp_path / "a.txt", vocabulary, out)
    whole = sorted(path.name for path in out.iterdir())
    (out / "index.json").unlink()
    (out / "00001.tokens").write_bytes((out / "00000.tokens").read_bytes())
    (out / ".00002.tokens.x1y2").write_bytes(b"half")
    with pytest.raises(DataError, match="was not finished"):
        open_shards(out)
    prepare(tmp_path / "a.txt", vocabulary, out)
    assert sorted(path.name for path in out.iterdir()) == whole
    assert documents(out) == [vocabulary.encode("Once.")]


def test_a_folder_whose_file_was_changed_or_lost_is_refused(
    tmp_path: Path, vocabulary: Tokenizer
) -> None:
    for name in ("one", "other"):
        (tmp_path / f"{name}.txt").write_text(f"The {name} text.")
        prepare(tmp_path / f"{name}.txt", vocabulary, tmp_path / name)
    assert check(tmp_path / "one")["documents"] == 1
    file = tmp_path / "one" / "00000.tokens"
    whole = file.read_bytes()
    file.write_bytes((tmp_path / "other" / "00000.tokens").read_bytes())
    with pytest.raises(DataError, match=r"not the file that index\.json names"):
        check(tmp_path / "one")
    file.write_bytes(whole[:-1] + b"\1")
    with pytest.raises(DataError, match="damaged"):
        check(tmp_path / "one")
    file.unlink()
    with pytest.raises(DataError, match=r"00000\.tokens: cannot be read"):
        check(tmp_path / "one")
    (tmp_path / "one" / "index.json").write_text('{"format": "griffin-lm tokens", "files": [3]}')
    with pytest.raises(DataError, match=r"index\.json: damaged"):
        check(tmp_path / "one")


def test_a_known_file_is_told_by_its_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "enwik8"
    path.write_bytes(b"abc")
    with pytest.raises(DataError, match=r"enwik8.*100,000,000 bytes"):
        check(path)
    entry = known.Known("three letters", "abc", 3, hashlib.sha256(b"abc").hexdigest())
    monkeypatch.setattr(known, "KNOWN", (*known.KNOWN, entry))
    assert "three letters" in check(path)["line"]


def test_the_commands_prepare_and_verify(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(jsonl({"text": "Once."}) + b"bad\n")
    out, figures = tmp_path / "out", tmp_path / "figures.json"
    arguments = ["data", "prepare", str(tmp_path / "a.jsonl"), "--tokenizer", "fledgling"]
    run = CliRunner().invoke(app, [*arguments, "--out", str(out), "--json", str(figures)])
    assert run.exit_code == 0, run.output
    assert "1 documents" in run.output and "line 2" in run.output
    assert json.loads(figures.read_text())["malformed_lines"] == 1
    run = CliRunner().invoke(app, ["data", "verify", str(out)])
    assert run.exit_code == 0 and "whole: 1 documents" in run.output
