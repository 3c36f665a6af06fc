"""With the compiled kernels generation gives the same tokens and scores in any batch and chunks."""

import pytest
import torch

import griffin_lm as griffin
from griffin_lm.inference import LanguageModel
from griffin_lm.ops import native

pytestmark = pytest.mark.skipif(native.UNBUILT is not None, reason=str(native.UNBUILT))
PROMPTS = ["It was the best of times", "She", "A note: the number is 7.\nThe number is"]


def check_batches(lm: LanguageModel, new_tokens: int) -> None:
    for options in ({}, {"temperature": 1.0, "seed": 5, "top_p": 0.9}):
        together = lm.generate(PROMPTS, new_tokens, logprobs=True, **options)
        for prompt, mine in zip(PROMPTS, together, strict=True):
            alone = lm.generate(prompt, new_tokens, logprobs=True, **options)
            assert alone.tokens == mine.tokens
            assert alone.logprobs == mine.logprobs, "to the bit"


def test_a_prompt_gets_alone_what_it_gets_in_a_batch(lm, monkeypatch):
    monkeypatch.setattr(lm.model, "kernels", "native")
    check_batches(lm, 6)


def test_a_prompt_read_in_pieces_is_continued_as_if_read_at_once(lm, monkeypatch):
    monkeypatch.setattr(lm.model, "kernels", "native")
    whole = lm.generate(PROMPTS[2], 8, temperature=1.0, seed=1, logprobs=True)
    ids = lm.tokenizer.encode(PROMPTS[2], bos=True)
    for size in (1, 5):
        state = None
        with torch.no_grad():
            for begin in range(0, len(ids) - 1, size):
                piece = torch.tensor([ids[begin : min(begin + size, len(ids) - 1)]])
                _, state = lm.model(piece, state=state, logits=None)
        state.pending = torch.tensor(ids[-1:])
        pieces = lm.generate("", 8, temperature=1.0, seed=1, logprobs=True, state=state)
        assert (pieces.tokens, pieces.logprobs) == (whole.tokens, whole.logprobs)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "quantize"),
    [("float32", None), ("bfloat16", None), ("bfloat16", "int8"), ("bfloat16", "int4")],
)
def test_so_it_is_with_fledgling(dtype, quantize):
    check_batches(griffin.load("fledgling", dtype=dtype, quantize=quantize, kernels="native"), 24)
