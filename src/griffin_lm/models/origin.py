"""Which model a state belongs to: fingerprints of weights and of the vocabulary."""

import hashlib
import json
import weakref
from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import StateError
from ..layers.quantized import matrices, stored_tensors
from ..shapes import JSON

if TYPE_CHECKING:
    from .griffin import Griffin

_SAMPLES = 16  # values of each tensor that enter the fingerprint


class Fingerprint:
    """Hash of a config and of samples of every weight, in any order, as they stream by.

    Sampled are the source's own values, before any cast, so the fingerprint is the same in every
    format and whatever dtype the model computes in.
    """

    def __init__(self, identity: JSON) -> None:
        self._identity = json.dumps(identity, sort_keys=True)
        self._digests: dict[str, str] = {}

    def add(self, name: str, tensor: Tensor) -> None:
        """A weight under our own name and in our own shape."""
        flat = tensor.detach().reshape(-1)
        at = torch.linspace(0, max(flat.numel() - 1, 0), _SAMPLES, dtype=torch.float64).long()
        values = flat[at.to(flat.device)].to("cpu", torch.float64)
        head = f"{name} {tuple(tensor.shape)} ".encode()
        self._digests[name] = hashlib.sha256(head + values.numpy().tobytes()).hexdigest()

    def digest(self) -> str:
        """64 hexadecimal digits."""
        whole = self._identity + "".join(f"{k}{v}" for k, v in sorted(self._digests.items()))
        return hashlib.sha256(whole.encode()).hexdigest()


def fingerprint_tensors(identity: JSON, tensors: Iterable[tuple[str, Tensor]]) -> str:
    """The fingerprint of `ModelConfig.identity()` and (our name, tensor) pairs."""
    fingerprint = Fingerprint(identity)
    for name, tensor in tensors:
        fingerprint.add(name, tensor)
    return fingerprint.digest()


class Origin:
    """A model as its states remember it: weakly, so that a kept state does not keep the weights."""

    def __init__(self, model: "Griffin") -> None:
        self._model = weakref.ref(model)
        self._known: tuple[int, str] | None = None
        self.tokenizer: str | None = None  # the vocabulary's fingerprint, where one is attached
        self._kinds: str | None = None

    def set_model(self, fingerprint: str) -> None:
        """The fingerprint of the source weights, from whoever loaded them into the model."""
        model = self._model()
        if model is not None:
            self._known = (_version(model), fingerprint)

    def quantization(self) -> str | None:
        """What the model's matrices are stored in, such as "int4"; None where in floats."""
        model = self._model()
        if model is not None:
            self._kinds = "+".join(sorted({m.kind for m in matrices(model).values()})) or None
        return self._kinds

    def model(self) -> str:
        """The fingerprint; computed anew once the weights were changed in place."""
        model = self._model()
        if model is None:
            if self._known is None:
                raise StateError(
                    "the model that made this state is gone; save states while it is still loaded"
                )
            return self._known[1]
        version = _version(model)
        if self._known is None or self._known[0] != version:
            tensors = stored_tensors(model).items()
            self._known = (version, fingerprint_tensors(model.config.identity(), tensors))
        return self._known[1]


def _version(model: "Griffin") -> int:
    """A number that grows whenever a parameter is written in place or replaced by another."""
    # weights loaded under torch.inference_mode() have no version: nothing may write them later
    return sum(0 if p.is_inference() else p._version for p in model.parameters())
