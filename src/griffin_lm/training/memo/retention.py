"""Slow channels that prose leaves alone: the first of two steps to a longer recall.

What a note left in a slow channel is lost in two ways (docs/log.md). Decay: each token of prose
takes a little from it, mostly one in a hundred whose recurrence gate opens somewhat. Drift: each
token writes sqrt(1 - a^2) i x, tiny, but of one sign for tens of thousands of tokens. Both end if
the channel's gates are shut in prose. They are affine maps of a head's 32 inputs, and prose and
notes are nearly always on different sides of some plane there, so both gates are fitted anew,
without the rest of the model: as little forgotten and written in prose as can be,

    minimise  log E[-log a] / 2 + log E[u^2] / 2 + FAITH d,    u = sqrt(1 - a^2) i x (eq. 4),

where d is how far u and a differ, at the tokens of notes and of questions, from what they were.
One open gate in 100,000 tokens is enough to lose a note, and a sample of prose has few such tokens:
`hardest` looks for them in all of it, and the gates are fitted again to what it found.
(Letters as in Griffin, De et al. 2024, equations 1 to 4.)
"""

import math
from collections.abc import Callable
from copy import deepcopy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from ...errors import ConfigError
from ...mixers.rg_lru import RGLRUCell
from ...models import Griffin
from ...ops.rg_lru.definition import C

HALF_LIFE = 10_000  # tokens of prose; channels that hold for less are left as they are
STEPS, RATE = 150, 0.05  # of Adam, in each of ROUNDS fits
ROUNDS = 2
FAITH, ERASING = 60.0, 20.0  # weights of d, and within d of a's part
LEAST_FORGOTTEN, LEAST_WRITTEN = 1e-9, 1e-15  # a token; below them nothing is won in 10^6 tokens
WORTH = 3.0  # drift in 10^5 tokens, in sizes of what a note's token writes, that ends a memory
_HARDEST = 4000  # tokens of a sample of prose, for each channel, that every step looks at
_SOME = 20_000  # of the others, which stand for all of them
_CHUNK = 512  # tokens read per call
_KEPT = 1000  # tokens of all prose, for each channel and way to lose, that `hardest` keeps


class Fit(NamedTuple):
    """A channel's figures, before and after: tokens of prose to its half; drift: sum of u in 10^5.

    faith: square of the error of u at notes and questions, over that of u. limited: see WORTH.
    """

    layer: int
    channel: int
    half_life: tuple[float, float]
    drift: tuple[float, float]
    faith: float
    limited: bool


class Prose(NamedTuple):
    """What a layer's cell is given in prose: x (N, R), a sample of it; hard (M, R), the hardest.

    of: number of tokens among which the hardest are.
    """

    x: Tensor
    hard: Tensor
    of: int


class Gates:
    """Both gates of some channels of one head, as leaves."""

    def __init__(self, cell: RGLRUCell, head: int, channels: Tensor) -> None:
        self.cell, self.head = cell, head
        width = cell.a_gate.w.shape[1]
        self.channels = channels
        self.inside = channels - head * width
        self.inputs = slice(head * width, (head + 1) * width)
        self.rate = (C * softplus(cell.Lambda)).detach()[channels]
        found = [
            part[head][..., self.inside].detach().clone().requires_grad_()
            for gate in (cell.a_gate, cell.x_gate)
            for part in (gate.w, gate.b)
        ]
        self.leaves = found

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(log a, u) (N, channels) of what the head is given, x (N, width of a head)."""
        w_a, b_a, w_i, b_i = self.leaves
        log_a = -self.rate * (x @ w_a + b_a).sigmoid()
        size = torch.sqrt(-torch.expm1(2 * log_a) + 1e-20)
        return log_a, size * (x @ w_i + b_i).sigmoid() * x[:, self.inside]

    @torch.no_grad()
    def limit(self, which: Tensor, began: list[Tensor], x: Tensor) -> None:
        """Gates as they began, the recurrence gate opened until half is lost in HALF_LIFE.

        All open, where that is not enough.
        """
        for leaf, old in zip(self.leaves, began, strict=True):
            leaf[..., which] = old[..., which]
        w_a, b_a, *_ = self.leaves
        score, low, high = x @ w_a + b_a, 0.0, 30.0
        lows, highs = torch.full_like(self.rate, low), torch.full_like(self.rate, high)
        for _ in range(30):
            middle = (lows + highs) / 2
            forgets = self.rate * (score + middle).sigmoid().mean(0) > math.log(2) / HALF_LIFE
            lows, highs = torch.where(forgets, lows, middle), torch.where(forgets, middle, highs)
        b_a[which] += lows[which]

    @torch.no_grad()
    def put(self) -> None:
        """Into the cell, in place of its channels' gates."""
        parts = (self.cell.a_gate.w, self.cell.a_gate.b, self.cell.x_gate.w, self.cell.x_gate.b)
        for part, leaf in zip(parts, self.leaves, strict=True):
            part[self.head][..., self.inside] = leaf


def recurrent_layers(model: Griffin) -> dict[int, RGLRUCell]:
    """The layers whose mixer has a real RG-LRU."""
    cells = ((n, getattr(block.mixer, "cell", None)) for n, block in enumerate(model.blocks))
    return {n: cell for n, cell in cells if isinstance(cell, RGLRUCell) and not cell.config.complex}


@torch.no_grad()
def slow_channels(cell: RGLRUCell, x: Tensor) -> Tensor:
    """Which channels hold for HALF_LIFE tokens of prose, of which x (N, R) is a sample."""
    forgotten = C * softplus(cell.Lambda) * cell.a_gate(x[None])[0].sigmoid()
    return (math.log(2) / forgotten.mean(0) > HALF_LIFE).nonzero()[:, 0]


def shut_in_prose(
    model: Griffin,
    sample: Tensor,
    everything: Tensor,
    notes: tuple[Tensor, Tensor],
    said: Callable[[str], None],
    rounds: int = ROUNDS,
) -> list[Fit]:
    """Fits the gates of all slow channels, in place.

    sample (B, T): rows of prose, of which every token counts in a fit; everything (B', T'): the
    rows in which the hardest tokens are looked for, after each of `rounds` fits but the last, which
    all begin at the gates as they were. notes: (tokens (N, S), which of them belong to a note or a
    question (N, S)). Layers go upwards: each is fitted to what those below give it.
    """
    began = deepcopy(model.state_dict())
    cells = recurrent_layers(model)
    channels = {n: slow_channels(cell, inputs_of(model, cell, sample)) for n, cell in cells.items()}
    hard = {n: torch.zeros(0, cell.states) for n, cell in cells.items()}
    fits: list[Fit] = []
    for round_ in range(rounds):
        if round_:
            found = hardest(model, everything, channels, said)
            hard = {n: torch.cat([hard[n], found[n]]) for n in cells}
            model.load_state_dict(began)
            fits = []
        for n, cell in cells.items():
            prose = Prose(inputs_of(model, cell, sample), hard[n], everything.numel())
            asked = inputs_of(model, cell, notes[0])[notes[1].flatten()]
            fits += shut_gates(model, n, channels[n], prose, asked, STEPS)
            limited = sum(fit.limited for fit in fits if fit.layer == n)
            said(f"layer {n}: {len(channels[n])} channels, {limited} of them limited")
    return fits


def shut_gates(
    model: Griffin, layer: int, channels: Tensor, prose: Prose, asked: Tensor, steps: int
) -> list[Fit]:
    """Fits the gates of some channels of one layer, in place.

    asked (N, R): what the cell is given at the tokens of notes and questions.
    """
    cell = recurrent_layers(model).get(layer)
    if cell is None:
        raise ConfigError(f"layer {layer} has no real RG-LRU: name a recurrent layer")
    fits: list[Fit] = []
    for gates in _by_head(cell, channels):
        fits += _fit(gates, layer, prose, asked, steps)
    return fits


def _by_head(cell: RGLRUCell, channels: Tensor) -> list[Gates]:
    head_of = channels // cell.a_gate.w.shape[1]
    return [Gates(cell, head, channels[head_of == head]) for head in head_of.unique().tolist()]


def inputs_of(model: Griffin, cell: nn.Module, tokens: Tensor, rows: int = 32) -> Tensor:
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


class _Kept:
    """The tokens at which each channel of a head forgets most, and writes most."""

    def __init__(self, gates: Gates) -> None:
        self.gates = gates
        none, width = len(gates.channels), gates.cell.states
        self.most = [torch.zeros(0, none) for _ in range(2)]  # (kept, channels): how much
        self.given = [torch.zeros(0, none, width) for _ in range(2)]  # what the cell was given

    @torch.no_grad()
    def add(self, x: Tensor) -> None:
        """Looks at what the cell is given, x (N, R)."""
        log_a, u = self.gates(x[:, self.gates.inputs])
        for n, found in enumerate((-log_a, u.abs())):
            if len(self.most[n]) == _KEPT:  # most chunks have few that are harder
                harder = (found > self.most[n][-1]).any(1)
                found, x_there = found[harder], x[harder]
            else:
                x_there = x
            most = found.topk(min(_KEPT, len(found)), 0)
            values = torch.cat([self.most[n], most.values])
            given = torch.cat([self.given[n], x_there[most.indices]])
            best = values.topk(min(_KEPT, len(values)), 0)
            self.most[n] = best.values
            self.given[n] = given.take_along_dim(best.indices[..., None], 0)


def hardest(
    model: Griffin,
    rows: Tensor,
    channels: dict[int, Tensor],
    said: Callable[[str], None],
) -> dict[int, Tensor]:
    """What cells are given, (M, R) by layer, at the tokens that their channels lose most by.

    rows (B, T): prose; read once, in chunks, with the state carried.
    """
    cells = recurrent_layers(model)
    kept: dict[int, list[_Kept]] = {}
    hooks: list[Any] = []
    for layer, cell in cells.items():
        kept[layer] = [_Kept(gates) for gates in _by_head(cell, channels[layer])]

        def look(module: nn.Module, given: tuple[Tensor, ...], layer: int = layer) -> None:
            for each in kept[layer]:
                each.add(given[0].float().flatten(0, 1))

        hooks.append(cell.register_forward_pre_hook(look))
    state = None
    try:
        with torch.no_grad():
            for n, some in enumerate(rows.split(_CHUNK, 1)):
                _, state = model(some, state=state, logits=None)
                if (n + 1) % 100 == 0:
                    said(f"looked at {(n + 1) * some.numel()} tokens")
    finally:
        for hook in hooks:
            hook.remove()
    found = {n: [part.flatten(0, 1) for each in kept[n] for part in each.given] for n in kept}
    return {n: torch.cat([torch.zeros(0, cells[n].states), *found[n]]).unique(dim=0) for n in kept}


def _fit(gates: Gates, layer: int, prose: Prose, asked: Tensor, steps: int) -> list[Fit]:
    x, hard_x, asked = (part[:, gates.inputs] for part in (prose.x, prose.hard, asked))
    with torch.no_grad():
        was_log_a, was_u = gates(x)
        log_a_asked, u_asked = gates(asked)
    began = [leaf.detach().clone() for leaf in gates.leaves]
    written = u_asked.square().mean(0).clamp(min=1e-7)
    hard = _hardest(was_log_a, was_u)
    some = torch.randint(len(x), (_SOME,), generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.Adam(gates.leaves, lr=RATE)
    for step in range(steps):
        if step == steps // 3:  # others are the hardest now
            with torch.no_grad():
                hard = torch.cat([hard, _hardest(*gates(x))]).unique()
        optimizer.param_groups[0]["lr"] = RATE * (1 - step / steps)
        log_a, u = gates(x[hard])
        other_log_a, other_u = gates(x[some])
        each = (len(x) - len(hard)) / len(some)
        forgotten = -(log_a.sum(0) + each * other_log_a.sum(0)) / len(x)
        squared = (u.square().sum(0) + each * other_u.square().sum(0)) / len(x)
        if len(hard_x):
            hard_log_a, hard_u = gates(hard_x)
            forgotten = forgotten - hard_log_a.sum(0) / prose.of
            squared = squared + hard_u.square().sum(0) / prose.of
        now_log_a, now_u = gates(asked)
        apart = (now_u - u_asked).square().mean(0) / written
        apart = apart + ERASING * (now_log_a.exp() - log_a_asked.exp()).square().mean(0)
        moved = sum(
            (leaf - old).square().sum() for leaf, old in zip(gates.leaves, began, strict=True)
        )
        shut = (forgotten + LEAST_FORGOTTEN).log() / 2 + (squared + LEAST_WRITTEN).log() / 2
        optimizer.zero_grad()
        ((shut + FAITH * apart).sum() + 1e-3 * moved).backward()
        optimizer.step()
    with torch.no_grad():
        _, u = gates(x)
        limited = u.mean(0).abs() * 1e5 > WORTH * written.sqrt()
    gates.limit(limited, began, x)
    gates.put()
    with torch.no_grad():
        log_a, u = gates(x)
        faith = (gates(asked)[1] - u_asked).square().mean(0) / written
    lives = [math.log(2) / -found.mean(0) for found in (was_log_a, log_a)]
    drifts = [found.mean(0) * 1e5 for found in (was_u, u)]
    return [
        Fit(
            layer,
            int(channel),
            (float(lives[0][at]), float(lives[1][at])),
            (float(drifts[0][at]), float(drifts[1][at])),
            float(faith[at]),
            bool(limited[at]),
        )
        for at, channel in enumerate(gates.channels)
    ]


def _hardest(log_a: Tensor, u: Tensor) -> Tensor:
    """Tokens at which some channel forgets, or writes, most."""
    most = min(_HARDEST, len(u))
    return torch.cat([(-log_a).topk(most, 0).indices, u.abs().topk(most, 0).indices]).unique()
