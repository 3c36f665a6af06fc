"""A decode step on fixed buffers gives what a generation gives without; here without graphs."""

import pytest
import torch

import griffin_lm as griffin
from griffin_lm.errors import InputError
from griffin_lm.inference import decode_step
from griffin_lm.inference.decode_step import BUCKETS, DecodeStep, bucket
from griffin_lm.inference.generate import GenerateOptions, Generation
from griffin_lm.inference.sampling import SamplingOptions


@pytest.fixture
def fixed_buffers(monkeypatch):
    """As on a GPU, but run instead of replayed; the calls that took it are counted."""
    taken = []
    plain = decode_step.take

    def counted(*arguments):
        taken.append(plain(*arguments))
        return taken[-1]

    monkeypatch.setattr(decode_step, "usable", lambda *_: True)
    monkeypatch.setattr(decode_step, "take", counted)
    return taken


def generated(model, tokenizer, prompts, **options):
    run = Generation(
        model, tokenizer, prompts, GenerateOptions(**options), model.empty_state(len(prompts))
    )
    while not run.done:
        run.step()
    return run.outputs


@pytest.fixture(scope="module")
def lm():
    return griffin.load("fledgling", device="cpu", dtype="float32", kernels="reference")


OPTIONS = (
    {},
    {"temperature": 0.9, "seed": [3, 4, 5]},
    {"temperature": 1.2, "top_k": 20, "top_p": 0.9, "min_p": 0.01, "seed": 7},
    {"repetition_penalty": 1.3, "logprobs": True},
)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_tokens_logprobs_and_states_are_those_of_the_ordinary_way(lm, options, request):
    prompts = [lm.encode(text) for text in ("It was", "The sea, the sea", "A")]
    options = options | {"max_new_tokens": 12}
    plain = generated(lm.model, lm.tokenizer, prompts, **options)
    taken = request.getfixturevalue("fixed_buffers")
    fixed = generated(lm.model, lm.tokenizer, prompts, **options)
    assert [step.rows for step in taken] == [4], "three rows stand in a bucket of four"
    for one, other in zip(plain, fixed, strict=True):
        assert one.tokens == other.tokens and one.text == other.text
        assert one.logprobs is None or one.logprobs == pytest.approx(other.logprobs, abs=1e-5)
        assert one.state.tokens.tolist() == other.state.tokens.tolist()
        for mine, theirs in zip(one.state.layers, other.state.layers, strict=True):
            for a, b in zip(mine, theirs, strict=True):
                torch.testing.assert_close(a, b)


def test_a_state_that_came_out_is_not_changed_by_the_next_call(lm, fixed_buffers):
    prompts = [lm.encode("It was")]
    (first,) = generated(lm.model, lm.tokenizer, prompts, max_new_tokens=5)
    kept = first.state.clone()
    generated(lm.model, lm.tokenizer, [lm.encode("Another text")], max_new_tokens=5)
    assert len(fixed_buffers) == 2 and fixed_buffers[0] is fixed_buffers[1], "used again"
    for mine, theirs in zip(first.state.layers, kept.layers, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))


def test_two_generations_at_once_do_not_share_buffers(lm, fixed_buffers):
    options = GenerateOptions(max_new_tokens=6)

    def start(text):
        state = lm.model.empty_state(1)
        return Generation(lm.model, lm.tokenizer, [lm.encode(text)], options, state)

    one, two = start("It was"), start("The sea")
    while not (one.done and two.done):
        for run in (one, two):
            if not run.done:
                run.step()
    assert fixed_buffers[0] is not fixed_buffers[1]
    for run, text in ((one, "It was"), (two, "The sea")):
        (alone,) = generated(lm.model, lm.tokenizer, [lm.encode(text)], max_new_tokens=6)
        assert run.outputs[0].tokens == alone.tokens


def test_stop_strings_go_the_ordinary_way(lm, fixed_buffers):
    generated(lm.model, lm.tokenizer, [lm.encode("It was")], max_new_tokens=3, stop="zzz")
    assert not fixed_buffers


def test_logits_that_are_nan_are_refused(tiny_griffin):
    step = DecodeStep(tiny_griffin, 2, SamplingOptions(), False)
    state = tiny_griffin.empty_state(2)
    for layer in state.layers:
        layer[0].fill_(torch.nan)
    state.read.fill_(5)
    state.position.fill_(5)
    step.load(state, None)
    with pytest.raises(InputError, match="NaN"):
        step.step([1, 2], [True, True], [])


def test_buckets_hold_their_rows_tightly():
    assert [bucket(rows) for rows in (1, 2, 3, 64, 65, 1024)] == [1, 2, 4, 64, 96, 1024]
    assert bucket(BUCKETS[-1] + 1) is None


def test_a_step_is_recorded_on_a_gpu_with_a_state_of_fixed_size(tiny_griffin, monkeypatch):
    gemma, plain = griffin.build("tiny-gemma", seed=0), griffin.build("tiny-griffin", seed=0)
    plain.kernels = "reference"
    state, many = (tiny_griffin.empty_state(rows) for rows in (1, BUCKETS[-1] + 1))
    growing = gemma.empty_state(1)
    assert not decode_step.usable(tiny_griffin, state), "on a CPU"
    monkeypatch.setattr(griffin.State, "device", torch.device("cuda"))
    assert decode_step.usable(tiny_griffin, state)
    assert not decode_step.usable(tiny_griffin, many), "no such bucket"
    assert not decode_step.usable(gemma, growing), "its cache grows"
    assert not decode_step.usable(plain, state), "PyTorch's own, one after another"
