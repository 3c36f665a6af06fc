"""Our own format: config.json, model.safetensors under the model's own names, tokenizer, card.

Every tensor has a CRC-32 in the safetensors metadata, over its name, dtype, shape and bytes, and
the config has one too, so a flipped bit anywhere is found. (Files of other programs carry none.)
Matrices may be quantised: see quantization.py.
"""

import json
import zlib
from pathlib import Path

import torch
from torch import Tensor

from ..errors import CheckpointCorrupt, CheckpointError, CheckpointNotFound, ConfigError
from ..models import ModelConfig
from ..shapes import JSON
from .files import CONFIG, parse_json
from .format import Dialect, Format, Place, Target, Vocabulary
from .names import Rename
from .quantization import KEY, read_quantization
from .source import Outgoing, Source
from .tensors import DTYPES, STORED, TensorFile, Weights
from .writing import write_weights

FORMAT = "griffin-lm"
VERSION = 2  # that is read; 1 is written where nothing is quantised, so that older releases read it
PLAIN = 1
METADATA = "griffin"  # the key of ours in the safetensors metadata
SHARDS = "shards"  # the folder in a training run's checkpoint where processes put their parts
NAMES = (Rename("{any}", "{any}"),)


def matches(place: Place) -> bool:
    """A folder whose config.json says that it is ours."""
    return place.config is not None and says(place.config, FORMAT) and place.path.is_dir()


def says(config: JSON, name: str) -> bool:
    """Whether a config.json says that a checkpoint of the format `name` was written by us."""
    return config.get("format") == name


def read_config(config: JSON, path: Path) -> ModelConfig:
    """The ModelConfig in config.json. Raises CheckpointError for a later version of the format."""
    version, model = config.get("version"), config.get("model")
    if type(version) is not int or not isinstance(model, dict):
        raise CheckpointCorrupt(f"{path} must have an integer version and a model; save it again")
    if version > VERSION or version < 1:
        raise CheckpointError(
            f"{path} has the format version {version!r:.20}; this release reads {VERSION}: upgrade "
            "griffin-lm"
        )
    if (version == PLAIN) == (KEY in config):
        raise CheckpointCorrupt(
            f"{path} is of the format version {version}, which goes with quantised weights from "
            f"{VERSION} on: restore it or save it again"
        )
    try:
        return ModelConfig.from_dict(model)
    except ConfigError as error:
        raise CheckpointCorrupt(
            f"{path} describes no model that can be built: {str(error)[:600]}; "
            "correct it or save it again"
        ) from error


def describe(
    config: ModelConfig, dtype: torch.dtype, vocabulary: Vocabulary | None
) -> dict[str, JSON]:
    """config.json."""
    return described(FORMAT, config, dtype)


def described(name: str, config: ModelConfig, dtype: torch.dtype) -> dict[str, JSON]:
    """config.json as we write it beside weights of the format `name`."""
    plain = {"format": name, "version": PLAIN, "model": config.to_dict()}
    return {CONFIG: plain | {"dtype": str(dtype).removeprefix("torch.")}}


class CheckedWeights(Weights):
    """The tensors of a folder of ours, each held against its checksum when it is read.

    config: what config.json says; None where it is overruled and so need not agree. quantization:
    what it says of that, always binding.
    """

    def __init__(
        self, folder: Path, config: ModelConfig | None, quantization: JSON | None = None
    ) -> None:
        super().__init__(folder, DTYPES if quantization is None else STORED)
        self._sums: dict[str, str] = {}
        for shard in self.shards:
            self._sums |= _check_file(shard, config, quantization)

    def get(self, name: str) -> Tensor:
        """See TensorFile.get. Raises CheckpointCorrupt where a bit differs."""
        shard = self.home[name]
        if shard.checksum(name) != self._sums[name]:
            raise CheckpointCorrupt(
                f"{shard.path}: tensor {name!r} is damaged (its checksum differs); fetch it or "
                "save it again"
            )
        return shard.get(name)


def _open(place: Place, config: ModelConfig | None) -> Source:
    if (place.folder / SHARDS).is_dir():
        raise CheckpointNotFound(
            f"{place.folder} holds the parts that several training processes saved; put them "
            f"together first: python -m griffin_lm.training.export {place.folder.parent} MODEL"
        )
    quantization = read_quantization(place)
    about = None if quantization is None else quantization.to_dict()
    return CheckedWeights(place.folder, config, about)


def _write(target: Target, tensors: list[Outgoing]) -> None:
    def metadata(sums: dict[str, str]) -> dict[str, str]:
        """What stands in a file's safetensors metadata, given the checksums of its tensors."""
        ours: JSON = {"version": PLAIN, "config": _config_sum(target.config), "crc32": sums}
        if target.about is not None:
            ours |= {"version": VERSION, KEY: _sum(target.about)}
        return {"format": "pt", METADATA: json.dumps(ours)}

    write_weights(target.folder, tensors, metadata, target.max_shard_bytes)


def _check_file(
    file: TensorFile, config: ModelConfig | None, quantization: JSON | None
) -> dict[str, str]:
    """The checksums in a file's metadata, once they are complete and agree with config.json."""
    text = file.metadata.get(METADATA, "null").encode(errors="replace")
    ours = parse_json(text, file.path, "its list of checksums")
    sums = ours.get("crc32")
    if not isinstance(sums, dict) or set(sums) != set(file.entries):
        raise CheckpointCorrupt(
            f"{file.path}: its list of checksums is not that of its tensors; save it again"
        )
    same = config is None or ours.get("config") == _config_sum(config)
    if not same or ours.get(KEY) != (None if quantization is None else _sum(quantization)):
        raise CheckpointCorrupt(
            f"{file.path.parent / CONFIG} is not the one that was saved with {file.path.name}; "
            "restore it, or name the settings to overrule with `config`"
        )
    return sums


def _config_sum(config: ModelConfig) -> str:
    return _sum(config.to_dict())


def _sum(value: JSON) -> str:
    return f"{zlib.crc32(json.dumps(value, sort_keys=True).encode()):08x}"


OURS = Dialect(FORMAT, NAMES, lambda _: True, read_config, describe)
NATIVE = Format("griffin", (OURS,), matches, lambda _: OURS, _open, _write)
