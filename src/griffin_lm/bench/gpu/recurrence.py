"""The recurrence beside the copy bandwidth of the card, and beside other packages' scans."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from ...ops.backend import prefer
from ...ops.linear_scan import linear_scan
from .limits import Limits, seconds

WIDTH = 2560  # of RecurrentGemma-2B's recurrence
SHAPES = ((8, 4096), (32, 2048), (1, 2048), (1, 16_384), (1, 131_072))
FORWARD, BACKWARD = 10, 20  # bytes an element in bf16: 3 read, a state written; 5 read, 3 written
GATED_FORWARD, GATED_BACKWARD = 10, 18  # 4 read, 1 written; 5 read, 4 written; not what is kept

Row = dict[str, Any]


def rg_lru_rows(
    limit: Limits, shapes: Sequence[tuple[int, int]] = SHAPES, device: str = "cuda"
) -> Iterator[Row]:
    """The RG-LRU in bf16, forward and backward: its states in fp32, then gelu(y) times them.

    Of the latter, forward as in inference, without states kept for a gradient.
    """
    for batch, steps in shapes:
        torch.manual_seed(0)
        x, r, i, g = (
            torch.randn(batch, steps, WIDTH, device=device, dtype=torch.bfloat16) for _ in range(4)
        )
        rate, h0 = torch.rand(WIDTH, device=device), torch.zeros(batch, WIDTH, device=device)
        starts = torch.zeros(batch, steps, dtype=torch.bool, device=device)
        ops, given = torch.ops.griffin_lm, (x, r, i, rate, starts, h0)
        back = (*given, ops.triton_rg_lru(*given), g.float())
        outs = ops.triton_gated_rg_lru(x, r, i, g, rate, starts, h0, None, True)
        gated = (x, r, i, g, rate, starts, h0, None)
        gated_back = (*gated, outs[2], outs[0], h0)
        ways: tuple[tuple[str, int, Callable[[], object]], ...] = (
            ("rg_lru forward", FORWARD, partial(ops.triton_rg_lru, *given)),
            ("rg_lru backward", BACKWARD, partial(ops.triton_rg_lru_backward, *back)),
            ("gated forward", GATED_FORWARD, partial(ops.triton_gated_rg_lru, *gated, False)),
            (
                "gated backward",
                GATED_BACKWARD,
                partial(ops.triton_gated_rg_lru_backward, *gated_back),
            ),
        )
        for what, nbytes, run in ways:
            spent = seconds(run)
            moved = nbytes * x.numel() / spent
            yield {
                "what": what,
                "who": "griffin",
                "batch": batch,
                "tokens": steps,
                "microseconds": spent * 1e6,
                "bytes_per_element": nbytes,
                "fraction_of_limit": moved / limit.bytes_per_s,
            }


def _hgrn(name: str, x: Tensor, a: Tensor) -> Callable[[], object]:
    run = getattr(import_module("fla.ops.hgrn"), name)
    log_a = a.log()
    return lambda: run(x, log_a)


def _accelerated(x: Tensor, a: Tensor) -> Callable[[], object]:
    scan = import_module("accelerated_scan.warp").scan
    # its layout is channels before time; turning the tensors around is not counted
    gates, tokens = (t.transpose(1, 2).contiguous() for t in (a, x))
    return lambda: scan(gates, tokens)


PEERS: dict[str, Callable[[Tensor, Tensor], Callable[[], object]]] = {
    "fla hgrn, chunked": lambda x, a: _hgrn("chunk_hgrn", x, a),
    "fla hgrn, recurrent": lambda x, a: _hgrn("fused_recurrent_hgrn", x, a),
    "accelerated-scan": _accelerated,
}


def scan_rows(
    shapes: Sequence[tuple[int, int]] = ((8, 4096), (1, 16_384)), device: str = "cuda"
) -> Iterator[Row]:
    """h = a h + x in fp32, forward, beside each peer that can be imported here."""
    for batch, steps in shapes:
        torch.manual_seed(0)
        x = torch.randn(batch, steps, WIDTH, device=device)
        a, h0 = torch.rand_like(x).mul_(0.98).add_(0.01), torch.zeros_like(x[:, 0])

        def ours(x: Tensor = x, a: Tensor = a, h0: Tensor = h0) -> Tensor:
            with prefer("triton"), torch.no_grad():
                return linear_scan(x, a, h0)

        row: Row = {"what": "scan forward", "batch": batch, "tokens": steps}
        mine = seconds(ours)
        yield row | {"who": "griffin", "microseconds": mine * 1e6}
        for who, make in PEERS.items():
            try:
                with torch.no_grad():
                    spent = seconds(make(x, a))
            except Exception as problem:  # whatever a peer does, our table goes on and says it
                yield row | {
                    "who": who,
                    "failure": f"{type(problem).__name__}: {str(problem)[:80]}",
                }
                continue
            yield row | {"who": who, "microseconds": spent * 1e6, "ours_faster_by": spent / mine}
