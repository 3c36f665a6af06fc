"""The LRU cell against a complex128 loop over the paper's recurrence, and its initial ring."""

import math

import pytest
import torch

from griffin_lm.errors import ConfigError
from griffin_lm.mixers import LRU
from tests.parity import record_parity

SHAPES = ((1, 1, 3, 2), (2, 7, 5, 9), (3, 64, 16, 8), (2, 101, 10, 33))  # B, T, R, N
each_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


def cell_of(width, states, seed=0, **settings):
    cell = LRU(width=width, states=states, **settings).build(width).to_empty(device="cpu").cell
    with torch.no_grad():
        cell.initialise(torch.Generator().manual_seed(seed))
    return cell


def inputs(shape):
    batch, length, width, states = shape
    random = torch.Generator().manual_seed(length)
    x = torch.randn(batch, length, width, generator=random)
    h0 = torch.randn(batch, 2 * states, generator=random)
    return x, torch.rand(batch, length, generator=random) < 0.1, h0


def written_recurrence(cell, u, starts, h0):
    """Orvieto et al., section 3, one token after another in complex128: y and all h."""
    nu, theta, gamma, D = (each.double() for each in (cell.nu, cell.theta, cell.gamma, cell.D))
    B = torch.complex(cell.B_re.double(), cell.B_im.double())
    C = torch.complex(cell.C_re.double(), cell.C_im.double())
    lambda_ = torch.exp(torch.complex(-torch.exp(nu), torch.exp(theta)))
    h = torch.complex(h0[:, ::2].double(), h0[:, 1::2].double())
    ys, hs = [], []
    for t in range(u.shape[1]):
        h = torch.where(starts[:, t, None], 0, h)
        h = lambda_ * h + torch.exp(gamma) * (u[:, t].to(C.dtype) @ B.T)
        ys.append((h @ C.T).real + D * u[:, t])
        hs.append(h)
    return torch.stack(ys, 1), torch.stack(hs, 1)


def record(shape, case, mine, exact, tolerance=2e-5):
    """Relative to 1 + |exact|: states and outputs of long decays grow to about 10."""
    batch, length, width, states = shape
    model = f"LRU cell, {width} channels, {states} states, {batch} x {length} tokens"
    error = ((mine - exact).abs() / (1 + exact.abs())).max().item()
    record_parity(f"float64 definition | {model} | {case}", error, tolerance)


def as_pairs(hs):
    return torch.view_as_real(hs).flatten(-2)


@each_shape
@torch.no_grad()
def test_it_equals_the_written_recurrence_in_one_call_in_chunks_and_in_steps(shape):
    cell, (x, starts, h0) = cell_of(*shape[2:]), inputs(shape)
    expected, states = written_recurrence(cell, x, starts, h0)
    for piece in (shape[1], 3, 1):
        h, ys, hs = h0, [], []
        for part, begins in zip(x.split(piece, 1), starts.split(piece, 1), strict=True):
            y, each = cell(part, begins, h)
            h = each[:, -1]
            ys.append(y)
            hs.append(each)
        case = "one call" if piece == shape[1] else f"in calls of {piece}"
        record(shape, case, torch.cat(ys, 1), expected)
        record(shape, f"{case}, states", torch.cat(hs, 1), as_pairs(states))


@each_shape
def test_its_gradients_equal_those_of_the_written_recurrence(shape):
    cell, (x, starts, h0) = cell_of(*shape[2:]).double(), inputs(shape)
    x, h0 = x.double().requires_grad_(), h0.double().requires_grad_()
    weight, wanted = torch.randn_like(x), (x, h0, *cell.parameters())
    ours = torch.autograd.grad((cell(x, starts, h0)[0] * weight).sum(), wanted)
    exact = torch.autograd.grad((written_recurrence(cell, x, starts, h0)[0] * weight).sum(), wanted)
    for mine, other in zip(ours, exact, strict=True):
        torch.testing.assert_close(mine, other)


def evenly_spread(values, low, high):
    """The Kolmogorov-Smirnov distance of the values to an even spread on [low, high]."""
    ordered = ((values.double().sort().values - low) / (high - low)).clamp(0, 1)
    ideal = (torch.arange(len(values)) + 0.5) / len(values)
    return (ordered - ideal).abs().max().item()


@pytest.mark.parametrize("ring", ((0.9, 0.999), (0.0, 0.99), (0.5, 0.9)), ids=str)
@pytest.mark.parametrize("max_phase", (2 * math.pi, math.pi / 10))
@torch.no_grad()
def test_its_eigenvalues_lie_evenly_in_their_ring(ring, max_phase):
    cell = cell_of(4, 4000, r_min=ring[0], r_max=ring[1], max_phase=max_phase)
    radius, phase = torch.exp(-cell.nu.double().exp()), cell.theta.double().exp()
    assert radius.min() >= ring[0] - 1e-6 and radius.max() <= ring[1] + 1e-6
    assert phase.min() > 0 and phase.max() <= max_phase * (1 + 1e-6)
    # of 4000 even numbers the distance exceeds 1.63 / sqrt(4000) = 0.026 once in a hundred draws
    assert evenly_spread(radius**2, ring[0] ** 2, ring[1] ** 2) < 0.026
    assert evenly_spread(phase, 0, max_phase) < 0.026
    expected = torch.log(torch.sqrt(1 - radius**2))
    torch.testing.assert_close(cell.gamma.double(), expected, rtol=1e-4, atol=1e-4)


def test_its_matrices_have_the_papers_spreads():
    cell = cell_of(300, 200)
    for matrix, std in ((cell.B_re, 600**-0.5), (cell.B_im, 600**-0.5), (cell.C_re, 200**-0.5)):
        assert matrix.std().item() == pytest.approx(std, rel=0.02)
    assert cell.D.std().item() == pytest.approx(1, rel=0.1)


def test_its_decays_and_angles_stay_fp32_under_bf16_weights():
    cell = cell_of(6, 4)
    before = cell.theta.clone()
    cell.bfloat16()
    assert cell.B_re.dtype == cell.D.dtype == torch.bfloat16
    assert cell.nu.dtype == cell.theta.dtype == cell.gamma.dtype == torch.float32
    assert torch.equal(cell.theta, before)
    y, hs = cell(torch.randn(1, 5, 6).bfloat16(), torch.zeros(1, 5).bool(), torch.zeros(1, 8))
    assert y.dtype == torch.bfloat16 and hs.dtype == torch.float32
    assert cell.double().theta.dtype == torch.float64


@pytest.mark.parametrize(
    "change, message",
    (
        ({"r_min": 0.95, "r_max": 0.9}, "r_min < r_max"),
        ({"r_max": 1.0}, "r_max < 1"),
        ({"max_phase": 7.0}, "max_phase"),
        ({"states": 0}, "states must be positive"),
    ),
)
def test_a_ring_that_makes_no_sense_is_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        LRU(**({"width": 4, "states": 4} | change))
