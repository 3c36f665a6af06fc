"""What a model would take: parameters by part, and bytes of weights, state and peak.

Everything is counted on tensors of the device meta, so a 9B costs no memory to ask about; the
formulas that the counts obey stand in the tests, computed independently of this file.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache

import torch

from ..layers.quantized import KINDS, has_matrix
from ..ops.quantized_linear import packed_layout
from .config import ModelConfig
from .griffin import Griffin

QUANTISED = KINDS  # what a matrix may be stored in besides floats

# how the parts of the recurrent block of RG-LRU are told apart, the first that is found counts
_RECURRENT = {
    ".cell.": "gates and Lambda",
    ".conv.": "causal conv",
    ".linear_": "recurrent block, linear",
}


@dataclass(frozen=True)
class Memory:
    """Bytes that a model needs with weights of one dtype; nothing of the runtime itself.

    weights                    all parameters
    state_per_sequence         the state of one row, at its full size where it has one
    state_per_token            by how much it grows with each token: 0 but for global attention
    state_of_recurrent_layers  that part of it which the layers with a recurrence hold
    logits_per_sequence        one token's logits, fp32
    to_load                    weights, and the largest tensor beside its copy
    to_run_one_sequence        weights, state and logits
    """

    weights: int
    state_per_sequence: int
    state_per_token: int
    state_of_recurrent_layers: int
    logits_per_sequence: int
    to_load: int
    to_run_one_sequence: int

    @property
    def peak(self) -> int:
        """The most that loading and running one sequence takes."""
        return max(self.to_load, self.to_run_one_sequence)

    def to_dict(self) -> dict[str, int]:
        """For JSON."""
        return asdict(self)


def parameter_counts(config: ModelConfig) -> dict[str, int]:
    """Parameters by part, in the order in which the parts first occur."""
    parts: dict[str, int] = {}
    for name, parameter in _on_meta(config, torch.float32).named_parameters():
        part = _part(name, config)
        parts[part] = parts.get(part, 0) + parameter.numel()
    return parts


def parameter_count(config: ModelConfig) -> int:
    """All parameters; tied tables count once."""
    return sum(parameter_counts(config).values())


def memory(
    config: ModelConfig, dtype: torch.dtype, kinds: Mapping[str, str] | None = None
) -> Memory:
    """What a model with weights of this dtype needs; kinds: of weights that are quantised."""
    model = _on_meta(config, dtype)
    sizes = list(weight_bytes(config, dtype, kinds).values())
    state = model.empty_state(1)
    recurrent = sum(
        _bytes(tensor) for layer in state.layers if "h" in layer._fields for tensor in layer
    )
    logits = config.vocab * torch.float32.itemsize
    return Memory(
        weights=sum(sizes),
        state_per_sequence=state.nbytes,
        state_per_token=state.bytes_per_token,
        state_of_recurrent_layers=recurrent,
        logits_per_sequence=logits,
        to_load=sum(sizes) + max(sizes),
        to_run_one_sequence=sum(sizes) + state.nbytes + logits,
    )


def weight_bytes(
    config: ModelConfig, dtype: torch.dtype, kinds: Mapping[str, str] | None = None
) -> dict[str, int]:
    """Bytes of each weight by name. kinds: of those that are matrices in "int8" or "int4"."""
    sizes: dict[str, int] = {}
    for name, parameter in _on_meta(config, dtype).named_parameters():
        kind = (kinds or {}).get(name)
        if kind is None or parameter.dim() != 2:
            sizes[name] = _bytes(parameter)
        else:
            layout = packed_layout(kind, *parameter.shape).values()
            sizes[name] = sum(torch.Size(shape).numel() * d.itemsize for shape, d in layout)
    return sizes


def quantised_bytes(config: ModelConfig, kind: str) -> int:
    """Bytes of the weights with every matrix in "int8" or "int4", the rest in bfloat16."""
    modules = _on_meta(config, torch.bfloat16).named_modules()
    kinds = {f"{name}.weight": kind for name, module in modules if has_matrix(module)}
    return sum(weight_bytes(config, torch.bfloat16, kinds).values())


def _bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


@lru_cache(maxsize=4)
def _on_meta(config: ModelConfig, dtype: torch.dtype) -> Griffin:
    """Shapes without memory. Kept, since three questions are usually asked of one model."""
    return Griffin(config, "meta", dtype)


def _part(name: str, config: ModelConfig) -> str:
    """What a table calls the part that a parameter belongs to."""
    layer = re.match(r"layers\.(\d+)\.mixer\.", name)
    if layer is not None:
        kind = config.mixer(int(layer[1])).kind
        label = next((label for piece, label in _RECURRENT.items() if piece in name), None)
        return label if kind == "rg_lru" and label else kind.replace("_", " ")
    if name.startswith("embed."):
        return "embedding (and head)" if getattr(config, "tied", True) else "embedding"
    if name.startswith("head."):
        return "head"
    return "MLP" if ".mlp." in name else "norms"
