"""Each process keeps a part of every parameter: FSDP2's `fully_shard`, a block at a time."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import (
    FSDPModule,
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor, Shard, distribute_tensor, empty

from ...mixers.recurrent_block import CausalConv

# what autocast would round weights to, before they travel; gradients are summed in fp32. Inputs
# are left alone: the residual stream stays fp32, as in one process
_BF16 = MixedPrecisionPolicy(
    param_dtype=torch.bfloat16, reduce_dtype=torch.float32, cast_forward_inputs=False
)


def shard(model: nn.Module, mesh: DeviceMesh, bf16: bool) -> None:
    """Shards each residual block, and the rest of the model, over a mesh of one dimension.

    Gradients become sums over the processes, not means: the trainer has divided by the weights of
    all of them. bf16: a block's matrices travel and stand as bf16; its norms and its cell (Lambda,
    gates) stay fp32 in a group of their own, and so do embedding and head.
    """
    blocks: Any = getattr(model, "blocks", ())
    for block in blocks:
        wide = list(_wide(block)) if bf16 else []
        if wide:
            fully_shard(wide, mesh=mesh)
        fully_shard(block, mesh=mesh, mp_policy=_BF16 if bf16 else MixedPrecisionPolicy())
    # The loss reads the head's matrix after `hidden` has returned, and its gradient must still be
    # there when the root's are reduced, at the end of backward: so the root is kept whole between
    fully_shard(model, mesh=mesh, reshard_after_forward=False)
    register_fsdp_forward_method(model, "hidden")
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)  # gloo has no AVG, NCCL's rounds first


def _wide(module: nn.Module) -> Iterator[nn.Module]:
    """The outermost modules whose parameters must not be rounded: whatever is no plain matrix."""
    for child in module.children():
        if isinstance(child, nn.Linear | CausalConv):
            continue
        if next(child.parameters(recurse=False), None) is not None:
            yield child
        else:
            yield from _wide(child)


def part(shape: tuple[int, ...], dtype: torch.dtype, mesh: DeviceMesh) -> Tensor:
    """Room for this process's part of a parameter, as `shard` cuts them."""
    return empty(*shape, dtype=dtype, device_mesh=mesh, placements=[Shard(0)])


def cut(saved: dict[str, Any], model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Replaces whole weights and moments of `Trainer.to_dict` by this process's parts of them."""
    weights, own = saved["model"], model.state_dict()
    for name, tensor in weights.items():
        weights[name] = _like(own.get(name), tensor)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for number, moments in saved["optimizer"]["state"].items():
        for name, tensor in moments.items():
            if isinstance(tensor, Tensor) and tensor.shape == parameters[number].shape:
                moments[name] = _like(parameters[number], tensor)


def _like(pattern: Any, tensor: Tensor) -> Tensor:
    if not isinstance(pattern, DTensor):
        return tensor
    return distribute_tensor(tensor, pattern.device_mesh, pattern.placements, src_data_rank=None)
