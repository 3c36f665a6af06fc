"""Half a residual block in one call of the library: the bits of its modules called one by one."""

import weakref
from collections.abc import Callable

import pytest
import torch
from torch import nn

from griffin_lm.layers import halves
from griffin_lm.layers.quantized import QuantizedMatrix, quantize_weights
from griffin_lm.models import Griffin, State, build
from griffin_lm.ops import native

pytestmark = [
    pytest.mark.skipif(native.UNBUILT is not None, reason=str(native.UNBUILT)),
    pytest.mark.usefixtures("without_gradients"),
]
TEXT = torch.randint(3, 60, (2, 24), generator=torch.Generator().manual_seed(0))
HALVES = ("mlp_half", "recurrent_half", "attention_half")


@pytest.fixture
def without_gradients():
    with torch.no_grad():
        yield


@pytest.fixture
def calls(monkeypatch):
    """The names of the halves that were taken in one call, in order."""
    made: list[str] = []

    def counting(name: str, real: Callable[..., object]) -> Callable[..., object]:
        def counted(*given: object) -> object:
            made.append(name)
            return real(*given)

        return counted

    for name in HALVES:
        monkeypatch.setattr(native, name, counting(name, getattr(native, name)))
    return made


def made(kind: str, preset: str = "tiny-griffin") -> Griffin:
    model = build(preset, seed=1, dtype=torch.float32 if kind == "float32" else torch.bfloat16)
    if kind in ("int8", "int4"):
        quantize_weights(model, kind)
    model.kernels = "native"
    return model


def read(model: Griffin, donate: bool = False) -> tuple[torch.Tensor, State]:
    """Logits of a prompt and of some tokens one by one, and the state after them."""
    logits, state = model(TEXT[:, :6], donate=donate)
    parts = [logits]
    for t in range(6, TEXT.shape[1]):
        logits, state = model(TEXT[:, t : t + 1], state=state, donate=donate)
        parts.append(logits)
    return torch.cat(parts, dim=1), state


def by_parts(model: Griffin) -> tuple[torch.Tensor, State]:
    """The same with a hook on every module, so that none may be passed by."""
    hooks = [module.register_forward_hook(lambda *_: None) for module in model.modules()]
    try:
        return read(model)
    finally:
        for hook in hooks:
            hook.remove()


def same(one: tuple[torch.Tensor, State], other: tuple[torch.Tensor, State]) -> bool:
    tensors = [
        [logits, *(tensor for layer in state.layers for tensor in layer)]
        for logits, state in (one, other)
    ]
    return all(torch.equal(a, b) for a, b in zip(*tensors, strict=True))


@pytest.mark.parametrize("preset", ["tiny-griffin", "tiny-hawk", "tiny-gemma"])
@pytest.mark.parametrize("kind", ["float32", "bfloat16", "int8", "int4"])
def test_a_half_has_the_bits_of_its_parts(calls, preset, kind):
    model = made(kind, preset)
    together = read(model)
    assert "mlp_half" in calls and ("recurrent_half" in calls) == (preset != "tiny-gemma")
    before = len(calls)
    assert same(together, by_parts(model))
    assert len(calls) == before


def test_a_donated_state_gives_the_same_and_one_that_is_kept_is_not_touched(calls):
    model = made("bfloat16")
    assert same(read(model, donate=True), read(model))
    _, state = model(TEXT[:, :6])
    kept = state.clone()
    model(TEXT[:, 6:7], state=state)
    assert "attention_half" in calls
    pairs = zip(state.layers, kept.layers, strict=True)
    assert all(torch.equal(a, b) for s, k in pairs for a, b in zip(s, k, strict=True))


def changed_in_place(model: Griffin) -> None:
    for parameter in model.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))


def given_other_memory(model: Griffin) -> None:
    for parameter in model.parameters():
        parameter.data = parameter.data * 1.5


def written_to_unseen(model: Griffin) -> None:
    for parameter in model.parameters():
        parameter.data.mul_(1.25)  # as averages of weights are kept: no version counts it


def given_another_parameter(model: Griffin) -> None:
    linear = model.blocks[0].mlp.down  # pyright: ignore[reportOptionalMemberAccess]  # it has one
    linear.weight = nn.Parameter(linear.weight * 2)


def given_another_module(model: Griffin) -> None:
    model.blocks[0].mixer_norm = model.blocks[1].mlp_norm
    changed_in_place(model.blocks[1].mlp_norm)  # pyright: ignore[reportArgumentType]  # its scale


def quantized_afterwards(model: Griffin) -> None:
    quantize_weights(model, "int8")


@pytest.mark.parametrize(
    "change",
    [
        changed_in_place,
        given_other_memory,
        written_to_unseen,
        given_another_parameter,
        given_another_module,
        quantized_afterwards,
    ],
)
def test_weights_that_change_between_calls_are_noticed(calls, change: Callable[[Griffin], None]):
    model = made("bfloat16")
    before, _ = read(model)
    change(model)
    calls.clear()
    after = read(model)
    assert calls and not torch.equal(after[0], before)
    assert same(after, by_parts(model))


def test_a_hook_a_new_forward_and_an_adapter_are_never_passed_by(calls):
    model = made("int8")
    read(model)
    block = model.blocks[0]
    mlp = block.mlp
    assert mlp is not None
    seen: list[nn.Module] = []
    hook = mlp.up.register_forward_hook(lambda module, *_: seen.append(module))
    read(model)
    assert seen and seen[0] is mlp.up
    hook.remove()
    plain, _ = read(model)
    mlp.forward = lambda x: torch.zeros_like(x)
    assert not torch.equal(read(model)[0], plain)
    del mlp.forward
    assert torch.equal(read(model)[0], plain)
    weight: torch.Tensor | QuantizedMatrix = mlp.down.weight
    assert isinstance(weight, QuantizedMatrix)
    weight.add(torch.randn(2, weight.shape[1]), torch.randn(weight.shape[0], 2))
    adapted = read(model)
    assert not torch.equal(adapted[0], plain) and same(adapted, by_parts(model))


def test_a_hook_on_all_modules_is_never_passed_by(calls):
    model = made("bfloat16")
    read(model)
    seen: list[nn.Module] = []
    hook = nn.modules.module.register_module_forward_hook(lambda module, *_: seen.append(module))
    try:
        calls.clear()
        read(model)
    finally:
        hook.remove()
    assert not calls and model.blocks[0].mlp in seen


def test_weights_that_went_there_and_back_are_read_where_they_lie_now(calls):
    """No version counts it and the numbers are the old ones: only the address tells."""
    model = made("bfloat16")
    before = read(model)
    gates = [p for name, p in model.named_parameters() if "gate" in name or "Lambda" in name]
    for factor in (2.0, 0.5):
        for gate in gates:
            gate.data.mul_(factor)
        by_parts(model)  # makes other forms of the weights, and lets the first go
    assert same(read(model), before)


def test_weights_that_were_replaced_are_free_to_go(calls):
    model = made("bfloat16")
    read(model)
    known = [weakref.ref(m.weight) for m in model.blocks[0].modules() if isinstance(m, nn.Linear)]
    quantize_weights(model, "int8")
    assert calls and known
    assert [weight for weight in known if weight() is not None] == []


def test_where_a_gradient_is_wanted_every_module_is_called(calls):
    model = made("float32")
    model.kernels = "auto"
    with torch.enable_grad():
        logits, _ = model(TEXT)
    assert logits.requires_grad and not calls


def test_words_are_written_once_and_again_after_a_change(calls):
    model, written = made("bfloat16"), []
    real = halves.Description.norm

    def counted(self, norm):
        written.append(norm)
        real(self, norm)

    halves.Description.norm = counted
    try:
        read(model)
        first = len(written)
        read(model)
        assert first == len(written) > 0
        given_another_parameter(model)
        read(model)
        assert len(written) == first + 1
    finally:
        halves.Description.norm = real
