"""Makes what a release leaves behind for ever: a checkpoint, a state, the logits after it.

    python tests/golden/released.py

Run once a release, before it is tagged; writes tests/golden/data/released-VERSION and refuses to
touch one that is there: files of a released version are never made again.
"""

from pathlib import Path

import torch
from safetensors.torch import save_file

import griffin_lm as griffin

DATA = Path(__file__).parent / "data"
TOKENS = torch.tensor([[5, 17, 80, 2, 33, 41, 7, 7, 90, 12, 64, 3]])
NEXT = torch.tensor([[11, 4, 59]])


def main() -> None:
    """Writes the folder of this version."""
    folder = DATA / f"released-{griffin.__version__}"
    if folder.exists():
        raise SystemExit(f"{folder} is there; released files are never made again")
    config = griffin.ModelConfig.from_dict(
        griffin.PRESETS["tiny-griffin"].to_dict() | {"layers": 3, "logit_cap": 30.0}
    )
    model = griffin.build(config, seed=11, dtype=torch.bfloat16).requires_grad_(False)
    griffin.save(model, folder)
    _, state = model(TOKENS)
    state.with_pending([9]).save(folder / "session.state")
    wide = griffin.build(config, seed=11, dtype=torch.bfloat16).float()
    _, state = wide(TOKENS)
    logits, _ = wide(NEXT, state=state.with_pending([9]))
    save_file({"logits": logits.detach()}, folder / "logits.safetensors")


if __name__ == "__main__":
    main()
