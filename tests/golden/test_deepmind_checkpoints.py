"""Checkpoints that DeepMind's package and real Orbax wrote give the logits of DeepMind's models.

Made by tests/golden/orbax_folders.py, which says where each file comes from. The weights have
bfloat16's values, so a file in bfloat16 holds the same model.
"""

import sys
import zipfile
from pathlib import Path

import pytest
import torch

from griffin_lm.checkpoints import detect, load_model, read_config
from griffin_lm.errors import ConfigError
from griffin_lm.models import Griffin
from tests.checkpoints.helpers import assert_same_tensors, tensors
from tests.golden.test_deepmind import CASES, DATA, TOLERANCE, golden, largest_difference, ours
from tests.parity import record_parity

FOLDERS = sorted(path.stem for path in DATA.glob("orbax-*.zip"))
FILES = ("deepmind-recurrentgemma.pt", "deepmind-griffin.pt")
EVERY = pytest.mark.parametrize("name", [*FILES, *FOLDERS])


def model_of(name: str) -> str:
    return name.removeprefix("deepmind-").removesuffix(".pt") if name in FILES else "recurrentgemma"


def placed(name: str, scratch: Path) -> Path:
    """The checkpoint: a file, or a folder laid out as in the published archives."""
    if name in FILES:
        return DATA / name
    with zipfile.ZipFile(DATA / f"{name}.zip") as archive:
        archive.extractall(scratch)
    return scratch


def known(model: Griffin) -> dict[str, object]:
    """What the shapes of its tensors cannot tell."""
    config = model.config
    window = next(m.window for m in config.pattern if m.kind == "local_attention")
    return {
        "window": window,
        "logit_cap": config.logit_cap,
        "scale_embeddings": config.scale_embeddings,
    }


@EVERY
def test_it_gives_the_golden_logits(name: str, tmp_path: Path) -> None:
    reference, batches = golden(model_of(name))
    model = load_model(
        placed(name, tmp_path), dtype=torch.float32, config=known(reference)
    ).requires_grad_(False)
    assert_same_tensors(tensors(model), tensors(reference))
    for case in CASES:
        batch = batches[case]
        error = largest_difference(ours(model, batch, [batch.tokens.shape[1]]), batch)
        record_parity(f"DeepMind's files | {name} | {case}, in one call", error, TOLERANCE)


@EVERY
def test_its_shapes_tell_the_config_but_for_what_they_cannot(name: str, tmp_path: Path) -> None:
    reference, _ = golden(model_of(name))
    path = placed(name, tmp_path)
    assert detect(path) == ("deepmind-torch" if name in FILES else "deepmind-flax")
    with pytest.raises(ConfigError, match="window, logit_cap, scale_embeddings"):
        read_config(path)
    found = read_config(path, config=known(reference))
    layers = range(reference.config.layers)
    assert [found.mixer(i) for i in layers] == [reference.config.mixer(i) for i in layers]
    assert found.to_dict() | {"pattern": 0} == reference.config.to_dict() | {"pattern": 0}


@pytest.mark.parametrize("name", FOLDERS)
def test_the_archives_folder_and_the_one_in_it_are_the_same(name: str, tmp_path: Path) -> None:
    reference, _ = golden("recurrentgemma")
    placed(name, tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(b"stands beside it in the published archives")
    for path in (tmp_path, tmp_path / "2b-it"):
        model = load_model(path, dtype=torch.float32, config=known(reference))
        assert_same_tensors(tensors(model), tensors(reference))
    assert "jax" not in sys.modules and "orbax" not in sys.modules


def test_there_are_both_layouts_of_then_and_now() -> None:
    kinds = {tuple(name.split("-")[1:]) for name in FOLDERS}
    for release in ("0.5.9", "0.12.8"):
        for layout in (("ocdbt", "float32"), ("zarr", "float32"), ("ocdbt", "bfloat16")):
            assert (release, *layout) in kinds
