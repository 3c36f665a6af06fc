"""Our own contender, the machine's limits, and who takes part."""

import sys

import pytest
import torch

from griffin_lm.bench.cpu import contenders, ours, study
from griffin_lm.bench.cpu.contenders import Options
from griffin_lm.bench.cpu.limits import Contender as Machine
from griffin_lm.errors import InputError, MissingExtra
from griffin_lm.models import build


def test_a_state_far_into_a_text_answers_as_one_that_read_it_would() -> None:
    """Position and counter are those of the place; the rings are full."""
    model = build("tiny-griffin")
    state = ours.state_at(model, batch=2, context=1000)
    assert state.tokens.tolist() == [1000, 1000]
    logits, after = model(torch.zeros(2, 1, dtype=torch.int64), state=state, logits="last")
    assert logits.isfinite().all() and after.tokens.tolist() == [1001, 1001]
    assert all(tensor.count_nonzero() for layer in state.layers for tensor in layer)


def test_random_models_have_every_weight_and_of_the_kind_that_was_asked_for() -> None:
    config = ours.shape("tiny-griffin")
    sizes = {}
    for kind in ours.WEIGHTS:
        contender = ours.Contender(torch.get_num_threads(), kind, config)
        facts = contender.facts()
        sizes[kind] = facts["bits_per_weight"]
        assert facts["parameters"] == sum(p.numel() for p in build(config).parameters())
    assert sizes["fp32"] == 32 and sizes["bf16"] == 16
    assert 16 > sizes["int8"] > sizes["int4"] > 4.5


def test_a_step_moves_the_weights_and_as_much_ring_as_was_read() -> None:
    contender = ours.Contender(torch.get_num_threads(), "bf16", ours.shape("tiny-griffin"))
    empty, half, full, beyond = (contender.bytes_per_step(1, n) for n in (0, 4, 8, 10**6))
    weights = contender.facts()["weights_bytes"]
    assert weights < empty < half < full == beyond
    assert contender.bytes_per_step(3, 8) - weights == 3 * (full - weights)


def test_a_shape_can_be_divided() -> None:
    small = ours.shape("recurrentgemma-2b", layers=3, scale=10)
    assert (small.width, small.layers, small.vocab) == (256, 3, 25_600)
    build(small, device="meta")


def test_the_flops_of_a_token_of_the_2b_are_those_of_the_table() -> None:
    assert 2 * ours.matrix_parameters(ours.shape("recurrentgemma-2b")) == pytest.approx(
        4.06e9, rel=2e-3
    )


def test_the_limits_are_positive_and_the_matrix_rate_names_its_dtype() -> None:
    machine = Machine(torch.get_num_threads(), buffer=1 << 20, side=64)
    assert machine.read_bandwidth() > 0 and machine.copy_bandwidth() > 0
    rate, dtype = machine.matrix_rate()
    assert rate > 0 and dtype in machine.rates()


@pytest.mark.parametrize("missing", ["gguf", "llama_cpp.llama_cpp", "transformers"])
def test_a_peer_that_is_not_installed_is_named_with_its_command(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    who = "transformers" if missing == "transformers" else "llama.cpp"
    if missing == "llama_cpp.llama_cpp":
        monkeypatch.setattr(contenders.gguf_file, "library", lambda: None)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MissingExtra, match=r"pip install 'griffin-lm\[peers\]'"):
        study.names(who, peers=False)


def test_unknown_names_are_answered_with_the_known() -> None:
    with pytest.raises(InputError, match=r"'jax' is none of: griffin, llama\.cpp, transformers"):
        study.names("jax", peers=False)
    with pytest.raises(InputError, match="--weights 'int3' is none of"):
        Options(weights=("int3",))
    assert study.names("", peers=False) == ("griffin",)
