"""LoRA inside our models: what is adapted, that nothing passes it by, and who gets a gradient."""

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from griffin_lm.errors import CheckpointError, ConfigError, MissingExtra, TrainingError
from griffin_lm.layers.linear import multiply
from griffin_lm.layers.quantized import QuantizedMatrix
from griffin_lm.models import Griffin
from griffin_lm.training.finetuning import lora
from griffin_lm.training.finetuning.config import FinetuneConfig
from tests.training.finetuning.conftest import FAMILIES, adapted, base_of

LORA = FinetuneConfig(rank=2, alpha=4.0)
GATES = replace(LORA, gates=True)
TOKENS = torch.randint(3, 380, (1, 9), generator=torch.Generator().manual_seed(0))
each_family = pytest.mark.parametrize("family", FAMILIES)


def logits(model: Griffin, length: int = 9) -> torch.Tensor:
    found = model(TOKENS[:, :length])[0]
    assert found is not None
    return found


@each_family
@pytest.mark.parametrize("quantize", [None, "int4", "int8"])
def test_before_the_first_step_nothing_is_changed_to_the_bit(
    folders: dict[str, Path], family: str, quantize: str | None
):
    model = base_of(folders[family], quantize=quantize).lm.model
    with torch.no_grad():
        before = logits(model)
        lora.adapt(model, LORA)
        assert torch.equal(logits(model.eval()), before)


@pytest.mark.parametrize("training", [True, False], ids=["training", "serving"])
@pytest.mark.parametrize(
    ("family", "config", "quantize", "dtype"),
    [
        *(("tiny-griffin", GATES, None, dtype) for dtype in (torch.float32, torch.bfloat16)),
        *((family, LORA, None, torch.bfloat16) for family in FAMILIES[1:]),
        ("tiny-griffin", LORA, "int4", torch.float32),
        pytest.param("tiny-llama", LORA, "int8", torch.bfloat16, marks=pytest.mark.slow),
    ],
)
def test_every_adapter_alone_changes_the_logits(
    folders: dict[str, Path],
    family: str,
    config: FinetuneConfig,
    quantize: str | None,
    dtype: torch.dtype,
    training: bool,
):
    # a fused or raw product that takes a wrapped map's own weight would pass its adapter by; the
    # kernels that may fuse differ with dtype, gradient and the number of tokens
    model, targets = adapted(folders[family], config, dtype, quantize=quantize)
    factors = lora.factors(dict(model.named_parameters()), targets)
    for _, b in factors.values():
        b.zero_()
    first = {name.split(".", 2)[2]: name for name in reversed(factors)}  # of each kind
    with torch.set_grad_enabled(training):
        plain = {length: logits(model, length).detach() for length in (1, 9)}
        for kind, name in first.items():
            b = factors[name][1]
            b.normal_(std=4)
            assert not torch.equal(logits(model), plain[9]), f"{name} is passed by"
            # alone, a token attends to itself whatever q and k are, and nothing is there to decay
            if kind.split(".")[-2] not in ("q", "k", "a_gate"):
                assert not torch.equal(logits(model, 1), plain[1]), f"{name} is passed by"
            b.zero_()


def test_all_linear_maps_are_adapted_and_the_tied_head_never(folders: dict[str, Path]):
    model, targets = adapted(folders["tiny-griffin"], LORA)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {
        f"{name}.lora_{side}.default.weight" for name in targets.modules for side in "AB"
    }
    kinds = {name.split(".", 2)[2] for name in targets.modules}
    assert kinds == {
        *("mlp.gate", "mlp.up", "mlp.down", "mixer.linear_x", "mixer.linear_y"),
        *("mixer.linear_out", "mixer.q", "mixer.k", "mixer.v", "mixer.out"),
    }
    lines = "\n".join(targets.lines(model.config.layers))
    assert "not adapted: mixer.cell.a_gate" in lines and "embed" in lines
    assert 0.3 < targets.share < 1


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("q", "v"), {"q", "v"}),
        (("q_proj", "mlp.down"), {"q", "down"}),
        (("linear_x",), {"linear_x"}),
    ],
)
def test_targets_are_named_as_ours_or_as_hugging_faces(
    folders: dict[str, Path], words: tuple[str, ...], found: set[str]
):
    _, targets = adapted(folders["tiny-griffin"], replace(LORA, targets=words))
    assert {name.rpartition(".")[2] for name in targets.modules} == found


@pytest.mark.parametrize(
    ("family", "config", "said"),
    [
        ("tiny-griffin", replace(LORA, targets=("lm_head",)), "embedding and head are never"),
        ("tiny-griffin", replace(LORA, targets=("embed",)), "embedding and head are never"),
        ("tiny-griffin", replace(LORA, targets=("w1",)), "there are: all, linear_x.*q_proj"),
        ("tiny-mamba", replace(LORA, targets=("step",)), "step names nothing"),
        ("tiny-llama", GATES, "no block-diagonal gates"),
    ],
)
def test_targets_that_cannot_be_are_refused_with_those_that_can(
    folders: dict[str, Path], family: str, config: FinetuneConfig, said: str
):
    with pytest.raises(ConfigError, match=said):
        lora.adapt(base_of(folders[family]).lm.model, config)


def test_gates_with_dropout_are_refused():
    with pytest.raises(ConfigError, match="dropout of inputs has no place"):
        FinetuneConfig(gates=True, dropout=0.1)


@pytest.mark.parametrize("config", [LORA, GATES], ids=["linear", "gates"])
def test_every_adapter_has_a_gradient_after_the_first_backward(
    folders: dict[str, Path], config: FinetuneConfig
):
    model = base_of(folders["tiny-griffin"]).lm.model
    targets = lora.adapt(model, config)
    logits(model).square().mean().backward()
    lora.check_gradients(model, targets)
    assert all(p.grad is None for p in model.parameters() if not p.requires_grad)
    a, b = next(iter(lora.factors(dict(model.named_parameters()), targets).values()))
    assert not b.any() and a.any()


def test_an_adapter_that_is_passed_by_is_named(folders: dict[str, Path]):
    model = base_of(folders["tiny-griffin"]).lm.model
    targets = lora.adapt(model, LORA)
    gate: Any = model.layers[1].mlp.gate
    calls = gate.forward
    gate.forward = lambda x: multiply(x, gate.weight, gate.bias)  # as a fused kernel might
    logits(model).square().mean().backward()
    with pytest.raises(TrainingError, match=r"1 of \d+ adapters .* layers\.1\.mlp\.gate;"):
        lora.check_gradients(model, targets)
    gate.forward = calls
    logits(model).square().mean().backward()
    lora.check_gradients(model, targets)


@each_family
def test_a_rounded_base_stays_as_it_is_and_its_adapters_learn(
    folders: dict[str, Path], family: str
):
    model, targets = adapted(folders[family], LORA, quantize="int4")
    assert not isinstance(model.embed.weight, QuantizedMatrix)  # its errors would reach every logit
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    assert before
    logits(model).square().mean().backward()
    lora.check_gradients(model, targets)
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, before[name]), name


def test_a_rounded_bases_gradients_are_those_of_its_dequantised_copy(folders: dict[str, Path]):
    model, targets = adapted(folders["tiny-llama"], LORA, quantize="int8")
    dense, same = adapted(folders["tiny-llama"], LORA)
    for name in targets.modules:
        rounded: Any = model.get_submodule(name)
        full: Any = dense.get_submodule(name)
        full.base_layer.weight.data = rounded.base_layer.weight.dense()
    for each in (model, dense):
        logits(each).square().mean().backward()
    # activations are rounded to 8 bits on the way forward, hence the tolerance
    pairs = zip(grads(model, targets), grads(dense, same), strict=True)
    for mine, exact in pairs:
        assert (mine - exact).norm() < 0.1 * exact.norm()


def grads(model: Griffin, targets: Any) -> list[torch.Tensor]:
    found = [p.grad for p in model.parameters() if p.requires_grad]
    assert len(found) == 2 * len(targets.adapted)
    return [grad for grad in found if grad is not None]


def test_an_adapter_is_not_merged_into_rounded_weights(folders: dict[str, Path]):
    model, targets = adapted(folders["tiny-llama"], LORA, quantize="int4")
    layer: Any = model.get_submodule(targets.modules[0])
    with pytest.raises(CheckpointError, match="they would be rounded again"):
        layer.merge()


def test_adapters_are_in_fp32_on_a_narrow_base(folders: dict[str, Path]):
    model, _ = adapted(folders["tiny-griffin"], LORA, torch.bfloat16)
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}


def test_without_peft_the_way_to_it_is_said(folders: dict[str, Path], monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "peft" else find(name, *rest),
    )
    with pytest.raises(MissingExtra, match=r"pip install 'griffin-lm\[train\]'"):
        lora.adapt(base_of(folders["tiny-llama"]).lm.model, LORA)
