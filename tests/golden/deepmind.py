"""Makes the golden logits in tests/golden/data with DeepMind's published package.

    python -m venv oracle
    oracle/bin/pip install '.[oracle]'                  # recurrentgemma 1.0.1, jax and flax
    oracle/bin/python tests/golden/deepmind.py [FOLDER] # default: data, beside this file

The tests do not need any of it: they read the files. Each file holds one tiny model with random
weights, all of them (biases, norms and decays too), and what DeepMind's PyTorch model makes of a
few batches, in float32 on the CPU:

    config                   JSON: DeepMind's names of the configuration
    about                    JSON: versions, and how well their own code agrees with itself
    weights/NAME             float32, by their PyTorch names, in their shapes
    CASE/tokens              (B, T) int64
    CASE/segment_pos         (B, T) int64: position in the document, 0 starts one, -1 is padding
    CASE/prompt              how many of the T tokens were read in one call; then one at a time
    CASE/logits              (B, T, vocab) float32; rubbish where segment_pos is -1

Why the PyTorch model: DeepMind's JAX model keeps the raw last three inputs as the state of its
convolution. Where fewer than three tokens were prefilled (with their sampler, which steps the last
token of a prompt, prompts of at most three) left padding leaks into the first decoding steps: up to
0.8 on these models. After a packed row whose last document is that short, its predecessor leaks the
same way. Their PyTorch model zeroes those inputs and is right. So that no such slip becomes golden,
every case is made three times before it is written, in steps, in one call, and each document alone
without padding, and the three must agree up to rounding (AGREEMENT). Where cases differ in kind
(IN_JAX), prompts are compared with their JAX model too.

Weights are rounded to bfloat16's values (stored as float32), which halves the files.
"""

import argparse
import json
import math
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import torch
from recurrentgemma import common, conversion
from recurrentgemma import jax as theirs_jax
from recurrentgemma import torch as theirs

AGREEMENT = 6e-6  # of their own forms with each other, in fp32; the tests allow 2e-5

MODELS: dict[str, dict[str, Any]] = {
    # Widths whose root bfloat16 can't hold (24, 20) show whether the embedding's factor is rounded;
    # caps of a few units show whether the cap is there at all.
    "recurrentgemma": {
        **{"pattern": "RRARRA", "width": 24, "lru_width": 32, "mlp_width": 40, "heads": 2},
        **{"window": 8, "cap": 30.0, "scaled": True},
    },
    "griffin": {
        **{"pattern": "RARA", "width": 16, "lru_width": 16, "mlp_width": 48, "heads": 1},
        **{"window": 5, "cap": 0.0, "scaled": False},
    },
    "narrow-recurrence": {
        **{"pattern": "RRARR", "width": 32, "lru_width": 24, "mlp_width": 32, "heads": 4},
        **{"window": 7, "cap": 5.0, "scaled": False},
    },
    "hawk": {
        **{"pattern": "RRR", "width": 20, "lru_width": 28, "mlp_width": 60, "heads": 4},
        **{"window": 8, "cap": 0.0, "scaled": True},
    },
    "attention": {
        **{"pattern": "AA", "width": 16, "lru_width": 16, "mlp_width": 32, "heads": 2},
        **{"window": 3, "cap": 4.0, "scaled": True},
    },
}
VOCAB = 48
IN_JAX = ("long", "packed", "left-padded")  # each shape compiles anew: ten seconds
WAYS_OUT = ("linear_out.weight", "proj_final.weight", "ffw_down.weight")
BLOCKS = {"R": common.TemporalBlockType.RECURRENT, "A": common.TemporalBlockType.ATTENTION}


class Case(NamedTuple):
    """A batch: (B, T) tokens and positions, and how many of the T are the prompt."""

    tokens: np.ndarray
    segment_pos: np.ndarray
    prompt: int


def their_config(model: dict[str, Any]) -> common.GriffinConfig:
    """DeepMind's configuration of a row of MODELS."""
    return common.GriffinConfig(
        vocab_size=VOCAB,
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


def random_weights(shapes: dict[str, torch.Size], blocks: int, seed: int) -> dict[str, np.ndarray]:
    """Weights for these names, large enough everywhere that leaving one out shows."""
    random = np.random.default_rng(seed)
    weights = {}
    for name, shape in sorted(shapes.items()):
        kind = name.rsplit(".", 1)[1]
        if kind == "a_param":
            # decays between 0.5 and 0.997 where the gate is half open: a = exp(-4 softplus(it));
            # nearer to 1 the difference 1 - a^2 loses more of fp32 than the tests allow
            decay = 1 - 10 ** random.uniform(math.log10(0.003), math.log10(0.5), shape)
            value = np.log(np.expm1(-np.log(decay) / 4))
        elif kind == "scale":
            value = 0.3 * random.standard_normal(shape)
        elif kind in ("b", "bias"):
            value = 0.2 * random.standard_normal(shape)
        elif name.endswith("conv_1d.w"):
            value = 0.5 * random.standard_normal(shape)
        else:
            inputs = shape[-1] if kind in ("weight", "input_embedding") else shape[-2]
            value = random.standard_normal(shape) / math.sqrt(inputs)
            if name.endswith(WAYS_OUT):  # as in their initialisation; else rounding is amplified
                value *= math.sqrt(2 / blocks)
        weights[name] = torch.tensor(value).bfloat16().float().numpy()
    return weights


def cases(window: int, seed: int) -> dict[str, Case]:
    """The batches. Padding has random token ids: what is padding, segment_pos alone says."""
    random = np.random.default_rng(seed)

    def case(rows: list[list[int]], prompt: int) -> Case:
        """One row per list of lengths of documents; filled up by padding at its left."""
        length = max(sum(row) for row in rows)
        positions = [
            np.concatenate([np.full(length - sum(row), -1), *(np.arange(n) for n in row)])
            for row in rows
        ]
        tokens = random.integers(0, VOCAB, (len(rows), length))
        return Case(tokens, np.stack(positions), prompt)

    steps = 8
    long = 4 * window + 3
    # `left` of the last document is what is left for single steps, so it ends with `steps` more
    packed = [[1, 2, 3, 2 * window + 1, 4, 2 + steps], [window + 2, window, 1, 2 + steps]]
    packed[1][0] += sum(packed[0]) - sum(packed[1])
    return {
        "long": case([[long], [long]], long),
        "packed": case(packed, sum(packed[0]) - steps),
        "packed-ends-long": case([[2, 1, 2 * window + steps]], 3 + 2 * window),
        # prompts of 1, 2, 3 and 4 tokens, a few about the window, and no padding at all
        "left-padded": case(
            [[n + steps] for n in (1, 2, 3, 4, window, window + 1, 2 * window + 5)], 2 * window + 5
        ),
        "steps-from-one": case([[1 + window + steps]], 1),
        "steps-before-window": case([[window - 1 + steps]], window - 1),
        "steps-at-window": case([[window + steps]], window),
        "steps-after-window": case([[window + 1 + steps]], window + 1),
        "steps-far-beyond": case([[long + steps]], long),
    }


def run(model: theirs.Griffin, case: Case) -> np.ndarray:
    """Logits (B, T, vocab): the prompt in one call, then the rest token by token."""
    tokens = torch.tensor(case.tokens)
    segment_pos = torch.tensor(case.segment_pos)
    logits, cache = model(tokens[:, : case.prompt], segment_pos[:, : case.prompt])
    pieces = [logits]
    for t in range(case.prompt, tokens.shape[1]):
        logits, cache = model(tokens[:, t : t + 1], segment_pos[:, t : t + 1], cache)
        pieces.append(logits)
    return torch.cat(pieces, dim=1).numpy()


def documents(case: Case) -> list[tuple[int, int, int]]:
    """Row, begin and end of each document of a batch."""
    found = []
    for row, positions in enumerate(case.segment_pos):
        begins = [*np.flatnonzero(positions == 0), len(positions)]
        found += [(row, *pair) for pair in pairwise(begins)]
    return found


def disagreement(model: theirs.Griffin, case: Case, in_jax: Any = None) -> dict[str, float]:
    """The largest differences of their logits to those of their other forms.

    in_jax: their JAX model as a function of tokens and positions, if it is to be asked as well.
    """
    logits = run(model, case)
    real = case.segment_pos >= 0
    whole = run(model, case._replace(prompt=case.tokens.shape[1]))
    alone = [
        np.abs(
            run(model, Case(case.tokens[r : r + 1, b:e], case.segment_pos[r : r + 1, b:e], e - b))
            - logits[r : r + 1, b:e]
        ).max()
        for r, b, e in documents(case)
    ]
    found = {
        "one call": float(np.abs(whole - logits)[real].max()),
        "each document alone": float(max(alone)),
    }
    if in_jax is not None:
        prompt = [jax.numpy.asarray(array[:, : case.prompt]) for array in case[:2]]
        off = np.abs(np.asarray(in_jax(*prompt)) - logits[:, : case.prompt])
        found["their JAX model, prompt"] = float(off[real[:, : case.prompt]].max())
    return found


def make(name: str, folder: Path, seed: int) -> None:
    """Writes one model's file, or raises where their own forms disagree."""
    described = MODELS[name]
    config = their_config(described)
    model = theirs.Griffin(config, gradient_checkpointing=False)
    shapes = {key: value.shape for key, value in model.state_dict().items()}
    weights = random_weights(shapes, len(model.blocks), seed)
    state = {key: torch.tensor(value) for key, value in weights.items()}
    model.load_state_dict(state, strict=True)
    flax = theirs_jax.Griffin(config, gradient_checkpointing=False)
    params = conversion.pytorch_state_dict_to_flax_params(
        {f"params.{key}": value for key, value in state.items()}
    )
    in_jax = jax.jit(lambda tokens, positions: flax.apply(params, tokens, positions)[0])
    arrays = {f"weights/{key}": value for key, value in weights.items()}
    agreement = {}
    for title, case in cases(described["window"], seed + 1).items():
        agreement[title] = disagreement(model, case, in_jax if title in IN_JAX else None)
        if max(agreement[title].values()) > AGREEMENT:
            raise SystemExit(f"{name}, {title}: their own forms disagree: {agreement[title]}")
        for key, value in case._asdict().items():
            arrays[f"{title}/{key}"] = np.asarray(value)
        arrays[f"{title}/logits"] = run(model, case)
    packages = ("recurrentgemma", "torch", "jax", "flax", "numpy")
    about = {
        "versions": {package: version(package) for package in packages},
        "seed": seed,
        "largest difference between their own forms": agreement,
    }
    arrays["config"] = np.array(json.dumps({"vocab": VOCAB, **described}))
    arrays["about"] = np.array(json.dumps(about))
    path = folder / f"deepmind-{name}.npz"
    np.savez_compressed(path, **arrays)
    largest = max(np.abs(arrays[key]).max() for key in arrays if key.endswith("/logits"))
    worst = {
        form: f"{max(row.get(form, 0.0) for row in agreement.values()):.1e}"
        for form in agreement[IN_JAX[0]]
    }
    print(f"{path.name}: {path.stat().st_size} bytes, |logit| <= {largest:.2f}, {worst}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, nargs="?", default=Path(__file__).parent / "data")
    out = parser.parse_args().folder
    out.mkdir(parents=True, exist_ok=True)
    torch.set_grad_enabled(False)
    for index, name in enumerate(MODELS):
        make(name, out, seed=2402_19427 + 10 * index)
