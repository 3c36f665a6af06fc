"""Every Triton kernel compiles for Hopper, here without a GPU: in its limits, without atomics."""

import importlib.util

import pytest
import torch
from torch.nn.functional import softplus

from griffin_lm.ops.attention import triton_gpu as attention_gpu
from griffin_lm.ops.backend import prefer
from griffin_lm.ops.causal_conv import causal_conv
from griffin_lm.ops.conv_gates import conv_gates
from griffin_lm.ops.cross_entropy import triton_gpu as cross_entropy_gpu
from griffin_lm.ops.gated_recurrence import triton_gpu as gated_recurrence_gpu
from griffin_lm.ops.gating import gated
from griffin_lm.ops.linear.blocks import block_linear
from griffin_lm.ops.linear_scan import triton_gpu as scan_gpu
from griffin_lm.ops.linear_scan.plan import Plan
from griffin_lm.ops.quantized_linear import Int4Weight, Int8Weight, packed_layout
from griffin_lm.ops.quantized_linear import triton_gpu as quantized_gpu
from griffin_lm.ops.rg_lru import definition
from griffin_lm.ops.rg_lru import triton_gpu as rg_lru_gpu
from griffin_lm.ops.rms_norm import add_rms_norm, rms_norm

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("triton") is None,
        reason="Triton has wheels for Linux on x86-64 only",
    ),
]
WIDTH = 2560
WALKS = {
    *("scan", "ends", "states", "gradient_ends", "gradient"),
    *("gated_states", "gated_gradient_ends", "gated_gradient"),
}  # they keep whole tiles of time in registers
EXACT = {"shares"}  # whose products in fp32 are made without a matrix unit, to be exact: not fast


@pytest.fixture
def compiled(monkeypatch, tmp_path, request):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))  # a cached binary would prove nothing
    from tests.ops.ahead_of_time import compiled_instead_of_run, stack_bytes

    with compiled_instead_of_run(monkeypatch) as made:
        yield made
    exact = EXACT if "float32" in request.node.name else set()
    for name, versions in made.items():
        for kernel in versions:
            assert kernel.metadata.shared <= 227 * 1024, f"{name}: more than a block may have"
            assert "atom." not in kernel.asm["ptx"], name
            spilled, most = stack_bytes(kernel, tmp_path), 0 if name in WALKS else 64
            assert spilled <= most or name in exact, f"{name}: not enough registers"


def recurrence(dtype, steps=64):
    x = torch.zeros(1, steps, WIDTH, dtype=dtype)
    rate = definition.C * softplus(torch.zeros(WIDTH))
    starts, h0 = torch.zeros(1, steps, dtype=torch.bool), torch.zeros(1, WIDTH)
    return x, x, x, rate, starts, h0


@pytest.mark.parametrize("dtype", (torch.bfloat16, torch.float32), ids=str)
def test_the_rg_lru_does(compiled, dtype):
    inputs = recurrence(dtype)
    hs = torch.zeros(1, 64, WIDTH)
    for way in (Plan(64, 1), Plan(32, 2)):
        rg_lru_gpu.launch(*inputs, way)
        rg_lru_gpu.launch_gradient(*inputs, hs, hs, way)
    assert set(compiled) == {"states", "gradient", "gradient_ends", "link"}


@pytest.mark.parametrize("dtype", (torch.bfloat16, torch.float32), ids=str)
def test_its_scan_stays_in_a_threads_registers_while_the_next_tiles_load(compiled, dtype):
    """No shuffle; copies from memory that nobody waits for."""
    rg_lru_gpu.launch(*recurrence(dtype), Plan(64, 1))
    rg_lru_gpu.launch_gradient(*recurrence(dtype), *[torch.zeros(1, 64, WIDTH)] * 2, Plan(64, 1))
    for kernel in (*compiled["states"], *compiled["gradient"]):
        code = kernel.asm["ptx"]
        assert "shfl" not in code
        assert code.count("cp.async.c") >= 3


@pytest.mark.parametrize("counted", (False, True))
@pytest.mark.parametrize("dtype", (torch.bfloat16, torch.float32), ids=str)
def test_the_gated_recurrence_does(compiled, dtype, counted):
    """Its tiles are turned over without a shuffle, and without a round through shared memory."""
    x, _, _, rate, starts, h0 = recurrence(dtype)
    given = (x, x, x, x, rate, starts, h0, torch.tensor([60]) if counted else None)
    for way in (Plan(64, 1), Plan(32, 2)):
        _, _, saved = gated_recurrence_gpu.launch(*given, True, way)
        gated_recurrence_gpu.launch(*given, False, way)
        gated_recurrence_gpu.launch_gradient(*given, saved, x, h0, way)
    walks = {"gated_states", "gated_gradient_ends", "gated_gradient"}
    assert set(compiled) == {*walks, "states", "link"}
    for kernel in (kernel for name in walks for kernel in compiled[name]):
        assert "shfl" not in kernel.asm["ptx"] and "cp.async.c" in kernel.asm["ptx"]


def test_the_linear_scan_does(compiled):
    x, h0 = torch.zeros(1, 64, WIDTH), torch.zeros(1, WIDTH)
    for reverse in (False, True):
        for way in (Plan(64, 1), Plan(32, 2)):
            scan_gpu.launch(x, x, h0, reverse, way)
    assert set(compiled) == {"scan", "ends", "link"}


@pytest.mark.parametrize("dtype", (torch.bfloat16, torch.float32), ids=str)
def test_what_stands_around_the_recurrence_does(compiled, dtype):
    """Norms, gated products, the conv, the gates' maps; forward and backward."""

    def leaf(*shape):
        return torch.zeros(shape, dtype=dtype, requires_grad=True)

    def gates(u, position):
        maps = [leaf(*size) for size in ((10, 256, 256), (10, 256)) * 2]
        return conv_gates(u, leaf(1, 3, WIDTH), leaf(4, WIDTH), leaf(WIDTH), position, *maps)

    x, position = leaf(1, 128, WIDTH), torch.zeros(1, 128, dtype=torch.int64)
    with prefer("triton"):
        outs = [
            rms_norm(x, leaf(WIDTH), 1e-6, True),
            *add_rms_norm(x, x, leaf(WIDTH), 1e-6, False),
            gated(x, x, "gelu"),
            gated(x, x, "silu"),
            causal_conv(x, leaf(1, 3, WIDTH), leaf(4, WIDTH), leaf(WIDTH), position),
            block_linear(x, leaf(10, 256, 256), leaf(10, 256)),
            block_linear(x[:, :1], leaf(10, 256, 256), leaf(10, 256)),
            *gates(x, position),
            *gates(x[:, :1], position[:, :1]),
        ]
        sum(out.sum() for out in outs).backward()
    assert set(compiled) == {
        *("norm", "norm_gradient", "product", "product_gradient", "conv", "block_linear"),
        *("gradient_at_inputs", "gradient_at_weights", "conv_gates", "gradient_at_conv"),
    }


@pytest.mark.parametrize("dtype", (torch.bfloat16, torch.float32), ids=str)
@pytest.mark.parametrize("steps", (1, 3))
def test_decode_attention_and_its_ring_do(compiled, dtype, steps):
    q, k = torch.zeros(2, steps, 10, 256, dtype=dtype), torch.zeros(2, steps, 1, 256, dtype=dtype)
    ring, read = torch.zeros(2, 2048, 1, 256, dtype=dtype), torch.zeros(2, dtype=torch.int64)
    seen = torch.zeros(2, steps, dtype=torch.int64)
    attention_gpu.decode(q, k, k, ring, ring, read, seen, splits=9)
    attention_gpu.write_ring(ring, k, read, read)
    k8, ring8 = (torch.zeros(t.shape, dtype=torch.int8) for t in (k, ring))
    scales = (torch.zeros(2, steps, 1, 1),) * 2 + (torch.zeros(2, 2048, 1, 1),) * 2
    attention_gpu.decode(q, k8, k8, ring8, ring8, read, seen, splits=9, scales=scales)
    assert set(compiled) == {"shares", "together", "write_ring"}


@pytest.mark.parametrize("dtype", (torch.bfloat16, torch.float32), ids=str)
@pytest.mark.parametrize("cap", (0.0, 30.0))
def test_cross_entropy_over_256_thousand_words_does(compiled, dtype, cap):
    logits, targets = torch.zeros(2, 256_000, dtype=dtype), torch.zeros(2, dtype=torch.int64)
    cross_entropy_gpu.cross_entropy(logits, targets, torch.ones(2), cap)
    assert set(compiled) == {"loss"}


@pytest.mark.parametrize("dtype", (torch.bfloat16, torch.float32), ids=str)
def test_products_with_8_and_4_bits_do(compiled, dtype):
    x, bias = torch.zeros(4, WIDTH, dtype=dtype), torch.zeros(512, dtype=dtype)
    layouts = {kind: packed_layout(kind, 512, WIDTH) for kind in ("int8", "int4")}
    int8, int4 = (
        tuple(torch.zeros(shape, dtype=kind) for shape, kind in layout.values())
        for layout in layouts.values()
    )
    quantized_gpu.linear_int8(x, Int8Weight(*int8), bias)
    quantized_gpu.linear_int4(x, Int4Weight(*int4), 512, None)
    assert set(compiled) == {"quantize", "int8_rows", "int4_panels"}
