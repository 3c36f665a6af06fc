"""LoRA adapters in peft's layout, under Hugging Face's names: read without peft, and written.

adapter_config.json, adapter_model.safetensors   as `peft.PeftModel.from_pretrained` takes them
griffin.json                                      ours: the fingerprint of the base, its name

A matrix W (N, K) becomes W + scale B A, with A (r, K) and B (N, r); a stack of blocks (H, N, K),
such as the gates of an RG-LRU, gets one such product a block.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import CheckpointError, CheckpointMismatch, CheckpointNotFound
from ..models import ModelConfig
from ..precision import accumulation
from ..shapes import JSON
from .files import CONFIG, appearing, read_json, write_json
from .huggingface import HUGGINGFACE
from .names import Shape, expand
from .source import Outgoing
from .tensors import TensorFile
from .writing import write_tensors

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
FACTS = "griffin.json"
FOLDER = "adapter"  # in the folder of a run
_BEFORE = "base_model.model."  # of every name in the file
# settings of peft's LoRA that change what a product is, and the values with which they do not
_PLAIN: JSON = {
    "use_dora": False, "lora_bias": False, "fan_in_fan_out": False, "bias": "none",
    "modules_to_save": None, "layer_replication": None, "trainable_token_indices": None,
    "use_qalora": False, "alora_invocation_tokens": None, "megatron_config": None,
    "arrow_config": None, "use_bdlora": None, "velora_config": None, "monteclora_config": None,
    "kasa_config": None,
}  # fmt: skip


class Factors(NamedTuple):
    """What is added to one parameter: scale B A, or that of each block."""

    a: Tensor
    b: Tensor
    scale: float

    def delta(self, shape: Shape) -> Tensor:
        """In fp32 and the parameter's shape."""
        a, b = self.a.float(), self.b.float()
        if len(shape) == 2:
            return (b @ a) * self.scale
        blocks = shape[0]  # rows of A by block, columns of B by rank: as peft lays them out
        a, b = a.view(blocks, -1, shape[2]), b.view(shape[1], -1, blocks)
        return torch.einsum("nrh,hrk->hnk", b, a) * self.scale

    def thin(self) -> tuple[Tensor, Tensor]:
        """A and scale B of a matrix, in fp32."""
        return self.a.float(), self.b.float() * self.scale


@dataclass(frozen=True)
class Adapter:
    """Read and checked. base: the fingerprint of the weights it was made for, or None."""

    where: Path
    factors: dict[str, Factors]
    base: str | None

    def change(self, name: str, tensor: Tensor) -> Tensor:
        """A parameter by our name with its part added, in fp32 or wider; others as they are."""
        factors = self.factors.get(name)
        if factors is None:
            return tensor
        wide = tensor.to(accumulation(tensor.dtype))
        return wide + factors.delta(tuple(tensor.shape)).to(wide)

    def over(self, base: str) -> str:
        """A fingerprint for weights that keep it beside them: of the base's and of A and B."""
        digest = hashlib.sha256(base.encode())
        for name, factors in sorted(self.factors.items()):
            a, b = factors.thin()
            digest.update(name.encode() + a.numpy().tobytes() + b.numpy().tobytes())
        return digest.hexdigest()

    def check_base(self, fingerprint: str) -> None:
        """Raises CheckpointMismatch unless it was made for weights of this fingerprint."""
        if self.base is not None and self.base != fingerprint:
            raise CheckpointMismatch(
                f"{self.where} was made for weights with the fingerprint {self.base[:12]}, and "
                f"these have {fingerprint[:12]}; load the model it was trained on, or remove its "
                f"{FACTS} to put it on other weights of the same shapes"
            )


class Place(NamedTuple):
    """Where an adapter of one of our parameters stands in a file.

    module: theirs. parameter: its name there. deep: how many others wrap the same module outside.
    """

    module: str
    parameter: str
    deep: int = 0

    def key(self, side: str) -> str:
        """The name of A or B in the file."""
        return f"{_BEFORE}{self.module}{'.base_layer' * self.deep}.lora_{side}.weight"


def places(config: ModelConfig, parameters: Iterable[str]) -> dict[str, Place]:
    """Where each of these parameters' adapters stands: under Hugging Face's names, else under ours.

    Ours are used for models that Hugging Face has no words for.
    """
    names = list(parameters)
    try:
        dialect = HUGGINGFACE.dialect_for(config)
        dialect.describe(config, torch.float32, None)
        theirs = {row.ours: row.theirs for row in expand(dialect.names, names, "huggingface")}
    except CheckpointMismatch:
        theirs = {name: name for name in names}
    split = {name: theirs[name].rpartition(".") for name in names}
    found = {name: Place(module, leaf) for name, (module, _, leaf) in split.items()}
    # several parameters of one module: peft wraps them in the module's order, the last outermost;
    # in transformers' RG-LRU, whose gates are such, that is the alphabet's order
    for name, place in found.items():
        beside = [one.parameter for one in found.values() if one.module == place.module]
        if place.parameter != "weight":
            found[name] = place._replace(deep=sum(one > place.parameter for one in beside))
    return found


def find_adapter(path: str | PathLike[str]) -> Path:
    """The folder of an adapter: itself, or `adapter` in the folder of a run.

    Raises CheckpointNotFound.
    """
    folder = Path(path).expanduser()
    for place in (folder, folder / FOLDER):
        if (place / ADAPTER_CONFIG).is_file():
            return place
    raise CheckpointNotFound(
        f"{folder} holds no {ADAPTER_CONFIG}; give the folder of an adapter, or the --out of a "
        "finished `griffin finetune --lora`"
    )


def refuse_adapter(path: Path) -> None:
    """Raises CheckpointNotFound for the folder of an adapter, or of a run that made one."""
    made = any((place / ADAPTER_CONFIG).is_file() for place in (path, path / FOLDER))
    if made and not (path / CONFIG).exists():
        raise CheckpointNotFound(
            f"{path} holds an adapter, not a model; give the model that it was made for, and "
            f"--adapter {path} (in Python adapter=)"
        )


def read_adapter(
    path: str | PathLike[str], config: ModelConfig, shapes: Mapping[str, Shape]
) -> Adapter:
    """The adapter in a folder, for a model with these parameters.

    Raises CheckpointNotFound; CheckpointMismatch where it is of another kind than plain LoRA, or
    names or shapes are not those of the model: they are listed.
    """
    folder = find_adapter(path)
    settings = read_json(folder / ADAPTER_CONFIG)
    _refuse_unknown(settings, folder)
    file = TensorFile(folder / ADAPTER_WEIGHTS)
    kept = _kept(config, shapes, settings)
    known: dict[str, str] = {place.key(side): name for name, place in kept.items() for side in "AB"}
    strange = sorted(key for key in file.entries if key not in known)
    if strange:
        raise CheckpointMismatch(
            f"{folder}: {len(strange)} of its {len(file.entries)} tensors have no place in this "
            f"model ({', '.join(strange[:4])}); it is of another model"
        )
    factors: dict[str, Factors] = {}
    for name in dict.fromkeys(known[key] for key in file.entries):
        place = kept[name]
        if missing := [key for side in "AB" if (key := place.key(side)) not in file.entries]:
            raise CheckpointMismatch(f"{folder}: {missing[0]} is missing; save the adapter again")
        a, b = file.get(place.key("A")), file.get(place.key("B"))
        rank = _rank(a, b, tuple(shapes[name]), place.key("A"), folder)
        factors[name] = Factors(a, b, _scale(settings, place, rank))
    facts = read_json(folder / FACTS) if (folder / FACTS).is_file() else {}
    base = facts.get("base")
    return Adapter(folder, factors, base if isinstance(base, str) else None)


def write_adapter(
    folder: Path,
    kept: Mapping[str, Place],
    tensors: Mapping[str, tuple[Tensor, Tensor]],
    settings: JSON,
    facts: JSON,
) -> None:
    """Writes A and B of each parameter, by our names; all of the folder's files, or none.

    kept: of `places`, for the adapted parameters. settings: peft's, for adapter_config.json.
    Raises CheckpointError.
    """
    out: list[Outgoing] = []
    for name, pair in tensors.items():
        for side, tensor in zip("AB", pair, strict=True):
            key = kept[name].key(side)
            out.append(Outgoing(key, tuple(tensor.shape), tensor.dtype, lambda t=tensor: t))
    vital = (ADAPTER_WEIGHTS, ADAPTER_CONFIG)
    with appearing(folder, lambda name, new: False, vital) as aside:
        write_json(aside / ADAPTER_CONFIG, settings)
        write_json(aside / FACTS, facts)
        write_tensors(aside / ADAPTER_WEIGHTS, out, {"format": "pt"})


def _kept(config: ModelConfig, shapes: Mapping[str, Shape], settings: JSON) -> dict[str, Place]:
    """Places of matrices, and of the parameters that the adapter names one by one."""
    matrices = [name for name, shape in shapes.items() if len(shape) == 2]
    found = {name: p for name, p in places(config, matrices).items() if p.parameter == "weight"}
    wanted: list[str] = list(settings.get("target_parameters") or ())
    all_places = places(config, shapes)
    named = [
        name
        for name, place in all_places.items()
        if any(f".{place.module}.{place.parameter}".endswith(f".{one}") for one in wanted)
    ]
    return found | places(config, named)


def _refuse_unknown(settings: JSON, folder: Path) -> None:
    kind = settings.get("peft_type")
    if kind != "LORA":
        raise CheckpointMismatch(
            f"{folder} is an adapter of the kind {kind!r:.40}; only LORA can be read here"
        )
    for name, plain in _PLAIN.items():
        value = settings.get(name, plain)
        if value and value != plain:
            raise CheckpointMismatch(
                f"{folder / ADAPTER_CONFIG}: {name} is {value!r:.60}, and only plain LoRA can be "
                "read here; merge it with peft first, and load the merged model"
            )


def _rank(a: Tensor, b: Tensor, shape: Shape, key: str, folder: Path) -> int:
    """The rank, once A and B fit a parameter of this shape."""
    blocks = shape[0] if len(shape) == 3 else 1
    ranks = a.shape[0] // blocks if a.dim() == 2 else 0
    wanted = ((ranks * blocks, shape[-1]), (shape[-2], ranks * blocks))
    if not ranks or (tuple(a.shape), tuple(b.shape)) != wanted:
        raise CheckpointMismatch(
            f"{folder}: {key} {tuple(a.shape)} and its B {tuple(b.shape)} do not fit a parameter "
            f"of {shape}; the adapter is of another model"
        )
    return ranks


def _scale(settings: JSON, place: Place, rank: int) -> float:
    """alpha / r, or alpha / sqrt(r) for rank-stabilised LoRA."""
    alpha = settings.get("lora_alpha", 8)
    for pattern, value in (settings.get("alpha_pattern") or {}).items():
        if re.fullmatch(rf"(.*\.)?({pattern})", place.module):
            alpha = value
    if not isinstance(alpha, (int, float)):
        raise CheckpointError(f"{ADAPTER_CONFIG}: lora_alpha is {alpha!r:.40}, not a number")
    return alpha / (rank**0.5 if settings.get("use_rslora") else rank)


def takes_turns(path: str | PathLike[str]) -> bool:
    """Whether an adapter was trained on conversations, as its own file says."""
    file = find_adapter(path) / FACTS
    return file.is_file() and read_json(file).get("instruction_tuned") is True
