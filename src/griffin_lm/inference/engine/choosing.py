"""The next token of each row of a batch, each by options of its own.

Every row is chosen from by itself, so it cannot matter which others are there.
"""

from collections import Counter
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ..sampling import choose
from .request import RowOptions, Scored


def choose_for(
    logits: Float[Tensor, "1 V"],
    options: RowOptions,
    draw: tuple[int, int],
    prompt: Sequence[int],
    generated: Sequence[int],
) -> Scored:
    """The next token of one row, with its log-probability where `options` asks for it.

    prompt, generated: this request's tokens so far, which penalties look at. Raises `InputError`
    where the logits are NaN.
    """
    adjusted = _adjusted(logits, options, generated)
    seen = None
    if options.repetition_penalty is not None:
        seen = torch.zeros_like(logits, dtype=torch.bool)
        seen[0, [*prompt, *generated]] = True
    token = int(choose(adjusted, options, [draw], seen))
    return scored(logits, token, options)


def scored(logits: Float[Tensor, "1 V"], token: int, options: RowOptions) -> Scored:
    """A token with its log-probability and the likeliest others, as far as they are asked for."""
    if not options.logprobs:
        return Scored(token, 0.0)
    logprobs = logits[0].float().log_softmax(dim=-1)
    most = logprobs.topk(min(options.top_logprobs, logprobs.shape[0]))
    top = zip(most.indices.tolist(), most.values.tolist(), strict=True)
    return Scored(token, float(logprobs[token]), tuple(top))


def _adjusted(logits: Tensor, options: RowOptions, generated: Sequence[int]) -> Tensor:
    """The logits after biases and penalties, as OpenAI's reference defines them."""
    penalised = bool(generated) and (options.presence_penalty or options.frequency_penalty)
    if not options.logit_bias and not penalised:
        return logits
    logits = logits.float().clone()
    for token, bias in options.logit_bias.items():
        logits[0, token] += bias
    if penalised:
        for token, count in Counter(generated).items():
            logits[0, token] -= options.presence_penalty + options.frequency_penalty * count
    return logits
