"""The sampler: filters against transformers', draws against the distribution they come from."""

import math

import pytest
import torch
from transformers import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from griffin_lm.errors import InputError
from griffin_lm.inference.sampling import (
    SamplingOptions,
    choose,
    draw,
    filtered,
    logprob_of,
    noise,
    seeds_for,
)

DRAWS = 20_000


def chi_square_p(counts: torch.Tensor, probabilities: torch.Tensor) -> float:
    """P(a chi-square at least as large) if the counts came from these probabilities."""
    expected = probabilities * counts.sum()
    assert bool((counts[expected == 0] == 0).all())
    kept = expected > 0
    statistic = ((counts - expected)[kept] ** 2 / expected[kept]).sum()
    freedom = kept.sum().double() - 1
    return float(torch.special.gammaincc(freedom / 2, statistic / 2))


def counts_of(options: SamplingOptions, logits: torch.Tensor, seed: int) -> torch.Tensor:
    many = logits.expand(DRAWS, -1)
    tokens = choose(many, options, [(seed, step) for step in range(DRAWS)])
    return torch.bincount(tokens, minlength=logits.shape[-1]).double()


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 1.0},
        {"temperature": 0.5},
        {"temperature": 2.0, "top_k": 5},
        {"temperature": 1.0, "top_p": 0.8},
        {"temperature": 1.5, "min_p": 0.1},
        {"temperature": 1.3, "top_k": 9, "top_p": 0.9, "min_p": 0.05},
    ],
    ids=str,
)
def test_draws_follow_the_filtered_distribution(settings: dict[str, float]) -> None:
    options = SamplingOptions(**settings)
    logits = 1.5 * torch.randn(1, 12)
    probabilities = filtered(logits, options)[0].double().softmax(-1)
    assert chi_square_p(counts_of(options, logits, seed=11), probabilities) > 1e-4


def test_the_test_would_notice_a_wrong_temperature() -> None:
    logits = 1.5 * torch.randn(1, 12)
    wrong = (logits[0] / 1.1).double().softmax(-1)
    counts = counts_of(SamplingOptions(temperature=1.0), logits, seed=11)
    assert chi_square_p(counts, wrong) < 1e-4


def test_noise_is_uniform_over_steps_and_over_seeds() -> None:
    even = torch.full((50,), 1 / 50, dtype=torch.float64)
    for numbers in (
        [noise(7, step) for step in range(DRAWS)],
        [noise(seed, 3) for seed in range(DRAWS)],
    ):
        counts = torch.histc(torch.tensor(numbers, dtype=torch.float64), 50, 0, 1)
        assert chi_square_p(counts, even) > 1e-4


def test_noise_depends_on_seed_and_step_alone() -> None:
    assert noise(5, 8) == noise(5, 8)
    assert len({noise(seed, step) for seed in range(20) for step in range(20)}) == 400


def test_neighbouring_seeds_and_steps_are_not_correlated() -> None:
    table = torch.tensor([[noise(seed, step) for step in range(40)] for seed in range(400)]) - 0.5
    for a, b in ((table[:-1], table[1:]), (table[:, :-1], table[:, 1:])):
        r = float((a * b).mean() / table.var())
        assert abs(r) < 4 / math.sqrt(a.numel())


def transformers_says(logits: torch.Tensor, seen_ids: torch.Tensor, settings: dict) -> torch.Tensor:
    steps = [
        ("repetition_penalty", RepetitionPenaltyLogitsProcessor),
        ("temperature", TemperatureLogitsWarper),
        ("top_k", TopKLogitsWarper),
        ("top_p", TopPLogitsWarper),
        ("min_p", MinPLogitsWarper),
    ]
    for name, kind in steps:
        if name in settings:
            logits = kind(settings[name])(seen_ids, logits)
    return logits


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 0.7},
        {"temperature": 1.0, "top_k": 4},
        {"temperature": 1.0, "top_k": 1000},
        {"temperature": 1.0, "top_p": 0.3},
        {"temperature": 1.0, "top_p": 0.97},
        {"temperature": 1.0, "top_p": 1e-6},
        {"temperature": 1.0, "min_p": 0.2},
        {"temperature": 1.0, "min_p": 1.0},
        {"temperature": 1.0, "repetition_penalty": 1.7},
        {"temperature": 1.0, "repetition_penalty": 0.6},
        {"temperature": 1.4, "top_k": 20, "top_p": 0.8, "min_p": 0.1, "repetition_penalty": 1.3},
    ],
    ids=str,
)
def test_filters_equal_those_of_transformers(settings: dict[str, float]) -> None:
    logits = 3 * torch.randn(6, 40)
    logits[:, 7] = logits[:, 3]  # a tie
    seen_ids = torch.randint(0, 40, (6, 15))
    seen = torch.zeros(6, 40, dtype=torch.bool).scatter_(1, seen_ids, True)
    ours = filtered(logits, SamplingOptions(**settings), seen)
    theirs = transformers_says(logits, seen_ids, settings)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


def test_temperature_zero_takes_the_largest_whatever_the_filters_say() -> None:
    logits = torch.tensor([[0.0, 3.0, 1.0], [5.0, -1.0, 4.9]])
    options = SamplingOptions(top_k=1, top_p=0.1, min_p=0.9)
    assert choose(logits, options, []).tolist() == [1, 0]


def test_the_repetition_penalty_counts_at_temperature_zero_too() -> None:
    logits = torch.tensor([[2.0, 1.9]])
    seen = torch.tensor([[True, False]])
    assert choose(logits, SamplingOptions(repetition_penalty=1.5), [], seen).tolist() == [1]


def test_what_was_filtered_out_is_never_drawn_at_the_ends_of_the_uniform() -> None:
    logits = torch.tensor([[-math.inf, 1.0, -math.inf, 1.0, -math.inf]])
    below_one = math.nextafter(1.0, 0.0)
    for uniform, token in ((0.0, 1), (0.49, 1), (0.51, 3), (below_one, 3)):
        assert draw(logits, torch.tensor([uniform], dtype=torch.float64)).tolist() == [token]


def test_a_draw_of_a_row_does_not_depend_on_the_other_rows() -> None:
    logits = torch.randn(8, 300)
    options = SamplingOptions(temperature=1.0)
    draws = [(seed, 4) for seed in range(8)]
    together = choose(logits, options, draws).tolist()
    alone = [choose(logits[i : i + 1], options, draws[i : i + 1]).item() for i in range(8)]
    assert together == alone and len(set(together)) > 1


def test_logprobs_are_those_of_the_models_own_distribution() -> None:
    logits = torch.randn(3, 9).bfloat16()
    tokens = torch.tensor([0, 4, 8])
    expected = logits.double().softmax(-1).log()[torch.arange(3), tokens].float()
    torch.testing.assert_close(logprob_of(logits, tokens), expected)


@pytest.mark.parametrize(
    "option",
    [
        {"temperature": -0.1},
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"top_k": 0},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"top_p": math.nan},
        {"min_p": -0.1},
        {"min_p": 1.5},
        {"repetition_penalty": 0.0},
        {"repetition_penalty": math.nan},
    ],
    ids=str,
)
def test_an_option_that_makes_no_sense_is_refused_by_name(option: dict[str, float]) -> None:
    (name,) = option
    with pytest.raises(InputError, match=name):
        SamplingOptions(**option)


def test_seeds_one_for_all_or_one_each() -> None:
    assert seeds_for(5, 3) == [5, 5, 5]
    assert seeds_for([1, 2], 2) == [1, 2]
    assert seeds_for(None, 4) != seeds_for(None, 4)
    for wrong in (-1, 2**63, [1, 2, 3]):
        with pytest.raises(InputError, match="seed"):
            seeds_for(wrong, 2)


def test_logits_that_are_no_numbers_are_said_to_be() -> None:
    with pytest.raises(InputError, match="NaN"):
        choose(torch.tensor([[0.0, math.nan]]), SamplingOptions(), [])
