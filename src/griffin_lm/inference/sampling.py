"""From logits to the next token: pure functions on (B, vocab) tensors.

The filters are those of transformers, in its order: repetition penalty, temperature, top-k,
top-p, min-p. What differs is the noise. A row's draw number `step` under `seed` is one uniform
number from a counter-based generator (Philox: Salmon et al. 2011, "Parallel random numbers: as
easy as 1, 2, 3"), so it depends on nothing else: not on the batch, not on how often the call was
interrupted and continued.

Letters: B batch, V vocab.
"""

import math
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy
import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from ..errors import InputError
from ..shapes import Counts

GREEDY = 0.0  # the temperature at which the largest logit wins
SEED_LIMIT = 2**63  # seeds are what an int64 can hold, so that every file format can


@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """How to choose among the logits; the same for every row of a call.

    `None` switches a filter off. Raises `InputError` where an option makes no sense.
    """

    temperature: float = GREEDY
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None

    def __post_init__(self) -> None:
        # `not (a <= x)` rather than `x < a`: NaN must be refused too
        if not (0.0 <= self.temperature < math.inf):
            raise InputError(f"temperature is {self.temperature}; give 0 (greedy) or more")
        if self.top_k is not None and (self.top_k != int(self.top_k) or self.top_k < 1):
            raise InputError(f"top_k is {self.top_k}; give a whole number from 1, or None for all")
        if self.top_p is not None and not (0.0 < self.top_p <= 1.0):
            raise InputError(f"top_p is {self.top_p}; give a number in (0, 1], or None for all")
        if self.min_p is not None and not (0.0 <= self.min_p <= 1.0):
            raise InputError(f"min_p is {self.min_p}; give a number in [0, 1], or None for all")
        penalty = self.repetition_penalty
        if penalty is not None and not (0.0 < penalty < math.inf):
            raise InputError(
                f"repetition_penalty is {penalty}; give more than 0 (1 changes nothing)"
            )


def seeds_for(seed: int | Sequence[int] | None, rows: int) -> list[int]:
    """One seed per row. A single number goes to every row; None draws from the system's entropy.

    Raises `InputError` for a number outside 0 .. 2^63 - 1, or a list of another length than `rows`.
    """
    if seed is None:
        return [secrets.randbelow(SEED_LIMIT) for _ in range(rows)]
    seeds = [seed] * rows if isinstance(seed, int) else [int(number) for number in seed]
    if len(seeds) != rows:
        raise InputError(f"{len(seeds)} seeds for {rows} prompts; give one number, or one for each")
    for number in seeds:
        if not 0 <= number < SEED_LIMIT:
            raise InputError(f"seed is {number}; give a whole number from 0 to 2^63 - 1")
    return seeds


def noise(seed: int, step: int) -> float:
    """The uniform number in [0, 1) that row `seed` uses to draw its token number `step`."""
    return float(numpy.random.Generator(numpy.random.Philox(key=seed, counter=step)).random())


def penalise_repetition(
    logits: Float[Tensor, "B V"], seen: Bool[Tensor, "B V"], penalty: float
) -> Float[Tensor, "B V"]:
    """Makes tokens already seen less likely (Keskar et al. 2019, CTRL, section 4.1).

    A positive logit is divided by the penalty and a negative one multiplied by it.
    """
    return torch.where(seen, torch.where(logits < 0, logits * penalty, logits / penalty), logits)


def keep_top_k(logits: Float[Tensor, "B V"], k: int) -> Float[Tensor, "B V"]:
    """Keeps the k largest logits and what is equal to the k-th; the others become -inf."""
    kth = logits.topk(min(k, logits.shape[-1]), dim=-1).values[..., -1:]
    return logits.masked_fill(logits < kth, -math.inf)


def keep_top_p(logits: Float[Tensor, "B V"], p: float) -> Float[Tensor, "B V"]:
    """Nucleus sampling (Holtzman et al. 2020): the fewest tokens whose probability reaches p."""
    ascending, order = logits.sort(dim=-1)
    # counted from the small end, as transformers does, so that ties fall the same way
    drop = ascending.softmax(dim=-1).cumsum(dim=-1) <= 1.0 - p
    drop[..., -1] = False  # one token must stay, whatever rounding says
    return logits.masked_fill(drop.scatter(-1, order, drop), -math.inf)


def keep_min_p(logits: Float[Tensor, "B V"], p: float) -> Float[Tensor, "B V"]:
    """Drops tokens less likely than p times the likeliest (Nguyen et al. 2024)."""
    probabilities = logits.softmax(dim=-1)
    least = p * probabilities.amax(dim=-1, keepdim=True)
    drop = probabilities < least
    drop.scatter_(-1, logits.argmax(dim=-1, keepdim=True), False)
    return logits.masked_fill(drop, -math.inf)


def filtered(
    logits: Float[Tensor, "B V"], options: SamplingOptions, seen: Bool[Tensor, "B V"] | None = None
) -> Float[Tensor, "B V"]:
    """The logits (fp32) after every filter of `options`; tokens that may not be drawn are -inf.

    At temperature 0 only the repetition penalty is applied: no other filter moves the maximum.
    `seen` marks the tokens of this call so far; needed for the repetition penalty alone.
    """
    logits = logits.float()
    if options.repetition_penalty is not None and seen is not None:
        logits = penalise_repetition(logits, seen, options.repetition_penalty)
    if options.temperature == GREEDY:
        return logits
    logits = logits / options.temperature
    if options.top_k is not None:
        logits = keep_top_k(logits, options.top_k)
    if options.top_p is not None and options.top_p < 1.0:
        logits = keep_top_p(logits, options.top_p)
    if options.min_p is not None:
        logits = keep_min_p(logits, options.min_p)
    return logits


def draw(logits: Float[Tensor, "B V"], uniform: Float64[Tensor, " B"]) -> Counts:
    """The inverse of the cumulative distribution softmax(logits) at `uniform` in [0, 1).

    In float64: over 256,000 tokens a float32 sum is off by more than the rare ones are likely.
    A token of logit -inf is never drawn.
    """
    cumulative = logits.double().softmax(dim=-1).cumsum(dim=-1)
    total = cumulative[..., -1:].contiguous()
    index = torch.searchsorted(cumulative, uniform[..., None] * total, right=True)
    # the first place where the sum has reached its total: nothing after it has any probability
    last = torch.searchsorted(cumulative, total)
    return torch.minimum(index, last).squeeze(-1)


def refuse_nan(found: bool) -> None:
    """Raises `InputError` if there are logits that are NaN."""
    if found:
        raise InputError(
            "the model's logits are not numbers (NaN); the weights may be damaged: run "
            "`griffin inspect` on them, and try dtype='float32'"
        )


def choose(
    logits: Float[Tensor, "B V"],
    options: SamplingOptions,
    draws: Iterable[tuple[int, int]],
    seen: Bool[Tensor, "B V"] | None = None,
) -> Counts:
    """The next token of each row. `draws` holds each row's (seed, step), unused when greedy.

    Raises `InputError` where logits are NaN: broken weights, or an overflow in low precision.
    """
    refuse_nan(bool(logits.isnan().any()))
    scores = filtered(logits, options, seen)
    if options.temperature == GREEDY:
        return scores.float().argmax(dim=-1)  # in bf16 PyTorch takes four times as long on a CPU
    if scores.device.type == "mps":
        scores = scores.cpu()  # that device has no float64
    uniform = [noise(seed, step) for seed, step in draws]
    tokens = draw(scores, torch.tensor(uniform, dtype=torch.float64, device=scores.device))
    return tokens.to(logits.device)


def logprob_of(logits: Float[Tensor, "B V"], tokens: Counts) -> Float[Tensor, " B"]:
    """log softmax of the model's own logits (before any filter) at the chosen tokens, fp32."""
    return logits.float().log_softmax(dim=-1).gather(-1, tokens[..., None]).squeeze(-1)
