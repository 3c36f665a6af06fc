"""What is computed twice changes no bit of a gradient, and what is kept for the way back."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

from griffin_lm.errors import ConfigError
from griffin_lm.mixers import RGLRU, LocalAttention
from griffin_lm.models import PRESETS, Griffin, build
from griffin_lm.ops import native
from griffin_lm.ops.attention import flex
from griffin_lm.training import blocks
from griffin_lm.training.config import TrainConfig, with_settings

KINDS = ("tiny-lru", "tiny-gru", "tiny-mamba", "tiny-mqa")  # besides tiny-griffin, below


def inputs(rows: int = 2, length: int = 12) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens with document starts and gaps among them."""
    random = torch.Generator().manual_seed(3)
    tokens = torch.randint(0, 50, (rows, length), generator=random)
    starts = torch.rand(rows, length, generator=random) < 0.1
    return tokens, starts, torch.rand(rows, length, generator=random) < 0.8


def gradients(model: Griffin, recompute: str, autocast: bool = False) -> list[Tensor | None]:
    """Of a text in two pieces, the state carried, a gradient through it."""
    blocks.prepare_blocks(model, compiled=False, recompute=recompute)
    torch.manual_seed(0)  # of dropout, where there is some
    tokens, starts, valid = inputs()
    state, total = None, torch.zeros((), dtype=torch.float64)
    for piece in (slice(0, 5), slice(5, None)):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            given = tokens[:, piece], starts[:, piece], valid[:, piece]
            hidden, state = model.hidden(*given, state=state)
        total = total + hidden.double()[valid[:, piece]].square().sum()
    for layer in state.layers:
        for tensor in layer:
            total = total + tensor.double().square().sum()
    total.backward()
    return [parameter.grad for parameter in model.parameters()]


def assert_same_bits(make: Callable[[], Griffin], **options: Any) -> None:
    plain = gradients(make(), "none", **options)
    assert any(grad is not None and bool(grad.any()) for grad in plain)
    for recompute in ("selective", "full"):
        for one, other in zip(plain, gradients(make(), recompute, **options), strict=True):
            assert (one is None) == (other is None), recompute
            assert one is None or other is None or torch.equal(one, other), recompute


@pytest.mark.parametrize("preset", KINDS)
def test_the_gradients_are_the_same_to_the_bit_for_every_kind_of_mixer(preset: str):
    assert_same_bits(lambda: build(preset))


@pytest.mark.parametrize(
    "kernels, kind, autocast",
    (
        ("auto", torch.bfloat16, False),
        ("auto", torch.float32, True),
        ("auto", torch.float64, False),
        ("reference", torch.float32, False),
    ),
)
def test_the_gradients_are_the_same_to_the_bit_in_every_dtype_and_with_named_kernels(
    kernels: str, kind: torch.dtype, autocast: bool
):
    def make() -> Griffin:
        model = build("tiny-griffin", dtype=kind)
        model.kernels = kernels
        return model

    assert_same_bits(make, autocast=autocast)


def dropped(module: nn.Module, given: Any, out: Any) -> Tensor:
    return nn.functional.dropout(out, 0.3)


def test_dropout_drops_the_same_numbers_when_they_are_computed_again():
    def make() -> Griffin:
        model = build("tiny-griffin")
        for block in model.blocks:
            assert block.mlp is not None
            block.mlp.up.register_forward_hook(dropped)
        return model

    assert_same_bits(make)


def kept_bytes(model: Griffin, recompute: str, rows: int = 1, length: int = 256) -> int:
    """What a forward pass allocates and does not free, while all that backward needs is held.

    By the allocator's own account: whoever holds a tensor for the way back, it counts.
    """
    blocks.restore_blocks(model)
    blocks.prepare_blocks(model, compiled=False, recompute=recompute)
    tokens, starts, _ = inputs(rows, length)
    model.hidden(tokens, starts)  # what is made once and stays is made here
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        held = model.hidden(tokens, starts)
    del held
    events: Any = seen.events()
    return sum(event.self_cpu_memory_usage for event in events)


def recurrentgemma(width: int) -> Griffin:
    """The 2B's proportions in bf16, three blocks: recurrent, recurrent, attention."""
    config = PRESETS["recurrentgemma-2b"]
    recurrent, _, attention = config.pattern
    assert isinstance(recurrent, RGLRU) and isinstance(attention, LocalAttention)
    recurrent = replace(recurrent, width=width)
    attention = replace(attention, head_dim=width // attention.heads)
    small = replace(config, layers=3, pattern=(recurrent, recurrent, attention), vocab=64)
    return build(replace(small, width=width, mlp_width=3 * width), dtype=torch.bfloat16)


def test_selective_keeps_a_little_more_than_half_of_the_bytes_and_full_hardly_more_than_the_input():
    model = recurrentgemma(320)
    none, some, full = (kept_bytes(model, kind) for kind in blocks.RECOMPUTE)
    assert some < 0.65 * none and full < 0.3 * some


def test_attention_and_products_are_not_computed_twice():
    """Counted as PyTorch dispatches them, in the way back."""

    class Counted(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.seen: dict[str, int] = {}

        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            self.seen[str(func)] = self.seen.get(str(func), 0) + 1
            return func(*args, **(kwargs or {}))

    counts = {}
    for recompute in blocks.RECOMPUTE:
        model = build("tiny-griffin")
        blocks.prepare_blocks(model, compiled=False, recompute=recompute)
        tokens, starts, _ = inputs()
        hidden, _ = model.hidden(tokens, starts)
        with Counted() as counted:
            hidden.sum().backward()
        counts[recompute] = counted.seen
    compiled = native.UNBUILT is None  # else neither attention nor the recurrence is one operation
    attention = ["griffin_lm.band_attention.default"] if compiled else []
    for operation in ("aten.addmm.default", *attention):
        assert counts["none"].get(operation, 0) == counts["selective"].get(operation, 0), operation
        assert counts["full"][operation] > counts["none"].get(operation, 0), operation
    if compiled:
        again = "griffin_lm.rg_lru.default"
        assert counts["selective"][again] == counts["full"][again] > counts["none"].get(again, 0)


def compare_a_compiled_region() -> None:
    """In a process without the shape checker: attention as `flex` compiles it, in a plain block."""
    attend = torch.compile(lambda q, k: (q @ k.mT).softmax(-1) @ k, options=flex.SEEN)
    weight, x = torch.randn(16, 16, requires_grad=True), torch.randn(8, 16)
    region, seen = torch.ops.higher_order.inductor_compiled_code, list[bool]()

    def kept(context: Any, operation: Any, *arguments: Any, **options: Any) -> Any:
        policy = blocks.kept(context, operation, *arguments, **options)
        if operation is region and not context.is_recompute:
            seen.append(policy == CheckpointPolicy.MUST_SAVE)
        return policy

    def block(x: Tensor) -> Tensor:
        y = (x @ weight).cos()
        return x + attend(y, 2 * y)

    block(x).sum().backward()
    plain, weight.grad = weight.grad, None
    contexts = partial(create_selective_checkpoint_contexts, kept)
    checkpoint(block, x, use_reentrant=False, context_fn=contexts).sum().backward()
    assert seen == [True], seen
    assert plain is not None and weight.grad is not None and torch.equal(plain, weight.grad)


@pytest.mark.slow
def test_a_compiled_region_in_a_plain_block_is_kept():
    """On a GPU FlexAttention is one."""
    code = (
        "from tests.training.test_recompute import compare_a_compiled_region as compare; compare()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2]
    )
    assert done.returncode == 0, done.stderr


def test_what_is_computed_again_is_named_in_a_setting():
    assert with_settings(TrainConfig(), ["recompute=selective"]).recomputed() == "selective"
    with pytest.raises(ConfigError, match="none or selective or full"):
        TrainConfig(recompute="some")
    old = with_settings(TrainConfig(), ["checkpoint_blocks=true"])
    assert old.recomputed() == "full", "the setting's former name"
    with pytest.raises(ConfigError, match="one of the two"):
        replace(old, recompute="selective")
