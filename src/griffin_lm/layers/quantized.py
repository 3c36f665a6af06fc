"""A matrix in 8 or 4 bits that stands where a layer's `weight` stood."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..errors import ConfigError
from ..ops.linear import linear
from ..ops.quantized_linear import (
    Int4Weight,
    Int8Weight,
    dequantize_int4,
    dequantize_int8,
    linear_int4,
    linear_int8,
    packed_layout,
    quantize_int4,
    quantize_int4_calibrated,
    quantize_int8,
)
from ..shapes import Tokens

KINDS = ("int8", "int4")


class QuantizedMatrix(nn.Module):
    """(N, K) in `kind`; frozen. Multiplies activations and looks rows up in `dtype`.

    Its tensors are buffers: q, scale, sums for int8; nibbles, scale for int4 (see
    ops/quantized_linear). Whoever asks a weight for its shape, dtype or device may ask this.

    added: A (R, K) and B (N, R) in `dtype`, of an adapter that was trained over the rounded matrix:
    it stands for W + B A, and B A is never rounded to `kind`.
    """

    def __init__(self, kind: str, shape: tuple[int, int], dtype: torch.dtype) -> None:
        super().__init__()
        if kind not in KINDS:
            raise ConfigError(f"quantize={kind!r} is none of: {', '.join(KINDS)}")
        self.kind, self.shape, self.dtype = kind, torch.Size(shape), dtype
        self.added: tuple[Tensor, Tensor] | None = None
        for name, (size, stored) in packed_layout(kind, *shape).items():
            self.register_buffer(name, torch.empty(size, dtype=stored, device="meta"))

    @classmethod
    def of(
        cls,
        weight: Float[Tensor, "N K"],
        kind: str,
        dtype: torch.dtype | None = None,
        moment: Float[Tensor, "K K"] | None = None,
    ) -> "QuantizedMatrix":
        """A matrix rounded to `kind`; it computes in `dtype`, by default the weight's.

        moment: with int4, the second moment of the inputs that it is fitted to; None: to nearest.
        """
        made = cls(kind, (weight.shape[0], weight.shape[1]), dtype or weight.dtype)
        with torch.no_grad():
            if moment is not None and kind == "int4":
                packed = quantize_int4_calibrated(weight.detach(), moment)
            else:
                packed = (quantize_int8 if kind == "int8" else quantize_int4)(weight.detach())
        made.put(packed._asdict())
        return made

    def add(self, a: Float[Tensor, "R K"], b: Float[Tensor, "N R"]) -> None:
        """Adds B A to what it stands for."""
        pair = (m.detach().to(self.device, self.dtype).contiguous() for m in (a, b))
        self.added = (next(pair), next(pair))

    def put(self, tensors: dict[str, Tensor]) -> None:
        """Sets its buffers by name, such as a file has them."""
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor)

    @property
    def device(self) -> torch.device:
        """Where it lies."""
        return self.get_buffer("scale").device

    @property
    def nbytes(self) -> int:
        """Bytes of all its tensors."""
        return sum(buffer.nbytes for buffer in self.buffers())

    def element_size(self) -> int:
        """Bytes of one activation."""
        return self.dtype.itemsize

    def dense(self) -> Float[Tensor, "N K"]:
        """What it stands for, in `dtype`."""
        rows, columns = self.shape
        if self.kind == "int8":
            wide = dequantize_int8(self._int8())
        else:
            wide = dequantize_int4(self._int4(), rows, columns)
        if self.added is not None:
            wide += self.added[1].float() @ self.added[0].float()
        return wide.to(self.dtype)

    def multiply(
        self, x: Float[Tensor, "*B K"], bias: Float[Tensor, " N"] | None = None
    ) -> Float[Tensor, "*B N"]:
        """x w^T + b."""
        if self.kind == "int8":
            y = linear_int8(x, self._int8(), bias)
        else:
            y = linear_int4(x, self._int4(), self.shape[0], bias)
        return y if self.added is None else y + linear(linear(x, self.added[0]), self.added[1])

    def rows(self, index: Tokens) -> Float[Tensor, "B T K"]:
        """Rows by number, as an embedding looks them up."""
        flat = index.reshape(-1)
        if self.kind == "int8":
            q, scale, _ = self._int8()
            found = q[flat].float() * scale[flat, None]
        else:
            nibbles, scale = self._int4()
            panel, row = flat // nibbles.shape[3], flat % nibbles.shape[3]
            packed, scales = nibbles[panel, :, :, row], scale[panel, :, row].float()
            halves = torch.stack([packed & 15, packed >> 4], dim=2)  # n, group, half, 4, 4
            found = (halves.flatten(2).float() - 8) * scales[..., None]
            found = found.flatten(1)[:, : self.shape[1]]
        if self.added is not None:
            found = found + linear(self.added[1][flat].float(), self.added[0].T.float())
        return found.to(self.dtype).view(*index.shape, self.shape[1])

    def _int8(self) -> Int8Weight:
        # not get_buffer: it walks over names, and a decode step asks two hundred times; pyright is
        # silenced because a buffer's type admits None, which these never are
        return Int8Weight(self._buffers["q"], self._buffers["scale"], self._buffers["sums"])  # pyright: ignore[reportArgumentType]

    def _int4(self) -> Int4Weight:
        # as above
        return Int4Weight(self._buffers["nibbles"], self._buffers["scale"])  # pyright: ignore[reportArgumentType]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "QuantizedMatrix":
        """model.to(dtype) changes what it computes in, never what it stores."""
        probe = fn(torch.empty(0, dtype=self.dtype, device=self.device))
        self.dtype = probe.dtype
        if self.added is not None:
            self.added = (fn(self.added[0]), fn(self.added[1]))
        for name, buffer in self.named_buffers():
            self.register_buffer(name, buffer.to(probe.device))
        return self


def quantize_weights(model: nn.Module, kind: str) -> None:
    """Rounds the matrices of the linear maps, the embedding and the head, one after another.

    What stays as it is: gates and decays of recurrences, convolutions, norms, biases.
    """
    for module in list(model.modules()):
        if has_matrix(module):
            weight = module._parameters["weight"]  # pyright: ignore[reportPrivateUsage]
            if weight is not None and not weight.is_meta:
                replace_weight(module, QuantizedMatrix.of(weight, kind))


def replace_weight(module: nn.Module, matrix: QuantizedMatrix) -> None:
    """Puts a quantised matrix where the module's `weight` stood."""
    del module.weight
    module.weight = matrix


def has_matrix(module: nn.Module) -> bool:
    """Whether the module's `weight` is a matrix of its own that may be quantised."""
    return bool(getattr(module, "quantizable", False)) and "weight" in module._parameters  # pyright: ignore[reportPrivateUsage]


def matrices(model: nn.Module) -> dict[str, QuantizedMatrix]:
    """The quantised matrices of a model, by the name of the weight in whose place they stand."""
    return {name: m for name, m in model.named_modules() if isinstance(m, QuantizedMatrix)}


def stored_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Everything that a checkpoint keeps, in the model's order: parameters, quantised matrices."""
    found: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        before = f"{name}." if name else ""
        for leaf, child in module.named_children():  # where a weight of the module's own stood
            if isinstance(child, QuantizedMatrix):
                found |= {f"{before}{leaf}.{part}": b for part, b in child.named_buffers()}
        found |= {f"{before}{leaf}": p for leaf, p in module.named_parameters(recurse=False)}
    return found
