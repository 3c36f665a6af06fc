"""Windowed attention for training and long prompts by PyTorch's FlexAttention.

The ring is laid before the new keys in the order of time, so a query sees one run of keys: from
`first` to itself, 2049 of them in RecurrentGemma, fewer in a young document. Which blocks of 128
keys a block of 128 queries meets follows from the ends of those runs alone: nothing of the size of
queries times keys is ever made.
"""

from functools import cache
from importlib.util import find_spec
from typing import Any, no_type_check

import torch
from torch import Tensor

BLOCK = 128  # queries and keys of a block
# a compiled region is an operation to whoever decides what is kept for the way back: else it is
# none, and attention would be computed twice (training/blocks.py)
SEEN: dict[str, str | int | bool | Any] = {"wrap_inductor_compiled_regions": True}


def block_map(first: Tensor, window: int, keys: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The blocks of keys each block of queries meets: partly (counts, indices), wholly (likewise).

    first (B, T): the first key that each query sees; the last is window + its own index. Counts
    (B, 1, T / 128), indices (B, 1, T / 128, S / 128), int32, as BlockMask wants them: the blocks
    that are met come first. Wholly: every query of the block sees every key.
    """
    batch, length = first.shape
    rows = -(-length // BLOCK)
    spare = rows * BLOCK - length
    least = torch.nn.functional.pad(first, (0, spare), value=keys).view(batch, rows, BLOCK)
    latest = torch.nn.functional.pad(first, (0, spare), value=0).view(batch, rows, BLOCK)
    begin = torch.arange(rows, device=first.device) * BLOCK
    end = (begin + BLOCK).clamp(max=length)  # one past the last query of each block
    block = torch.arange(-(-keys // BLOCK), device=first.device) * BLOCK
    touched = (block + BLOCK > least.amin(-1)[..., None]) & (block < window + end[:, None])
    whole = block >= latest.amax(-1)[..., None]
    whole = whole & (block + BLOCK <= window + begin[:, None] + 1) & touched
    whole = whole & (end - begin == BLOCK)[:, None]  # a short block is masked
    return *_sorted(touched & ~whole), *_sorted(whole)


def _sorted(met: Tensor) -> tuple[Tensor, Tensor]:
    order = torch.argsort((~met).to(torch.int32), dim=-1, stable=True).to(torch.int32)
    return met.sum(-1, dtype=torch.int32)[:, None], order[:, None].contiguous()


def _plain() -> Any:
    from torch.nn.attention import flex_attention

    return flex_attention.flex_attention


@cache
def _compiled() -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    # a second length makes it dynamic; a third changes nothing
    return torch.compile(flex_attention, options=SEEN)


def _attend(*arguments: Any, **options: Any) -> Any:
    """FlexAttention: compiled, unless all around it is being compiled, or by itself on a CPU."""
    plain = torch.compiler.is_compiling() or arguments[0].device.type == "cpu"
    return (_plain() if plain else _compiled())(*arguments, **options)


def windowed(
    q: Tensor, k: Tensor, v: Tensor, ring_k: Tensor, ring_v: Tensor, read: Tensor, seen: Tensor
) -> Tensor:
    """As ops.attention.windowed_attention; seen (B, T) int64: earlier tokens each query sees."""
    from torch.nn.attention.flex_attention import BlockMask

    length, heads, window = q.shape[1], q.shape[2], ring_k.shape[1]
    step = torch.arange(length, device=q.device)
    slot = (read[:, None] + torch.arange(window, device=q.device)).remainder(window)
    at = slot[..., None, None].expand(-1, -1, *k.shape[2:])
    keys = torch.cat([ring_k.gather(1, at), k], 1).transpose(1, 2)
    values = torch.cat([ring_v.gather(1, at), v], 1).transpose(1, 2)
    # padding may have any position; a slot that was never written is not seen
    first = window + step - torch.minimum(seen, read[:, None] + step)

    @no_type_check  # PyTorch traces it; the shape checker of our tests is not for that
    def sees(b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key >= first[b, query]) & (key <= window + query)

    mask = BlockMask.from_kv_blocks(
        *block_map(first, window, window + length),
        BLOCK_SIZE=BLOCK,
        mask_mod=sees,
        seq_lengths=(length, window + length),
    )
    out = _attend(q.transpose(1, 2), keys, values, block_mask=mask, enable_gqa=heads != k.shape[2])
    return out.transpose(1, 2)


def why_not(q: Tensor) -> str | None:
    """Its kernel is made by Triton, for heads of a power of two up to 256."""
    if find_spec("triton") is None:
        return "Triton is not installed"
    if find_spec("torch.nn.attention.flex_attention") is None:
        return "this PyTorch has no FlexAttention"
    width = q.shape[-1]
    if width & (width - 1) or not 16 <= width <= 256:
        return f"heads are {width} wide, not 16, 32, 64, 128 or 256"
    return None
