"""Slow channels that prose leaves alone: the first of two steps to a longer recall.

What a note left in a slow channel is lost in two ways (docs/log.md). Decay: each token of prose
takes a little from it, mostly one in a hundred whose recurrence gate opens somewhat. Drift: each
token writes sqrt(1 - a^2) i x, tiny, but of one sign for tens of thousands of tokens. Both end if
the channel's gates are shut in prose. They are affine maps of a head's 32 inputs, and prose and
notes are nearly always on different sides of some plane there, so both gates are fitted anew,
without the rest of the model: as little forgotten and written in prose as can be,

    minimise  log E[-log a] / 2 + log E[u^2] / 2 + FAITH d,    u = sqrt(1 - a^2) i x (eq. 4),

where d is how far u and a differ, at the tokens of notes and of questions, from what they were.
(Letters as in Griffin, De et al. 2024, equations 1 to 4.)
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import softplus

from ...errors import ConfigError
from ...mixers.rg_lru import RGLRUCell
from ...models import Griffin
from ...ops.rg_lru.definition import C

HALF_LIFE = 10_000  # tokens of prose; channels that hold for less are left as they are
STEPS, RATE = 150, 0.05  # of Adam
FAITH, ERASING = 60.0, 20.0  # weights of d, and within d of a's part
LEAST_FORGOTTEN, LEAST_WRITTEN = 1e-9, 1e-15  # a token; below them nothing is won in 10^6 tokens
_HARDEST = 4000  # tokens of prose, for each channel, that every step looks at
_SOME = 20_000  # of the others, which stand for all of them


class Fit(NamedTuple):
    """A channel's figures, before and after: tokens of prose to its half; drift: sum of u in 10^5.

    faith: square of the error of u at notes and questions, over that of u.
    """

    layer: int
    channel: int
    half_life: tuple[float, float]
    drift: tuple[float, float]
    faith: float


class _Gates:
    """Both gates of some channels of one head, as leaves."""

    def __init__(self, cell: RGLRUCell, head: int, channels: Tensor) -> None:
        self.cell, self.head, self.channels = cell, head, channels
        self.inside = channels - head * cell.a_gate.w.shape[1]
        self.rate = (C * softplus(cell.Lambda)).detach()[channels]
        found = [
            part[head][..., self.inside].detach().clone().requires_grad_()
            for gate in (cell.a_gate, cell.x_gate)
            for part in (gate.w, gate.b)
        ]
        self.leaves = found

    def __call__(self, inputs: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """(log a, u) (N, channels) of a head's inputs (N, width of a head) and the channels' x."""
        w_a, b_a, w_i, b_i = self.leaves
        log_a = -self.rate * (inputs @ w_a + b_a).sigmoid()
        size = torch.sqrt(-torch.expm1(2 * log_a) + 1e-20)
        return log_a, size * (inputs @ w_i + b_i).sigmoid() * x

    @torch.no_grad()
    def put(self) -> None:
        parts = (self.cell.a_gate.w, self.cell.a_gate.b, self.cell.x_gate.w, self.cell.x_gate.b)
        for part, leaf in zip(parts, self.leaves, strict=True):
            part[self.head][..., self.inside] = leaf


def shut_gates(
    model: Griffin, layer: int, prose: Tensor, noted: Tensor, asked: Tensor, steps: int
) -> list[Fit]:
    """Fits the gates of one layer's slow channels, in place.

    prose (B, T), noted (N, S): token rows; asked (N, S): which tokens of `noted` belong to a note
    or a question. Layers go upwards: each is fitted to what those below give it.
    """
    cell: Any = getattr(model.blocks[layer].mixer, "cell", None)
    if not isinstance(cell, RGLRUCell) or cell.config.complex:
        raise ConfigError(f"layer {layer} has no real RG-LRU: name a recurrent layer")
    x, x_asked = inputs_of(model, cell, prose), inputs_of(model, cell, noted)[asked.flatten()]
    with torch.no_grad():
        forgotten = C * softplus(cell.Lambda) * cell.a_gate(x[None])[0].sigmoid()
    slow = math.log(2) / forgotten.mean(0) > HALF_LIFE
    width = cell.a_gate.w.shape[1]
    fits: list[Fit] = []
    for head in range(cell.a_gate.w.shape[0]):
        channels = slow[head * width : (head + 1) * width].nonzero()[:, 0] + head * width
        if len(channels):
            gates = _Gates(cell, head, channels)
            fits += _fit(gates, layer, x, x_asked, slice(head * width, (head + 1) * width), steps)
    return fits


def inputs_of(model: Griffin, cell: RGLRUCell, tokens: Tensor, rows: int = 32) -> Tensor:
    """(B T, R): what goes into a cell while the model reads rows of tokens, each from its start."""
    seen: list[Tensor] = []
    hook = cell.register_forward_pre_hook(lambda module, given: seen.append(given[0].float()))
    try:
        with torch.no_grad():
            for some in tokens.split(rows):
                model(some, logits=None)
    finally:
        hook.remove()
    return torch.cat([part.flatten(0, 1) for part in seen])


def _fit(
    gates: _Gates, layer: int, x: Tensor, x_asked: Tensor, head: slice, steps: int
) -> list[Fit]:
    inputs, of_channels = x[:, head], x[:, gates.channels]
    asked, of_asked = x_asked[:, head], x_asked[:, gates.channels]
    with torch.no_grad():
        was_log_a, was_u = gates(inputs, of_channels)
        log_a_asked, u_asked = gates(asked, of_asked)
    began = [leaf.detach().clone() for leaf in gates.leaves]
    written = u_asked.square().mean(0).clamp(min=1e-7)
    hard = _hardest(was_log_a, was_u)
    some = torch.randint(len(x), (_SOME,), generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.Adam(gates.leaves, lr=RATE)
    for step in range(steps):
        if step == steps // 3:  # others are the hardest now
            with torch.no_grad():
                hard = torch.cat([hard, _hardest(*gates(inputs, of_channels))]).unique()
        optimizer.param_groups[0]["lr"] = RATE * (1 - step / steps)
        log_a, u = gates(inputs[hard], of_channels[hard])
        other_log_a, other_u = gates(inputs[some], of_channels[some])
        each = (len(x) - len(hard)) / len(some)
        forgotten = -(log_a.sum(0) + each * other_log_a.sum(0)) / len(x)
        squared = (u.square().sum(0) + each * other_u.square().sum(0)) / len(x)
        now_log_a, now_u = gates(asked, of_asked)
        apart = (now_u - u_asked).square().mean(0) / written
        apart = apart + ERASING * (now_log_a.exp() - log_a_asked.exp()).square().mean(0)
        moved = sum(
            (leaf - old).square().sum() for leaf, old in zip(gates.leaves, began, strict=True)
        )
        shut = (forgotten + LEAST_FORGOTTEN).log() / 2 + (squared + LEAST_WRITTEN).log() / 2
        optimizer.zero_grad()
        ((shut + FAITH * apart).sum() + 1e-3 * moved).backward()
        optimizer.step()
    gates.put()
    with torch.no_grad():
        log_a, u = gates(inputs, of_channels)
        faith = (gates(asked, of_asked)[1] - u_asked).square().mean(0) / written
    lives = [math.log(2) / -found.mean(0) for found in (was_log_a, log_a)]
    drifts = [found.mean(0) * 1e5 for found in (was_u, u)]
    return [
        Fit(
            layer,
            int(channel),
            (float(lives[0][at]), float(lives[1][at])),
            (float(drifts[0][at]), float(drifts[1][at])),
            float(faith[at]),
        )
        for at, channel in enumerate(gates.channels)
    ]


def _hardest(log_a: Tensor, u: Tensor) -> Tensor:
    """Tokens at which some channel forgets, or writes, most."""
    most = min(_HARDEST, len(u))
    return torch.cat([(-log_a).topk(most, 0).indices, u.abs().topk(most, 0).indices]).unique()
