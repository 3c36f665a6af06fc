"""Makes checkpoints in 8 and 4 bits that every later release must read.

    python tests/golden/quantised.py

Writes tests/golden/data/quantised and refuses to touch what is there. The logits beside them are
computed in fp32 with the matrices that the integers stand for: activations are not rounded there,
so they are near what the model answers and no more.
"""

from pathlib import Path

import torch
from safetensors.torch import save_file

import griffin_lm as griffin
from griffin_lm.checkpoints import load_model, save_model
from griffin_lm.layers.quantized import KINDS, matrices
from tests.golden.released import TOKENS

DATA = Path(__file__).parent / "data" / "quantised"


def main() -> None:
    """Writes a folder for each kind."""
    config = griffin.ModelConfig.from_dict(
        griffin.PRESETS["tiny-griffin"].to_dict() | {"layers": 3, "logit_cap": 30.0}
    )
    for kind in KINDS:
        folder = DATA / kind
        if folder.exists():
            raise SystemExit(f"{folder} is there; it is never made again")
        model = griffin.build(config, seed=11, dtype=torch.bfloat16).requires_grad_(False)
        save_model(model, folder, quantize=kind)
        rounded = load_model(folder, dtype=torch.float32)
        dense = {f"dense.{name}": matrix.dense() for name, matrix in matrices(rounded).items()}
        some = {name: tensor[:4].clone() for name, tensor in dense.items()}
        save_file(some | {"logits": exact_logits(rounded)}, folder.parent / f"{kind}.safetensors")


def exact_logits(rounded: griffin.Griffin) -> torch.Tensor:
    """Of a model in fp32 with the matrices that the integers stand for."""
    plain = griffin.build(rounded.config).requires_grad_(False)
    values = dict(rounded.named_parameters())
    values |= {name: matrix.dense() for name, matrix in matrices(rounded).items()}
    plain.load_state_dict(values)
    return plain(TOKENS)[0]


if __name__ == "__main__":
    main()
