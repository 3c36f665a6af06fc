"""Rotary frequencies and angles against their definitions, in Python's own arithmetic."""

import math
from fractions import Fraction

import pytest
import torch

from griffin_lm.layers.rope import RopeScaling, rotary_angles, rotary_frequencies, rotate

LLAMA_3_1 = RopeScaling(factor=8.0, low=1.0, high=4.0, context=8192)


def by_the_rule(frequency, scaling):
    """Llama 3.1's rule by wavelengths, as its release states it."""
    wavelength = 2 * math.pi / frequency
    if wavelength < scaling.context / scaling.high:
        return frequency
    if wavelength > scaling.context / scaling.low:
        return frequency / scaling.factor
    smooth = (scaling.context / wavelength - scaling.low) / (scaling.high - scaling.low)
    return (1 - smooth) * frequency / scaling.factor + smooth * frequency


@pytest.mark.parametrize("width, base", ((128, 500_000.0), (64, 500_000.0), (16, 10_000.0)))
@pytest.mark.parametrize("factor", (8.0, 32.0))
def test_scaled_frequencies_follow_the_rule_by_wavelengths(width, base, factor):
    scaling = LLAMA_3_1._replace(factor=factor)
    plain = [base ** (-2 * j / width) for j in range(width // 2)]
    expected = [by_the_rule(frequency, scaling) for frequency in plain]
    assert rotary_frequencies(width, base).tolist() == pytest.approx(plain, rel=1e-14)
    ours = rotary_frequencies(width, base, scaling).tolist()
    assert ours == pytest.approx(expected, rel=1e-13)


def test_llama_3_1_keeps_divides_and_blends():
    ratio = rotary_frequencies(128, 5e5) / rotary_frequencies(128, 5e5, LLAMA_3_1)
    assert ratio[0] == 1 and ratio[-1] == pytest.approx(8, rel=1e-12)
    assert ((ratio > 1.001) & (ratio < 7.999)).any()


@pytest.mark.parametrize("position", (10**4, 10**9))
@pytest.mark.parametrize("scaling", (None, LLAMA_3_1))
def test_angles_are_exact_far_out(position, scaling):
    cos, sin = rotary_angles(torch.tensor([[position]]), 32, 5e5, scaling)
    for j, frequency in enumerate(rotary_frequencies(32, 5e5, scaling).tolist()):
        turns = Fraction(position) * Fraction(frequency) / Fraction(2 * math.pi)
        # 2 pi itself has 53 bits: its error, times the turns, is all that may be left
        rest, slack = float(turns % 1) * 2 * math.pi, float(turns) * 3e-16 + 1e-6
        assert cos[0, 0, 0, j].item() == pytest.approx(math.cos(rest), abs=slack)
        assert sin[0, 0, 0, j].item() == pytest.approx(math.sin(rest), abs=slack)


def test_a_rotation_of_a_part_leaves_the_rest_and_keeps_lengths():
    x = torch.randn(2, 5, 3, 12, dtype=torch.float64)
    angles = rotary_angles(torch.arange(5).expand(2, 5) + 7, 8, 100.0)
    y = rotate(x, angles)
    assert torch.equal(y[..., 8:], x[..., 8:])
    torch.testing.assert_close(y.norm(dim=-1), x.norm(dim=-1))
    assert not torch.allclose(y[..., :8], x[..., :8])


def test_scores_depend_on_distance_only():
    q, k = torch.randn(1, 1, 1, 8, dtype=torch.float64), torch.randn(1, 1, 1, 8).double()

    def score(i, j):
        left, right = (
            rotate(x, rotary_angles(torch.tensor([[at]]), 8, 1e4, LLAMA_3_1))
            for x, at in ((q, i), (k, j))
        )
        return (left * right).sum()

    torch.testing.assert_close(score(9, 4), score(1009, 1004))
