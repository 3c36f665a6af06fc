"""Makes golden checkpoints with DeepMind's package and real Orbax, and lets them read ours.

    python -m venv oracle
    oracle/bin/pip install '.[oracle,deepmind]'              # recurrentgemma 1.0.1, jax, orbax
    oracle/bin/python tests/golden/orbax_folders.py make     # into data, beside this file
    oracle/bin/python tests/golden/orbax_folders.py verify   # what our writers write

Packages of the days when the weights were published, for the layouts that they wrote:

    oracle/bin/pip install jax==0.4.26 jaxlib==0.4.26 flax==0.8.3 orbax-checkpoint==0.5.9 'numpy<2'

The tests need none of it: they read the files. Each is the tiny model of data/deepmind-NAME.npz,
whose logits are there, saved by other people's code:

    deepmind-NAME.pt                   torch.save of their PyTorch model's state_dict
    orbax-VERSION-LAYOUT-DTYPE.zip     a folder of Orbax, in a zip file to keep it small; LAYOUT is
                                       ocdbt (their save_parameters, wrapped in "params") or zarr
                                       (the older one: a folder for each array)

`verify` saves the same models by griffin-lm, restores them by Orbax and by DeepMind's loaders, and
compares every tensor and the logits of their models, which must be equal to the bit.
"""

import argparse
import json
import tempfile
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint
import torch
from recurrentgemma import common, conversion
from recurrentgemma import jax as theirs_jax
from recurrentgemma import torch as theirs
from recurrentgemma.jax import utils

DATA = Path(__file__).parent / "data"
IN_TORCH = ("recurrentgemma", "griffin")  # the second ends in attention
IN_ORBAX = "recurrentgemma"
BLOCKS = {"R": common.TemporalBlockType.RECURRENT, "A": common.TemporalBlockType.ATTENTION}


def golden(name: str) -> tuple[common.GriffinConfig, dict[str, torch.Tensor], dict[str, Any]]:
    """Config and weights of a golden model, and everything in its file."""
    with np.load(DATA / f"deepmind-{name}.npz") as file:
        stored = {key: file[key] for key in file.files}
    model = json.loads(str(stored["config"]))
    config = common.GriffinConfig(
        vocab_size=model["vocab"],
        width=model["width"],
        mlp_expanded_width=model["mlp_width"],
        num_heads=model["heads"],
        block_types=tuple(BLOCKS[letter] for letter in model["pattern"]),
        embeddings_scale_by_sqrt_dim=model["scaled"],
        attention_window_size=model["window"],
        logits_soft_cap=model["cap"],
        lru_width=model["lru_width"],
        scan_type=common.ScanType.LINEAR_NATIVE,
    )
    weights = {
        key.removeprefix("weights/"): torch.tensor(value)
        for key, value in stored.items()
        if key.startswith("weights/")
    }
    return config, weights, stored


def flax_params(weights: dict[str, torch.Tensor], dtype: Any) -> dict[str, Any]:
    """The tree that their converter makes, without "params"."""
    wrapped = {f"params.{name}": tensor for name, tensor in weights.items()}
    tree = conversion.pytorch_state_dict_to_flax_params(wrapped)["params"]
    return jax.tree_util.tree_map(lambda leaf: leaf.astype(dtype), tree)


def torch_logits(config: common.GriffinConfig, state: dict[str, Any], stored: Any) -> np.ndarray:
    """What their PyTorch model makes of the case "long"."""
    model = theirs.Griffin(config, gradient_checkpointing=False)
    model.load_state_dict(state, strict=True)
    tokens, positions = (torch.tensor(stored[f"long/{key}"]) for key in ("tokens", "segment_pos"))
    with torch.no_grad():
        return model(tokens, positions)[0].numpy()


def jax_logits(config: common.GriffinConfig, params: Any, stored: Any) -> np.ndarray:
    """What their JAX model makes of the case "long"."""
    model = theirs_jax.Griffin(config, gradient_checkpointing=False)
    tokens, positions = (
        jax.numpy.asarray(stored[f"long/{key}"]) for key in ("tokens", "segment_pos")
    )
    return np.asarray(model.apply({"params": params}, tokens, positions)[0])


def make(folder: Path) -> None:
    """Writes the golden files."""
    for name in IN_TORCH:
        config, weights, _ = golden(name)
        model = theirs.Griffin(config, gradient_checkpointing=False)
        model.load_state_dict(weights, strict=True)
        torch.save(model.state_dict(), folder / f"deepmind-{name}.pt")
    _, weights, _ = golden(IN_ORBAX)
    for layout, dtype in (("ocdbt", "float32"), ("zarr", "float32"), ("ocdbt", "bfloat16")):
        params = flax_params(weights, dtype)
        title = f"orbax-{version('orbax-checkpoint')}-{layout}-{dtype}"
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "2b-it"
            if layout == "ocdbt":
                utils.save_parameters(str(path), params)
            else:
                handler = orbax.checkpoint.PyTreeCheckpointHandler(use_ocdbt=False)
                orbax.checkpoint.Checkpointer(handler).save(path, params)
            with zipfile.ZipFile(folder / f"{title}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
                for file in sorted(path.rglob("*")):
                    if file.name == "commit_success.txt":  # says where it was made
                        continue
                    archive.write(file, file.relative_to(scratch))
        print(title, (folder / f"{title}.zip").stat().st_size, "bytes")


def verify() -> None:
    """Raises where Orbax or DeepMind's package reads something else than we were given."""
    import griffin_lm as griffin
    from griffin_lm.checkpoints import load_model

    for name in ("recurrentgemma", "griffin", "hawk", "attention"):
        config, weights, stored = golden(name)
        known = {
            "window": config.attention_window_size,
            "logit_cap": config.logits_soft_cap,
            "scale_embeddings": config.embeddings_scale_by_sqrt_dim,
        }
        with tempfile.TemporaryDirectory() as scratch:
            source = Path(scratch) / "source.pt"
            torch.save(weights, source)
            for dtype in (torch.float32, torch.bfloat16):
                model = load_model(source, config=known, dtype=dtype)
                folder = Path(scratch) / str(dtype)
                griffin.save(model, folder / "torch", "deepmind-torch")
                state = torch.load(folder / "torch" / "torch.pt", weights_only=True)
                for key, tensor in weights.items():
                    assert torch.equal(state.pop(key), tensor.to(dtype)), key
                assert not state
                griffin.save(model, folder / "flax", "deepmind-flax")
                params = flax_params(weights, str(dtype).removeprefix("torch."))
                for loader, found in restored(folder / "flax" / "checkpoint"):
                    jax.tree_util.tree_map(_same, found, params)
                    if dtype == torch.float32:
                        _same(jax_logits(config, found, stored), jax_logits(config, params, stored))
                    print(f"{name}, {dtype}: {loader} restores our folder, equal to the bit")
            logits = torch_logits(config, torch.load(source, weights_only=True), stored)
            _same(logits, stored["long/logits"])
            print(f"{name}: their PyTorch model loads our .pt and gives the golden logits")


def restored(path: Path) -> list[tuple[str, Any]]:
    """A folder of ours as Orbax and as DeepMind's loader see it."""
    orbax_version = version("orbax-checkpoint")
    checkpointer = orbax.checkpoint.PyTreeCheckpointer()
    found = [(f"Orbax {orbax_version}", checkpointer.restore(str(path)))]
    config = common.GriffinConfig.from_flax_params_or_variables(found[0][1])
    assert config.num_layers == sum(key.startswith("blocks.") for key in found[0][1])
    if isinstance(checkpointer.metadata(str(path)), dict):
        loaded = utils.load_parameters(str(path), "single_device")
        found.append((f"recurrentgemma.load_parameters on Orbax {orbax_version}", loaded))
    else:  # their loader takes Orbax's metadata for a tree, which it no longer is
        print(f"recurrentgemma.load_parameters reads nothing at all with Orbax {orbax_version}")
    return found


def _same(one: Any, other: Any) -> None:
    one, other = np.asarray(one), np.asarray(other)
    assert one.dtype == other.dtype and one.shape == other.shape
    assert one.tobytes() == other.tobytes()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=("make", "verify"))
    parser.add_argument("folder", type=Path, nargs="?", default=DATA)
    given = parser.parse_args()
    if given.what == "make":
        make(given.folder)
    else:
        verify()
