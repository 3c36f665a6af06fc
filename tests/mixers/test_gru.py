"""The GRU cell against torch.nn.GRU with the same weights: outputs, states and gradients, fp32."""

from itertools import pairwise

import pytest
import torch

from griffin_lm.mixers import GRU
from tests.parity import record_parity

TOLERANCE = 2e-5
SHAPES = ((1, 1, 3), (2, 7, 5), (3, 64, 16), (2, 101, 33))  # rows, tokens, channels
TORCH = ("weight_ih_l0", "bias_ih_l0", "weight_hh_l0", "bias_hh_l0")
each_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


def pair(width):
    """Our cell and theirs, with the same random weights."""
    cell = GRU(width=width).build(width).to_empty(device="cpu").cell
    with torch.no_grad():
        cell.initialise(torch.Generator().manual_seed(width))
    theirs = torch.nn.GRU(width, width, batch_first=True)
    ours = (cell.from_x.weight, cell.from_x.bias, cell.from_h.weight, cell.from_h.bias)
    with torch.no_grad():
        for name, weight in zip(TORCH, ours, strict=True):
            getattr(theirs, name).copy_(weight)
    return cell, theirs


def inputs(shape):
    batch, length, width = shape
    random = torch.Generator().manual_seed(length)
    x = torch.randn(batch, length, width, generator=random)
    h0 = torch.randn(batch, width, generator=random)
    return x, torch.zeros(batch, length, dtype=torch.bool), h0


def record(shape, case, mine, exact, tolerance=TOLERANCE):
    batch, length, width = shape
    model = f"GRU cell, {width} channels, {batch} x {length} tokens"
    record_parity(f"torch.nn.GRU | {model} | {case}", (mine - exact).abs().max().item(), tolerance)


@each_shape
@torch.no_grad()
def test_the_whole_text_in_one_call_gives_torchs_states(shape):
    (cell, theirs), (x, starts, h0) = pair(shape[2]), inputs(shape)
    expected, last = theirs(x, h0[None])
    y, hs = cell(x, starts, h0)
    assert y.data_ptr() == hs.data_ptr(), "a GRU's output is its state"
    record(shape, "one call", y, expected)
    record(shape, "one call, last state", hs[:, -1], last[0])


@each_shape
@pytest.mark.parametrize("piece", (1, 3))
@torch.no_grad()
def test_chunks_and_single_steps_give_torchs_states(shape, piece):
    (cell, theirs), (x, starts, h) = pair(shape[2]), inputs(shape)
    expected, _ = theirs(x, h[None])
    pieces = []
    for part, begins in zip(x.split(piece, 1), starts.split(piece, 1), strict=True):
        hs = cell(part, begins, h)[1]
        h = hs[:, -1]
        pieces.append(hs)
    record(shape, f"in calls of {piece}", torch.cat(pieces, 1), expected)


@torch.no_grad()
def test_packed_documents_give_torchs_states_of_each_alone():
    shape = (2, 40, 6)
    (cell, theirs), (x, starts, h0) = pair(6), inputs(shape)
    cuts = [0, 1, 2, 19, 40]
    starts[:, cuts[:-1]] = True
    alone = [theirs(x[:, begin:end])[0] for begin, end in pairwise(cuts)]
    record(shape, "packed documents", cell(x, starts, h0)[0], torch.cat(alone, 1))


@each_shape
def test_its_gradients_are_torchs(shape):
    (cell, theirs), (x, starts, h0) = pair(shape[2]), inputs(shape)
    weight = torch.randn(x.shape)
    ours = torch.autograd.grad(
        (cell(x.requires_grad_(), starts, h0.requires_grad_())[0] * weight).sum(),
        (x, h0, cell.from_x.weight, cell.from_x.bias, cell.from_h.weight, cell.from_h.bias),
    )
    exact = torch.autograd.grad(
        (theirs(x, h0[None])[0] * weight).sum(),
        (x, h0, *(getattr(theirs, name) for name in TORCH)),
    )
    for mine, other in zip(ours, exact, strict=True):
        scale = 1 + other.abs().max()
        record(shape, "gradients, relative", mine / scale, other / scale, 1e-4)


def test_its_state_stays_fp32_under_bf16_weights():
    cell, _ = pair(8)
    hs = cell.bfloat16()(
        torch.randn(1, 5, 8).bfloat16(), torch.zeros(1, 5).bool(), torch.zeros(1, 8)
    )
    assert hs[1].dtype == torch.float32


def test_it_starts_as_torchs_does():
    cell, _ = pair(64)
    for parameter in cell.parameters():
        assert parameter.abs().max() <= 64**-0.5
        assert parameter.std().item() == pytest.approx(64**-0.5 / 3**0.5, rel=0.1)
