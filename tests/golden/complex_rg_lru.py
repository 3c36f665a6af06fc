"""Makes tests/golden/data/complex-rg-lru.npz with DeepMind's RGLRU layer (JAX, only_real=False).

    oracle/bin/python tests/golden/complex_rg_lru.py [FOLDER]     # see deepmind.py for `oracle`

No released checkpoint has complex gates, and DeepMind's PyTorch code has no such layer. Each case
is one layer with random weights (biases, decays and phases too) in float32 on the CPU:

    about                    JSON: versions, the seed
    CASE/heads               blocks of the gates
    CASE/weights/NAME        by their Flax names: a_param, a_imag_param, input_gate/w, ...
    CASE/x                   (B, T, width): real parts, then imaginary ones
    CASE/segment_pos         (B, T) int64: position in the document, 0 starts one
    CASE/h0                  (B, width): the state before
    CASE/y                   (B, T, width), from h0, token by token

Why token by token, and with the scan type of their TPU kernel, which single steps never reach: in
float32 their other scan types keep native complex numbers, and where a state comes in they cast
them to the float32 of their accumulation (`get_acc_dtype`), which drops the imaginary parts. The
kernel's type has a complex class of its own, that is cast rightly. Without a state their native
scan in one call is right as well; both must agree (AGREEMENT) before anything is written.
"""

import argparse
import json
import math
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
from recurrentgemma import common
from recurrentgemma.jax import layers

AGREEMENT = 6e-6  # of single steps from a state of zeros with one call from no state
CASES: dict[str, dict[str, Any]] = {
    # lengths of documents, one row each; `goes_on`: the first one began before this call
    "fresh": {"width": 8, "heads": 1, "rows": [[1], [1]], "goes_on": False},
    "goes-on": {"width": 12, "heads": 3, "rows": [[37]], "goes_on": True},
    "packed": {"width": 32, "heads": 4, "rows": [[1, 2, 60], [30, 1, 32]], "goes_on": False},
    "packed-goes-on": {"width": 20, "heads": 2, "rows": [[9, 32], [40, 1]], "goes_on": True},
}


def random_weights(width: int, heads: int, random: np.random.Generator) -> dict[str, Any]:
    """Weights large enough that leaving one out shows; decays between 0.5 and 0.997 at rest."""
    half = width // 2
    shape = (heads, width // heads, half // heads)
    decay = 1 - 10 ** random.uniform(math.log10(0.003), math.log10(0.5), half)
    gates = {
        name: {
            "w": random.standard_normal(shape) / math.sqrt(shape[1]),
            "b": 0.2 * random.standard_normal((heads, half // heads)),
        }
        for name in ("input_gate", "a_gate")
    }
    raw = {
        "a_param": np.log(np.expm1(-np.log(decay) / 4)),
        "a_imag_param": random.uniform(-1.0, 1.0, half),  # turns both ways, to see the sign
        **gates,
    }
    return jax.tree.map(lambda value: np.asarray(value, np.float32), raw)


def make(case: dict[str, Any], random: np.random.Generator) -> dict[str, np.ndarray]:
    """The arrays of one case, or an end where their single steps disagree."""
    width, heads, rows = case["width"], case["heads"], case["rows"]
    stepping, whole = (
        layers.RGLRU(width=width, num_heads=heads, only_real=False, scan_type=kind)
        for kind in (common.ScanType.LINEAR_PALLAS, common.ScanType.LINEAR_NATIVE)
    )
    weights = random_weights(width, heads, random)
    length = sum(rows[0])
    x = random.standard_normal((len(rows), length, width)).astype(np.float32)
    h0 = random.standard_normal((len(rows), width)).astype(np.float32)
    positions = np.stack([np.concatenate([np.arange(n) for n in row]) for row in rows])
    if case["goes_on"]:
        for row, documents in enumerate(rows):
            positions[row, : documents[0]] += 5
    params = {"params": weights}
    inputs, places = jax.numpy.asarray(x), jax.numpy.asarray(positions)

    def steps(state: np.ndarray) -> np.ndarray:
        h, ys = jax.numpy.asarray(state), []
        for t in range(length):
            y, h = stepping.apply(params, inputs[:, t : t + 1], places[:, t : t + 1], h)
            ys.append(y)
        return np.concatenate(ys, 1)

    at_once, _ = whole.apply(params, inputs, places)
    off = np.abs(steps(np.zeros_like(h0)) - np.asarray(at_once)).max()
    if off > AGREEMENT:
        raise SystemExit(f"{case}: one call and single steps differ by {off:.1e}")
    flat = {
        "/".join(str(key.key) for key in path): value
        for path, value in jax.tree_util.tree_leaves_with_path(weights)
    }
    return {
        **{f"weights/{name}": value for name, value in flat.items()},
        "heads": np.array(heads),
        "x": x,
        "segment_pos": positions.astype(np.int64),
        "h0": h0,
        "y": steps(h0),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, nargs="?", default=Path(__file__).parent / "data")
    folder = parser.parse_args().folder
    seed = 2402_19427
    source = np.random.default_rng(seed)
    arrays = {
        f"{name}/{key}": value
        for name, case in CASES.items()
        for key, value in make(case, source).items()
    }
    packages = ("recurrentgemma", "jax", "flax", "numpy")
    about = {"versions": {name: version(name) for name in packages}, "seed": seed}
    np.savez_compressed(folder / "complex-rg-lru.npz", about=np.array(json.dumps(about)), **arrays)
    print(f"{len(CASES)} cases, {(folder / 'complex-rg-lru.npz').stat().st_size} bytes")
