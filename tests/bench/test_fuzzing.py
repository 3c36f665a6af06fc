"""Fuzzing finds what is planted, blames the right input, and finds nothing in the readers."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from griffin_lm.bench.reliability import READERS, repeat
from griffin_lm.bench.reliability.fuzzing import Fuzzing, Row
from griffin_lm.bench.reliability.reader import Reader, make_input, read_files
from griffin_lm.errors import GriffinError, InputError
from tests.bench import planted

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="memory is limited and measured through /proc"
)
INPUTS, SEED = 20, 73


def faulty_inputs(reader: Reader, folder: Path) -> list[int]:
    """The numbers of the inputs that hold the planted byte."""
    reader.make(folder)
    good = {path.name: read_files(path) for path in folder.iterdir()}
    numbers = range(INPUTS)
    return [n for n in numbers if planted.as_good(make_input(reader, good, SEED, n).files)]


KINDS = {
    "crash": "crash: SIGABRT",
    "grow": "memory: MemoryError",
    "swallow": "memory: taken for damage",
    "escape": "another error: ZeroDivisionError",
    "silent": "the message names no file, or is endless",
    "half": "half-built: AssertionError",
    "unnoticed": "damage went unnoticed",
    "hang": "hang",
}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Row], Path]:
    """The rows of one run over readers with a fault each, and where the failures are kept."""
    readers = {name: planted.planted(name, exact=name == "unnoticed") for name in KINDS}
    kept = tmp_path_factory.mktemp("failures")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("griffin_lm.bench.reliability.crew.LONGEST_CPU", 1.0)
        rows = Fuzzing(readers, SEED, 1, kept).run(INPUTS * len(readers))
    return {row.reader: row for row in rows}, kept


@pytest.mark.parametrize("fault", KINDS)
def test_a_planted_fault_is_found_and_the_input_named(
    fault: str, found: tuple[dict[str, Row], Path], tmp_path: Path
) -> None:
    row, kept = found[0][fault], found[1]
    wanted = faulty_inputs(planted.planted(fault), tmp_path / "good")
    assert wanted, "the seed draws the byte at least once"
    assert sorted(failure["input"] for failure in row.failures) == wanted
    assert {failure["kind"] for failure in row.failures} == {KINDS[fault]}
    assert row.refused + row.loaded + len(row.failures) == row.inputs == INPUTS
    for number in wanted:
        folder = kept / f"{fault}-{SEED}-{number}"
        assert (folder / "input" / "byte").read_bytes()[0] == planted.FAULTY
        facts = json.loads((folder / "failure.json").read_text())
        assert facts["repeat"] == f"griffin bench reliability --repeat {folder}"
        assert facts["kind"] == KINDS[fault] and facts["details"]


def test_a_kept_input_fails_again_when_it_is_repeated(
    found: tuple[dict[str, Row], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "griffin_lm.bench.reliability.READERS", {"escape": planted.planted("escape")}
    )
    kept = next(path for path in found[1].iterdir() if path.name.startswith("escape"))
    [failure] = repeat(kept)
    assert failure["kind"] == KINDS["escape"]
    assert "ZeroDivisionError" in failure["details"]
    shutil.copytree(kept, tmp_path / "mended")
    (tmp_path / "mended" / "input" / "byte").write_bytes(b"\x01")
    assert repeat(tmp_path / "mended") == []
    with pytest.raises(InputError, match="no folder of a failing input"):
        repeat(tmp_path)


def test_an_input_during_which_somebody_stopped_the_worker_is_tried_again(tmp_path: Path) -> None:
    reader = planted.planted("stop")
    assert faulty_inputs(reader, tmp_path / "good")
    [row] = Fuzzing({"stop": reader}, SEED, 1).run(INPUTS)
    assert row.failures == [] and row.refused + row.loaded == INPUTS


def test_a_worker_that_cannot_start_ends_the_run_with_its_last_words() -> None:
    broken = planted.planted("slow")
    reader = Reader(**(vars(broken) | {"use": print_nothing_and_fail}))
    with pytest.raises(GriffinError, match=r"before it read anything(.|\n)*cannot be used"):
        Fuzzing({"slow": reader}, 1, 1).run(5)


def print_nothing_and_fail(result: object) -> None:
    """The good files themselves fail."""
    raise RuntimeError("cannot be used")


def test_inputs_are_a_function_of_reader_seed_and_number(tmp_path: Path) -> None:
    for name in ("config", "tokenizer-sentencepiece"):
        reader = READERS[name]
        goods: list[dict[str, dict[str, bytes]]] = []
        for take in ("one", "two"):
            reader.make(tmp_path / name / take)
            folders = sorted((tmp_path / name / take).iterdir())
            goods.append({folder.name: read_files(folder) for folder in folders})
        assert goods[0] == goods[1], "good files are the same every time"
        made = [make_input(reader, goods[0], 5, number) for number in range(30)]
        assert made == [make_input(reader, goods[1], 5, number) for number in range(30)]
        assert made != [make_input(reader, goods[0], 6, number) for number in range(30)]
        assert len({json.dumps([*map(repr, one.files.items())]) for one in made}) > 20


def test_a_reader_whose_package_is_missing_is_left_out_and_named() -> None:
    absent = Reader(**(vars(planted.planted("slow")) | {"package": "no_such_package"}))
    run = Fuzzing({"slow": absent}, 0, 1)
    assert run.absent == {"slow": "no_such_package"} and run.readers == {}


def assert_sound(rows: list[Row], inputs: int) -> None:
    """No failure, and inputs of both kinds for every reader."""
    assert [failure for row in rows for failure in row.failures] == []
    assert sum(row.inputs for row in rows) == inputs
    for row in rows:
        assert row.refused + row.loaded == row.inputs
        assert row.refused > row.inputs / 3, f"{row.reader}: damage is hardly ever noticed"
        assert row.loaded > 0, f"{row.reader}: nothing ever loads, so little of it is read"
        assert row.memory_share < 1 and row.slowest_seconds < 10


@pytest.mark.slow
def test_a_few_hundred_damaged_files(tmp_path: Path) -> None:
    inputs = 50 * len(READERS)
    run = Fuzzing(READERS, 11, 1, tmp_path)
    assert_sound(run.run(inputs), inputs)


@pytest.mark.slow
def test_twenty_thousand_damaged_files(tmp_path: Path) -> None:
    run = Fuzzing(READERS, 12, 2, tmp_path)
    assert_sound(run.run(20_000), 20_000)
