"""The global random numbers' states, as plain values and tensors."""

import random
from typing import Any

import numpy as np
import torch


def random_states(device: torch.device) -> dict[str, Any]:
    """States of torch (and of its device), numpy and Python."""
    numpy: Any = np.random.get_state(legacy=False)
    state = {"key": torch.from_numpy(numpy["state"]["key"].astype(np.int64))}
    state |= {name: numpy[name] for name in ("has_gauss", "gauss")}
    state["pos"] = numpy["state"]["pos"]
    version, numbers, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        "numpy": state,
        "python": [version, list(numbers), gauss],
    }


def seed_everything(seed: int) -> None:
    """The global random numbers of torch, numpy and Python, from which weights may be drawn."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def restore_random_states(saved: dict[str, Any], device: torch.device) -> None:
    """The inverse of random_states."""
    torch.set_rng_state(saved["torch"].cpu())
    if saved["cuda"] is not None and device.type == "cuda":
        torch.cuda.set_rng_state(saved["cuda"].cpu(), device)
    numpy = saved["numpy"]
    key = numpy["key"].cpu().numpy().astype(np.uint32)
    np.random.set_state(
        {
            "bit_generator": "MT19937",
            "state": {"key": key, "pos": numpy["pos"]},
            "has_gauss": numpy["has_gauss"],
            "gauss": numpy["gauss"],
        }
    )
    version, numbers, gauss = saved["python"]
    random.setstate((version, tuple(numbers), gauss))
