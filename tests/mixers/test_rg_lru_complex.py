"""The complex-gated RG-LRU against DeepMind's JAX layer and against a complex128 loop.

The golden file is made by tests/golden/complex_rg_lru.py, which says what is in it.
"""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import griffin_lm as griffin
from griffin_lm.checkpoints import load_model
from griffin_lm.errors import CheckpointError, ConfigError
from griffin_lm.mixers import RGLRU
from tests.parity import record_parity

DATA = Path(__file__).parents[1] / "golden" / "data" / "complex-rg-lru.npz"
CASES = ("fresh", "goes-on", "packed", "packed-goes-on")
NAMES = {
    "a_param": "Lambda",
    "a_imag_param": "theta",
    "input_gate/w": "x_gate.w",
    "input_gate/b": "x_gate.b",
    "a_gate/w": "a_gate.w",
    "a_gate/b": "a_gate.b",
}
each_case = pytest.mark.parametrize("name", CASES)


def golden(name):
    """Our cell with their weights, and the arrays of the case."""
    with np.load(DATA) as file:
        about = json.loads(str(file["about"]))
        assert about["versions"]["recurrentgemma"] == "1.0.1"
        stored = {
            key.removeprefix(f"{name}/"): torch.tensor(file[key])
            for key in file.files
            if key.startswith(f"{name}/")
        }
    config = RGLRU(width=stored["x"].shape[2], heads=int(stored["heads"]), complex=True)
    cell = config.build(4).to_empty(device="cpu").cell
    weights = {ours: stored[f"weights/{theirs}"] for theirs, ours in NAMES.items()}
    cell.load_state_dict(weights, strict=True)
    return cell, stored


@each_case
@pytest.mark.parametrize("piece", (1000, 5, 1))
@torch.no_grad()
def test_it_equals_deepminds_layer_whole_in_chunks_and_in_steps(name, piece):
    cell, stored = golden(name)
    h, ys = stored["h0"], []
    starts = stored["segment_pos"] == 0
    for x, begins in zip(stored["x"].split(piece, 1), starts.split(piece, 1), strict=True):
        y, hs = cell(x, begins, h)
        h = hs[:, -1]
        ys.append(y)
    error = (torch.cat(ys, 1) - stored["y"]).abs().max().item()
    case = "one call" if piece == 1000 else f"in calls of {piece}"
    record_parity(f"DeepMind | complex-gated RG-LRU, {name} | {case}", error, 2e-5)


@torch.no_grad()
def test_the_data_would_show_a_weight_left_out():
    cell, stored = golden("goes-on")
    for name, weight in cell.named_parameters():
        kept = weight.clone()
        weight.zero_()
        y, _ = cell(stored["x"], stored["segment_pos"] == 0, stored["h0"])
        weight.copy_(kept)
        assert (y - stored["y"]).abs().max() > 2e-3, name


def written_equations(cell, x, starts, h0):
    """Griffin, appendix B, with the code's phase: one token after another, in complex128."""
    half = x.shape[2] // 2
    x, h = (torch.complex(each[..., :half], each[..., half:]) for each in (x, h0))
    merged = torch.cat([x.real, x.imag], -1)
    r, i = (gate(merged).sigmoid() for gate in (cell.a_gate, cell.x_gate))
    ys = []
    for t in range(x.shape[1]):
        size = torch.exp(-8 * r[:, t] * torch.log1p(torch.exp(cell.Lambda)))
        turn = torch.exp(1j * cell.theta * r[:, t])
        carried = size * turn * h + torch.sqrt(1 - size**2) * (i[:, t] * x[:, t])
        h = torch.where(starts[:, t, None], i[:, t] * x[:, t], carried)
        ys.append(torch.cat([h.real, h.imag], -1))
    return torch.stack(ys, 1)


def test_its_gradients_equal_those_of_the_written_equations():
    cell, stored = golden("packed")
    cell.double()
    x, h0 = (stored[name].double().requires_grad_() for name in ("x", "h0"))
    starts = stored["segment_pos"] == 0
    starts[:, 0] = False
    wanted, weight = (x, h0, *cell.parameters()), torch.randn_like(x)
    mine = cell(x, starts, h0)[0]
    exact = written_equations(cell, x, starts, h0)
    torch.testing.assert_close(mine, exact)
    gradients = [torch.autograd.grad((y * weight).sum(), wanted) for y in (mine, exact)]
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_without_a_phase_each_half_is_a_real_recurrence():
    from griffin_lm.ops.rg_lru import rg_lru
    from griffin_lm.ops.rg_lru.complex_gated import complex_rg_lru

    x, h0 = torch.randn(2, 9, 8), torch.randn(2, 8)
    r, i, Lambda = torch.randn(2, 9, 4), torch.randn(2, 9, 4), torch.randn(4)
    starts = torch.rand(2, 9) < 0.2
    both = complex_rg_lru(x, r, i, Lambda, torch.zeros(4), starts, h0)
    for half in (slice(4), slice(4, None)):
        alone = rg_lru(x[..., half], r, i, Lambda, starts, h0[:, half])
        torch.testing.assert_close(both[..., half], alone)


def test_its_phases_start_even_between_0_and_a_tenth_of_pi():
    cell = RGLRU(width=4000, heads=4, complex=True).build(4).to_empty(device="cpu").cell
    cell.initialise(torch.Generator().manual_seed(0))
    even = cell.theta.detach() / (0.1 * math.pi)
    assert even.min() >= 0 and even.max() <= 1
    assert even.quantile(torch.tensor([0.25, 0.5, 0.75])).tolist() == pytest.approx(
        [0.25, 0.5, 0.75], abs=0.04
    )


def test_the_setting_is_silent_where_gates_are_real_and_counts_where_they_are_complex():
    real, gated = RGLRU(width=8, heads=2), RGLRU(width=8, heads=2, complex=True)
    assert "complex" not in real.to_dict() and gated.to_dict()["complex"] is True
    assert RGLRU.from_dict(gated.to_dict()) == gated
    tiny = griffin.PRESETS["tiny-hawk"]
    assert replace(tiny, pattern=(gated,)).identity() != replace(tiny, pattern=(real,)).identity()


def test_a_width_that_gates_cannot_halve_is_refused():
    with pytest.raises(ConfigError, match="multiple of twice"):
        RGLRU(width=6, heads=2, complex=True)


def test_formats_of_others_do_not_take_it(tmp_path):
    tiny = replace(griffin.PRESETS["tiny-hawk"], pattern=(RGLRU(width=48, heads=4, complex=True),))
    with pytest.raises(CheckpointError):
        griffin.save(griffin.build(tiny), tmp_path / "theirs", format="huggingface")
    griffin.save(griffin.build(tiny, seed=4), tmp_path / "ours")
    assert load_model(tmp_path / "ours").config == tiny
