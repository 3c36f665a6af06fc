"""A random fledgling with some channels of long half-lives, and rows of random tokens."""

import pytest
import torch

import griffin_lm as griffin
from griffin_lm.mixers.rg_lru import RGLRUCell
from griffin_lm.models import Griffin

HOLDING = slice(0, 32)  # channels that are given long half-lives; the first head's


@pytest.fixture
def model() -> Griffin:
    model = griffin.build("fledgling", seed=1)
    with torch.no_grad():
        cell_of(model).Lambda.fill_(0.0)
        cell_of(model).Lambda[HOLDING] = -12.0
    return model


def cell_of(model: Griffin) -> RGLRUCell:
    cell = model.blocks[0].mixer.get_submodule("cell")
    assert isinstance(cell, RGLRUCell)
    return cell


def rows(count: int, length: int, seed: int) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randint(4, 2048, (count, length), generator=random)
