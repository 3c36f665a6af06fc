"""What every mixer owes, whoever adds one: a row in MIXERS and a row here, and these tests hold."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import griffin_lm as griffin
from griffin_lm.mixers import GRU, LRU, MIXERS, RGLRU, S6, GlobalAttention, LocalAttention, Span
from griffin_lm.mixers.base import MixerConfig
from griffin_lm.models import ModelConfig

WIDTH = 12
SMALL: dict[str, MixerConfig] = {
    "rg_lru": RGLRU(width=8, heads=2),
    "rg_lru, complex gates": RGLRU(width=8, heads=2, complex=True),
    "lru": LRU(width=8, states=6),
    "gru": GRU(width=8),
    "s6": S6(width=10, rank=2, states=3),
    "local_attention": LocalAttention(heads=3, head_dim=4, window=5),
    "global_attention": GlobalAttention(heads=4, head_dim=4, kv_heads=2),
}


def span(starts, count, read=None, position=None):
    """A call's facts, for rows whose valid tokens come first."""
    batch, length = starts.shape
    read = torch.zeros(batch, dtype=torch.int64) if read is None else read
    before = torch.zeros_like(read) if position is None else position
    steps = torch.arange(length).expand(batch, length)
    since = torch.where(starts, steps, -1).cummax(1).values
    place = torch.where(since >= 0, steps - since, before[:, None] + steps)
    return Span(starts, place, count, read)


@pytest.fixture(params=sorted(SMALL))
def kind(request):
    return request.param


@pytest.fixture
def mixer(kind):
    built = SMALL[kind].build(WIDTH).to_empty(device="cpu").double()
    with torch.no_grad():
        built.initialise(4, torch.Generator().manual_seed(1))
        for parameter in built.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return built


@pytest.fixture
def x():
    return torch.randn(2, 23, WIDTH, dtype=torch.float64)


def starts_at(*places, length=23):
    starts = torch.zeros(2, length, dtype=torch.bool)
    starts[:, [0, *places]] = True
    return starts


def full(x):
    return torch.full((x.shape[0],), x.shape[1])


def empty(mixer, batch=2):
    return mixer.empty_state(batch, torch.device("cpu"), torch.float64)


def test_every_mixer_of_the_table_is_tested_here():
    assert {config.kind for config in SMALL.values()} == set(MIXERS)
    assert all(MIXERS[config.kind] is type(config) for config in SMALL.values())


@pytest.mark.parametrize("cut", (1, 2, 5, 6, 7, 22))
def test_cutting_anywhere_changes_nothing(mixer, x, cut):
    starts = starts_at(3, 9)
    facts = span(starts, full(x))
    whole, end = mixer(x, facts, empty(mixer))
    left = Span(
        *(f[:, :cut] if f.dim() == 2 else f for f in facts[:2]), full(x[:, :cut]), facts.read
    )
    right = Span(*(f[:, cut:] for f in facts[:2]), full(x[:, cut:]), torch.full((2,), cut))
    first, state = mixer(x[:, :cut], left, empty(mixer))
    second, state = mixer(x[:, cut:], right, state)
    torch.testing.assert_close(torch.cat([first, second], 1), whole)
    for mine, exact in zip(state, end, strict=True):
        torch.testing.assert_close(mine, exact)


def test_a_start_erases_the_past(mixer, x):
    y, _ = mixer(x, span(starts_at(11), full(x)), empty(mixer))
    alone, _ = mixer(x[:, 11:], span(starts_at(length=12), full(x[:, 11:])), empty(mixer))
    torch.testing.assert_close(y[:, 11:], alone)


def test_not_even_nan_passes_a_start(mixer, x):
    facts = span(starts_at(11), full(x))
    clean, _ = mixer(x, facts, empty(mixer))
    x = x.clone()
    x[:, :11] = torch.nan
    y, _ = mixer(x, facts, empty(mixer))
    if "attention" in mixer.__class__.__name__.lower():
        x[:, :11] = 1e3  # 0 * NaN in a softmax's sum: finite garbage must vanish to the bit
        y, _ = mixer(x, facts, empty(mixer))
    torch.testing.assert_close(y[:, 11:], clean[:, 11:], rtol=0, atol=0)


def test_rows_do_not_mix(mixer, x):
    facts = span(starts_at(4), full(x))
    both, end = mixer(x, facts, empty(mixer))
    for row in range(2):
        one = slice(row, row + 1)
        alone, state = mixer(x[one], Span(*(f[one] for f in facts[:4])), empty(mixer, 1))
        torch.testing.assert_close(both[one], alone)
        for mine, exact in zip(state, end, strict=True):
            torch.testing.assert_close(mine, exact[one])


def test_padding_at_the_end_is_inert(mixer, x):
    count = torch.tensor([23, 9])
    starts = starts_at(4)
    padded, end = mixer(x, span(starts, count), empty(mixer))
    alone, state = mixer(x[1:, :9], span(starts[1:, :9], count[1:]), empty(mixer, 1))
    torch.testing.assert_close(padded[1:, :9], alone)
    for mine, exact in zip(state, end, strict=True):
        torch.testing.assert_close(mine, exact[1:])


def test_a_row_without_tokens_keeps_its_state_to_the_bit(mixer, x):
    _, state = mixer(x, span(starts_at(), full(x)), empty(mixer))
    none = torch.zeros(2, dtype=torch.int64)
    _, after = mixer(torch.full_like(x, 7.0), span(starts_at(), none, full(x), full(x)), state)
    for mine, exact in zip(after, state, strict=True):
        assert torch.equal(mine, exact)


def test_the_state_passed_in_is_not_changed(mixer, x):
    _, state = mixer(x, span(starts_at(), full(x)), empty(mixer))
    copy = [tensor.clone() for tensor in state]
    mixer(x, span(starts_at(), full(x), full(x), full(x)), state)
    assert all(torch.equal(mine, exact) for mine, exact in zip(state, copy, strict=True))


def test_its_gradients_equal_finite_differences(mixer, monkeypatch):
    monkeypatch.setattr(mixer, "cache_step", 4, raising=False)  # fewer slots to look at
    x = torch.randn(1, 5, WIDTH, dtype=torch.float64, requires_grad=True)
    starts = torch.tensor([[False, False, True, False, False]])
    read = torch.tensor([7])
    facts = span(starts, torch.tensor([5]), read, read)
    state = [torch.randn_like(t).requires_grad_() for t in empty(mixer, 1)]

    def run(x, *state):
        y, after = mixer(x, facts, type(empty(mixer, 1))(*state))
        return y, *after

    assert torch.autograd.gradcheck(run, (x, *state))


def test_every_parameter_has_a_gradient(mixer, x):
    y, _ = mixer(x, span(starts_at(7), full(x)), empty(mixer))
    y.square().sum().backward()
    silent = [n for n, p in mixer.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    assert silent == []


def test_its_config_survives_a_dict(mixer):
    for config in SMALL.values():
        assert MIXERS[config.kind].from_dict(config.to_dict()) == config


def test_its_state_survives_bytes(tmp_path, kind):
    config = ModelConfig(vocab=16, width=WIDTH, mlp_width=8, layers=2, pattern=(SMALL[kind],))
    model = griffin.build(config, seed=1).requires_grad_(False)
    tokens = torch.randint(0, 16, (3, 23))
    _, state = model(tokens[:, :14])
    state.save(tmp_path / "kept.state")
    again = griffin.State.load(tmp_path / "kept.state", model)
    joined = griffin.State.concat([again[2], again[:2]])
    joined = joined[[1, 2, 0]].put([1], state[1])
    expected, end = model(tokens[:, 14:], state=state)
    logits, after = model(tokens[:, 14:], state=joined)
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-6)
    for mine, exact in zip(after.compact().layers, end.compact().layers, strict=True):
        for one, other in zip(mine, exact, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


COMPILED = """
import sys, torch
from griffin_lm.mixers import MIXERS
from tests.mixers.test_conformance import SMALL, WIDTH, empty, full, span, starts_at

for kind, config in SMALL.items():
    torch.manual_seed(0)
    mixer = config.build(WIDTH).to_empty(device="cpu").double()
    with torch.no_grad():
        mixer.initialise(4, torch.Generator().manual_seed(1))
    x = torch.randn(2, 9, WIDTH, dtype=torch.float64)
    facts = span(starts_at(3, length=9), full(x))._replace(slots=9)  # as a model gives them
    exact = mixer(x, facts, empty(mixer))
    fast = torch.compile(mixer, fullgraph=True, backend="aot_eager")(x, facts, empty(mixer))
    results = []
    for y, state in (exact, fast):
        mixer.zero_grad()
        y.square().sum().backward()
        results.append([y, *state, *(p.grad.clone() for p in mixer.parameters())])
    for mine, other in zip(*results, strict=True):
        torch.testing.assert_close(mine, other)
    print(kind)
"""


@pytest.mark.timeout(280)
def test_compiled_they_equal_eager_in_a_single_graph_gradients_too():
    """In a process of its own, since the shape checks of these tests are Python in every call."""
    root = str(Path(__file__).parents[2])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": root}
    done = subprocess.run(
        [sys.executable, "-c", COMPILED], capture_output=True, text=True, env=environment
    )
    assert done.stdout.splitlines() == list(SMALL), done.stderr[-3000:]
