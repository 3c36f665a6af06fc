"""Where the time of one training step goes, by PyTorch's profiler."""

from collections import Counter
from typing import Any

import torch

from .cases import Case
from .contestants import Contestant

# the first row whose word stands in an event's own name decides; then those around it
_OWN = (
    ("optimiser", ("_fused_adamw", "Optimizer.step")),
    ("gradient's norm", ("_foreach_norm", "foreach_mul", "linalg_vector_norm")),
    ("recurrence", ("griffin_lm::rg_lru", "griffin_lm::scan", "griffin_lm::causal_conv")),
    ("recurrence", ("griffin_lm_rg_lru", "griffin_lm_scan", "griffin_lm_causal_conv")),  # forward
    ("attention", ("scaled_dot_product", "griffin_lm::band", "griffin_lm_band", "_softmax")),
    ("loss", ("griffin_lm::loss", "_Fused")),
    ("linear products", ("aten::mm", "aten::addmm", "aten::bmm", "aten::linear", "mkldnn", "mkl")),
)
_FUSED = (  # kernels that torch.compile made, by the operations in their names
    ("attention", ("softmax", "scaled_dot", "bitwise_and")),
    ("MLP elementwise", ("gelu", "silu")),
    ("norm", ("rsqrt", "native_layer_norm")),
    ("loss", ("tanh",)),
)
_AROUND = (
    ("loss", ("_Fused",)),
    ("optimiser", ("Optimizer.step",)),
    ("attention", ("ScaledDotProduct",)),
)


def parts_of_a_step(case: Case, one: Contestant) -> dict[str, Any]:
    """Seconds of each part of one more step of a contestant, the largest first.

    Parts are told apart by the names of operations; what no rule knows is "other elementwise".
    """
    length, rows = case.spans()[0]
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        one.step(length, rows)
    spent: Counter[str] = Counter()
    unknown: Counter[str] = Counter()
    for event in profile.events() or ():
        if event.self_cpu_time_total <= 0:
            continue
        part = _part(event)
        spent[part] += event.self_cpu_time_total / 1e6
        if part == "other elementwise":
            unknown[event.name] += event.self_cpu_time_total / 1e6
    return {
        "what": f"train {case.name}",
        "who": one.who,
        "weights": one.weights,
        "seconds": {name: round(seconds, 4) for name, seconds in spent.most_common()},
        "other": {name: round(seconds, 4) for name, seconds in unknown.most_common(8)},
    }


def _part(event: Any) -> str:
    name = event.name
    for part, words in _OWN:
        if any(word in name for word in words):
            return part
    if "cpp_fused" in name:
        for part, words in _FUSED:
            if any(word in name for word in words):
                return part
    around = event.cpu_parent
    while around is not None:
        for part, words in _AROUND:
            if any(word in around.name for word in words):
                return part
        around = around.cpu_parent
    return "other elementwise"
