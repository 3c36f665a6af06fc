"""Half a residual block as one call of the compiled library, where nothing forbids it.

A half has the bits of its modules called one by one, so nobody but the clock can tell. Whatever a
single call would pass by forbids it: a gradient, a hook, a forward that someone replaced, an
adapter. What describes its weights to the library is written once, and again when they change.
"""

from collections.abc import Callable
from typing import Any
from weakref import ReferenceType, WeakKeyDictionary, ref

import torch
from torch import Tensor, nn

from ..ops import native
from ..ops.backend import preferred
from ..ops.linear.blocks import rows_of_outputs
from .block_diagonal import BlockDiagonal
from .linear import Linear
from .norm import RMSNorm
from .quantized import QuantizedMatrix

EITHER = (torch.bfloat16, torch.float32)
every_module = vars(torch.nn.modules.module)  # PyTorch keeps hooks on all modules there


_GLOBAL = (
    "_global_forward_hooks",
    "_global_forward_pre_hooks",
    "_global_backward_hooks",
    "_global_backward_pre_hooks",
)


class Unfit(Exception):
    """The library may not take these modules in one call."""


class Description:
    """The words that describe some modules' weights, and whether they still do."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype  # of the activations
        self.words: list[int] = [int(dtype == torch.float32)]
        self.array: Any = None
        self._modules: list[dict[str, Any]] = []  # their attributes
        # weak: weights that were replaced, by rounded ones say, must be free to go
        self._things: list[tuple[dict[str, Any], str, ReferenceType[Any] | None]] = []
        self._tensors: list[tuple[ReferenceType[Tensor], int]] = []  # and where they lie
        # with their marks; what was made of them stays, whoever else makes it anew
        self._sources: list[tuple[ReferenceType[Tensor], tuple[int, ...], Tensor]] = []
        self._matrices: list[ReferenceType[QuantizedMatrix]] = []

    def unwatched(self, module: nn.Module, kind: type[nn.Module] | None = None) -> None:
        """The module has no hook and the forward of its class, which is `kind` if given."""
        self._modules.append(module.__dict__)
        if _watched(module.__dict__) or (kind is not None and type(module) is not kind):
            raise Unfit

    def child(self, module: nn.Module, name: str) -> nn.Module:
        """A module of this one."""
        return self._of(module._modules, name)  # pyright: ignore[reportPrivateUsage]  # a quick way

    def tensor(self, module: nn.Module, name: str, *dtypes: torch.dtype) -> Tensor:
        """A parameter that the library can read as it lies."""
        return self._plain(self._of(module._parameters, name), *dtypes)  # pyright: ignore[reportPrivateUsage]  # as above

    def word(self, *words: int) -> None:
        """More words."""
        self.words += words

    def derived(self, tensor: Tensor, made: Tensor) -> Tensor:
        """What was made of the tensor, valid until that is written to."""
        self._sources.append((ref(tensor), native.mark(tensor), made))
        return made

    def norm(self, norm: nn.Module) -> None:
        """Words of an RMSNorm."""
        self.unwatched(norm, RMSNorm)
        assert isinstance(norm, RMSNorm)
        if not norm.offset:  # Llama's is rounded before the product: its own operation does that
            raise Unfit
        scale = self.tensor(norm, "scale", *EITHER)
        wide = scale.dtype == torch.float32
        self.word(scale.data_ptr(), wide, norm.offset, native.bits(norm.eps))

    def matrix(self, owner: nn.Module, name: str) -> None:
        """Words of a linear map."""
        linear = self.child(owner, name)
        self.unwatched(linear, Linear)
        assert isinstance(linear, Linear)
        weight = linear.weight
        if isinstance(weight, QuantizedMatrix):
            self.child(linear, "weight")
            self._matrices.append(ref(weight))
            if weight.added is not None:
                raise Unfit
            kind = native.INT8 if weight.kind == "int8" else native.INT4
            buffers = weight._buffers  # pyright: ignore[reportPrivateUsage]  # as above
            parts = [self._plain(self._of(buffers, part)).data_ptr() for part in buffers]
        else:
            kind = native.DENSE[self.dtype]
            parts = [self.tensor(linear, "weight", self.dtype).data_ptr()]
        self.word(kind, *parts, *[0] * (3 - len(parts)))
        bias = self._of(linear._parameters, "bias")  # pyright: ignore[reportPrivateUsage]  # as above
        if bias is not None:
            bias = self._plain(bias, *EITHER)
        self.word(native.at(bias), native.is_wide(bias), *linear.weight.shape)

    def blocks(self, owner: nn.Module, name: str) -> None:
        """Words of a block-diagonal map: its weight turned, its bias."""
        gate = self.child(owner, name)
        self.unwatched(gate, BlockDiagonal)
        w = self.tensor(gate, "w", self.dtype)
        bias = self.tensor(gate, "b", self.dtype)
        self.word(self.derived(w, rows_of_outputs(w)).data_ptr(), bias.data_ptr())

    def _of(self, registry: dict[str, Any], name: str) -> Any:
        thing = registry.get(name)
        self._things.append((registry, name, None if thing is None else ref(thing)))
        return thing

    def _plain(self, tensor: Tensor | None, *dtypes: torch.dtype) -> Tensor:
        if tensor is None or not plain(tensor, *(dtypes or (tensor.dtype,))):
            raise Unfit
        self._tensors.append((ref(tensor), tensor.data_ptr()))
        return tensor

    def holds(self) -> bool:
        """Whether the modules are what they were."""
        for registry, name, known in self._things:
            if registry.get(name) is not (known and known()):
                return False
        for known, address in self._tensors:
            tensor = known()
            if tensor is None or tensor.data_ptr() != address:
                return False
        for known, mark, _ in self._sources:
            tensor = known()
            if tensor is None or native.mark(tensor) != mark:
                return False
        for known in self._matrices:
            matrix = known()
            if matrix is None or matrix.added is not None:
                return False
        return not any(map(_watched, self._modules))


def _watched(attributes: dict[str, Any]) -> bool:
    """Whether someone wants to see, or to change, what a module is called with."""
    return bool(
        attributes["_forward_hooks"] or attributes["_forward_pre_hooks"] or "forward" in attributes
    )


def watched(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether whoever passes a call of this module by would pass by a hook, or another forward.

    kind: the class whose forward it would compute itself.
    """
    if torch.compiler.is_compiling():  # it looks at a module's attributes in its own way
        hooks = module._forward_hooks or module._forward_pre_hooks  # pyright: ignore[reportPrivateUsage]  # PyTorch has no other
        return type(module) is not kind or bool(hooks)
    attributes = module.__dict__
    backward = attributes["_backward_hooks"] or attributes["_backward_pre_hooks"]
    anywhere = any(every_module.get(name) for name in _GLOBAL)
    return type(module) is not kind or bool(backward) or anywhere or _watched(attributes)


def plain(tensor: Tensor, *dtypes: torch.dtype) -> bool:
    """Whether the library may read it as it lies, as numbers of one of these dtypes."""
    return tensor.dtype in dtypes and tensor.is_contiguous() and tensor.device.type == "cpu"


_known: WeakKeyDictionary[nn.Module, tuple[nn.Module, Description]] = WeakKeyDictionary()


def described(
    x: Tensor, owner: nn.Module, norm: nn.Module, describe: Callable[[Description], None]
) -> Any:
    """The words of norm and owner, for the call that takes x past both; None where none may.

    describe: writes those of the owner.
    """
    if (
        torch.is_grad_enabled()
        or torch.compiler.is_compiling()
        or x.dtype not in EITHER
        or not x.is_contiguous()
        or not x.numel()
        or preferred() not in ("auto", "native")
        or native.why_not(x) is not None
        or every_module.get("_global_forward_hooks")
        or every_module.get("_global_forward_pre_hooks")
    ):
        return None
    known = _known.get(owner)
    if known and known[0] is norm and known[1].dtype == x.dtype and known[1].holds():
        return known[1].array
    if x.dtype == torch.float32 and native.isa() == "portable":  # PyTorch's products are faster
        return None
    made = Description(x.dtype)
    try:
        made.word(x.shape[-1])
        made.norm(norm)
        made.unwatched(owner)
        describe(made)
    except Unfit:
        return None
    made.array = native.array(made.words)
    _known[owner] = (norm, made)
    return made.array
