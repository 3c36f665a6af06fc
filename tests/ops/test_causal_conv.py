"""The causal conv against torch's grouped convolution, and at the borders of documents."""

import torch

from griffin_lm.ops.causal_conv import causal_conv, last_inputs


def test_it_equals_a_grouped_convolution_with_zeros_on_the_left():
    x, w, b = torch.randn(2, 9, 5), torch.randn(4, 5), torch.randn(5)
    position = torch.arange(9).expand(2, 9)
    padded = torch.nn.functional.pad(x.transpose(1, 2), (3, 0))
    exact = torch.nn.functional.conv1d(padded, w.T[:, None], b, groups=5).transpose(1, 2)
    torch.testing.assert_close(
        causal_conv(x, torch.full((2, 3, 5), torch.nan), w, b, position), exact
    )


def test_no_tap_reaches_into_another_document():
    x, w, b = torch.randn(1, 6, 2), torch.randn(4, 2), torch.randn(2)
    position = torch.tensor([[0, 1, 0, 1, 2, 3]])
    past = torch.full((1, 3, 2), torch.inf)
    alone = causal_conv(x[:, 2:], past, w, b, position[:, 2:])
    x[:, :2] = torch.nan
    assert torch.equal(causal_conv(x, past, w, b, position)[:, 2:], alone)


def test_the_inputs_kept_are_the_last_valid_ones_of_each_row():
    past = -torch.arange(1, 4).flip(0).expand(3, 3)[..., None].float()
    x = torch.arange(5).expand(3, 5)[..., None].float()
    kept = last_inputs(x, past, torch.tensor([0, 1, 5]))[..., 0]
    assert kept.tolist() == [[-3, -2, -1], [-2, -1, 0], [2, 3, 4]]
