"""The front door: every public name is listed, imports, and says what it is."""

import ast
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import griffin_lm as griffin

# A name joins or leaves this list together with a line in CHANGELOG.md.
PUBLIC = [
    "FORMATS",
    "Griffin",
    "GriffinError",
    "LanguageModel",
    "MIXERS",
    "ModelConfig",
    "PRESETS",
    "State",
    "__version__",
    "build",
    "load",
    "save",
]
PRESETS = [
    *("recurrentgemma-2b", "recurrentgemma-9b", "griffin-code-7b", "hawk-code-7b"),
    *(f"griffin-{size}" for size in ("100m", "200m", "400m", "1.3b", "3b", "7b", "14b")),
    *(f"hawk-{size}" for size in ("100m", "200m", "400m", "1.3b", "3b", "7b")),
    *(f"mqa-{size}" for size in ("100m", "200m", "400m", "1.3b", "3b", "6b")),
    *("gemma-2b", "gemma-7b"),
    *("llama-3-8b", "llama-3.1-8b", "llama-3.2-1b", "llama-3.2-3b"),
    *(f"{kind}-{size}" for kind in ("lru", "gru") for size in ("100m", "200m", "400m", "1.3b")),
    *(f"mamba-{size}" for size in ("130m", "370m", "790m", "1.4b", "2.8b")),
    *("tiny-lru", "tiny-gru", "tiny-mamba"),
    *("fledgling", "tiny-griffin", "tiny-hawk", "tiny-mqa", "tiny-gemma", "tiny-llama"),
]
MIXERS = ["rg_lru", "lru", "gru", "s6", "local_attention", "global_attention"]


def test_the_public_names_are_those_listed() -> None:
    assert sorted(griffin.__all__) == sorted(PUBLIC)
    assert sorted(dir(griffin)) == sorted(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_can_be_imported_and_explains_itself(name: str) -> None:
    thing = getattr(griffin, name)
    if callable(thing):
        assert thing.__doc__


def test_type_checkers_and_users_see_the_same_names() -> None:
    tree = ast.parse(Path(griffin.__file__).read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    typed = {alias.asname for node in block.body for alias in node.names}
    assert typed == set(PUBLIC) - {"__version__"}


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(AttributeError, match=r"no 'laod'; it has: .*load"):
        _ = griffin.laod


def test_presets_and_mixers_keep_their_names() -> None:
    assert set(PRESETS) <= set(griffin.PRESETS)
    assert set(MIXERS) <= set(griffin.MIXERS)


def test_the_version_is_that_of_the_installed_package() -> None:
    assert griffin.__version__ == version("griffin-lm")


def test_importing_the_package_does_not_import_torch() -> None:
    code = "import sys, griffin_lm; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
