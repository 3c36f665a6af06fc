"""`griffin demo` on a tiny model of random weights: every step happens, and answers are judged."""

import json

import pytest

from griffin_lm.cli import demo
from griffin_lm.errors import InputError
from tests.cli.conftest import VALUES

QUICK = ("--dtype", "float32", "--device", "cpu")


@pytest.fixture
def book(tmp_path):
    path = tmp_path / "book.txt"
    path.write_text("It was late in the evening when the wind rose. " * 40)
    return path


def test_the_whole_demo(run, checkpoint, book, tmp_path) -> None:
    files = ("--save-state", tmp_path / "state", "--json", tmp_path / "json")
    result = run("demo", "--model", checkpoint, "--book", book, "--name", "Jane", *files, *QUICK)
    assert result.code == 0, result.err
    figures = json.loads((tmp_path / "json").read_text())
    assert figures["note"]["name"] == "Jane" and figures["note"]["place"] in VALUES["place"]
    assert "<note>The name is Jane, the place is" in result.out
    assert figures["gemma_2b_cache_bytes"] == 18432 * figures["tokens_read"]
    assert figures["tokens_since_the_note"] > 400
    assert f"{figures['tokens_read']:,}" in result.out
    assert result.out.count(f"{figures['state_bytes']:,} B") == 1  # one line: a short book
    assert (tmp_path / "state").exists()
    for field, answer in figures["answers"].items():
        right = f"{answer} ".startswith(f"{figures['note'][field]} ")
        line = next(line for line in result.out.splitlines() if line.startswith(f"  {field} "))
        assert line.rstrip().endswith("right") == right
    assert "A new process opens it" in result.out and "griffin generate" in result.out


def test_a_value_that_was_not_trained_is_warned_of(run, checkpoint, book, monkeypatch) -> None:
    monkeypatch.setattr(demo, "ask", lambda *_: "Jane")
    result = run("demo", "--model", checkpoint, "--book", book, "--name", "Zarathustra", *QUICK)
    assert result.code == 0
    assert "warning: 'Zarathustra' is not among" in result.err


def test_the_same_seed_draws_the_same_note(checkpoint) -> None:
    import griffin_lm as griffin

    lm = griffin.load(checkpoint)
    empty = dict.fromkeys(VALUES)
    notes = [demo.choose_note(lm, empty, seed) for seed in (1, 1, 2, 3)]
    assert notes[0] == notes[1]
    assert len({tuple(note.values()) for note in notes}) > 1


def test_it_reads_as_far_as_every_field_was_remembered_and_16k_at_least() -> None:
    good, bad = {"name": 0.95, "place": 1.0}, {"name": 0.95, "place": 0.2}
    assert demo.reach({}) == 16384
    assert demo.reach({1024: good}) == 16384
    assert demo.reach({16384: good, 65536: good, 131072: bad}) == 65536


def test_recall_is_read_as_a_table_or_as_evaluate_writes_it(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(demo, "BUNDLE", tmp_path)
    assert demo.measured_recall() == {}
    file = tmp_path / "recall.json"
    file.write_text('{"distances": {"4096": {"name": 0.9, "place": 1.0}}}')
    assert demo.measured_recall() == {4096: {"name": 0.9, "place": 1.0}}
    cell = {"distance": 64, "field": "name", "n": 8, "right": 6, "share": 0.75}
    cells = [cell | {"noted": True}, cell | {"noted": False, "share": 1.0}]
    file.write_text(json.dumps({"recall": cells}))
    assert demo.measured_recall() == {64: {"name": 0.75}}
    file.write_text("{nonsense")
    with pytest.raises(InputError, match="damaged"):
        demo.measured_recall()


def test_the_recall_shown_is_that_measured_nearest(capsys) -> None:
    note = {"name": "Jane"}
    recall = {4096: {"name": 0.99}, 16384: {"name": 0.91}}
    report = demo.compare(note, {"name": "John"}, recall, 15000)
    said = capsys.readouterr().out
    assert report == {"distance": 16384, "name": 0.91}
    assert "wrong: the note says Jane" in said and "0.91" in said
    demo.compare(note, {"name": "Jane"}, {}, 15000)
    said = capsys.readouterr().out
    assert "right" in said and "not measured" in said


def test_the_bundled_book_is_long_enough_for_the_promise() -> None:
    text = demo.read_text(None)
    assert len(text) > 16384 * 4  # fledgling's pieces have about three characters
    assert "\r" not in text and "<" not in text
