"""Whole tiny models on Triton's kernels: a text in pieces, gaps and documents, a training step."""

import pytest
import torch

import griffin_lm as griffin
from griffin_lm.training.blocks import prepare_blocks

TOKENS = torch.randint(0, 96, (2, 12), generator=torch.Generator().manual_seed(0))


def pair(name):
    plain, kernels = griffin.build(name, seed=3), griffin.build(name, seed=3)
    plain.kernels, kernels.kernels = "reference", "triton"
    return plain, kernels


@pytest.mark.parametrize("name", ("tiny-griffin", "tiny-hawk"))
def test_a_text_read_in_small_pieces_gives_the_logits_of_the_reference(name):
    """Pieces of a few tokens: what is longer goes to FlexAttention, which no interpreter runs."""
    plain, kernels = pair(name)
    valid = torch.rand(TOKENS.shape, generator=torch.Generator().manual_seed(1)) < 0.8
    starts = torch.rand(TOKENS.shape, generator=torch.Generator().manual_seed(2)) < 0.1
    with torch.no_grad():
        expected, _ = plain(TOKENS, starts=starts, valid=valid)
        state, pieces = None, []
        for begin in range(0, 12, 4):
            span = slice(begin, begin + 4)
            logits, state = kernels(
                TOKENS[:, span],
                starts=starts[:, span],
                valid=valid[:, span],
                state=state,
                donate=state is not None,
            )
            pieces.append(logits)
    torch.testing.assert_close(torch.cat(pieces, 1)[valid], expected[valid], rtol=1e-4, atol=1e-5)


def test_a_training_step_gives_the_gradients_of_the_reference():
    both = pair("tiny-hawk")
    starts = torch.zeros_like(TOKENS, dtype=torch.bool)
    starts[:, 5] = True
    for model in both:
        logits, _ = model(TOKENS, starts=starts)
        logits.logsumexp(-1).mean().backward()
    for (name, mine), theirs in zip(both[1].named_parameters(), both[0].parameters(), strict=True):
        scale = float(theirs.grad.abs().max())
        off = float((mine.grad - theirs.grad).abs().max())
        assert off <= 1e-4 * max(scale, 1e-6), f"{name}: {off:.1e} of {scale:.1e}"


def test_what_a_training_step_computes_again_has_the_bits_of_what_it_keeps():
    """Conv, gates, recurrence, norms and gated products, by the kernels that made them first."""
    found = []
    for recompute in ("none", "selective", "full"):
        _, model = pair("tiny-hawk")
        prepare_blocks(model, compiled=False, recompute=recompute)
        starts = torch.zeros_like(TOKENS, dtype=torch.bool)
        starts[:, 5] = True
        _, state = model(TOKENS[:, :4])
        logits, _ = model(TOKENS[:, 4:], starts=starts[:, 4:], state=state)
        logits.logsumexp(-1).mean().backward()
        found.append([parameter.grad for parameter in model.parameters()])
    for kept, some, every in zip(*found, strict=True):
        assert torch.equal(kept, some) and torch.equal(kept, every)
