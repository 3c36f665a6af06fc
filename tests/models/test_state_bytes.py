"""A state's file is what safetensors itself would write."""

import json

import pytest
import torch
from safetensors.torch import load, save

from griffin_lm.errors import StateError
from griffin_lm.models.state_bytes import CODES, file_parts

METADATA = {"griffin": json.dumps({"note": 'a "text"\n of é and \u4e16', "tokens": [1, 2]})}


def written(tensors: dict[str, torch.Tensor]) -> bytes:
    return b"".join(file_parts(tensors, METADATA))


def test_the_bytes_are_those_of_the_library_for_every_dtype() -> None:
    shapes = ((3, 5), (0, 4), (7,), (2, 1, 3), ())
    tensors = {
        f"layers.{number}.{shape}": (torch.rand(shape) * 9).to(dtype)
        for number, dtype in enumerate(CODES)
        for shape in shapes
    }
    data = written(tensors)
    assert data == save(tensors, metadata=METADATA)
    loaded = load(data)
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())


def test_tensors_are_not_copied() -> None:
    tensor = torch.zeros(4)
    _, part = file_parts({"h": tensor}, METADATA)
    tensor[1] = 1.0
    assert bytes(part) == torch.tensor([0.0, 1.0, 0.0, 0.0]).numpy().tobytes()


def test_a_dtype_that_no_state_has_is_refused_by_name() -> None:
    with pytest.raises(StateError, match=r"layers\.0\.h is torch\.complex128"):
        written({"layers.0.h": torch.zeros(2, dtype=torch.complex128)})
