"""Matrices in 8 and 4 bits in the place of weights."""

import pytest
import torch

import griffin_lm as griffin
from griffin_lm.errors import ConfigError
from griffin_lm.layers.linear import Linear
from griffin_lm.layers.quantized import KINDS, QuantizedMatrix, quantize_weights

each_kind = pytest.mark.parametrize("kind", KINDS)


@each_kind
def test_its_rows_are_those_of_the_dense_matrix(kind):
    matrix = QuantizedMatrix.of(torch.randn(70, 48), kind)
    index = torch.tensor([[0, 69, 3], [15, 16, 17]])
    assert torch.equal(matrix.rows(index), matrix.dense()[index])


@each_kind
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_product_is_near_that_with_the_dense_matrix(kind, dtype):
    torch.manual_seed(0)
    layer = Linear(64, 48).to(dtype).requires_grad_(False)
    x = torch.randn(3, 5, 64, dtype=dtype)
    quantize_weights(layer, kind)  # of the layer itself: it is among its modules
    assert isinstance(layer.weight, QuantizedMatrix)
    dense = x.float() @ layer.weight.dense().float().T + layer.bias.float()
    y = layer(x)
    assert y.dtype == dtype
    # activations are rounded to 1 / 127 of the largest in their row
    assert (y.float() - dense).abs().max() < 0.05


@each_kind
def test_a_quantised_model_keeps_its_recurrence_norms_and_biases(kind):
    model = griffin.build("tiny-griffin", seed=1)
    before = {name for name, _ in model.named_parameters()}
    quantize_weights(model, kind)
    gone = before - {name for name, _ in model.named_parameters()}
    assert gone and all(name.endswith(".weight") for name in gone)
    assert "embed.weight" in gone
    assert not any(part in name for name in gone for part in ("Lambda", "_gate", "conv", "norm"))


@each_kind
def test_a_quantised_model_answers_nearly_as_before(kind):
    model = griffin.build("tiny-griffin", seed=1)
    tokens = torch.randint(0, 96, (2, 30))
    with torch.no_grad():
        exact, _ = model(tokens)
        quantize_weights(model, kind)
        near, state = model(tokens)
        assert torch.isfinite(near).all()
        error = (near - exact).norm() / exact.norm()
        assert error < {"int8": 0.08, "int4": 0.5}[kind]
        first, state = model(tokens[:, :11])
        rest, _ = model(tokens[:, 11:], state=state)
    # a cut moves the last bits of fp32, and with them now and then an activation's rounding
    assert (torch.cat([first, rest], 1) - near).norm() / near.norm() < 0.01


@each_kind
def test_moving_a_model_changes_what_it_computes_in_not_what_it_stores(kind):
    model = griffin.build("tiny-griffin", seed=1)
    quantize_weights(model, kind)
    stored = [buffer.clone() for buffer in model.embed.weight.buffers()]
    model.to(torch.bfloat16)
    assert model.embed.weight.dtype == torch.bfloat16
    kept = list(model.embed.weight.buffers())
    assert all(a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(stored, kept, strict=True))
    with torch.no_grad():
        assert model(torch.tensor([[1, 2]]))[0].dtype == torch.bfloat16


def test_an_unknown_kind_is_refused():
    with pytest.raises(ConfigError, match="int8, int4"):
        QuantizedMatrix.of(torch.zeros(16, 32), "int3")
