"""The page on adding a kernel quotes lines that are there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "adding-a-kernel.md").read_text()
FOLDER = ROOT / "src" / "griffin_lm" / "ops" / "rg_lru"
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_what_is_quoted_stands_in_the_folder(block: str) -> None:
    sources = [path.read_text() for path in FOLDER.glob("*.py")]
    assert any(block in source for source in sources), block


def test_the_table_names_every_file_of_the_folder_that_a_kernel_has_to_do_with() -> None:
    named = set(re.findall(r"^\| `(\w+\.py)` \|", PAGE, re.MULTILINE))
    assert named == {path.name for path in FOLDER.glob("*.py")} - {"complex_gated.py"}


def test_the_tests_that_it_names_exist() -> None:
    for name in re.findall(r"`((?:tests|src)/[\w/.]+)`", PAGE):
        assert (ROOT / name).exists(), name
