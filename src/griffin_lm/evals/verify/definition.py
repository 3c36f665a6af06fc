"""The whole model a second time: the papers' equations in float64, on a model's own weights.

Griffin: De et al. 2024. RecurrentGemma: Botev et al. 2024. Nothing of `ops`, `layers` or `mixers`
is used here, only the weights by name and the settings, so that a fault there shows as a
difference. Slow and plain: one document from its first token, one layer's weights at a time.
"""

import math
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from ...mixers import RGLRU, LocalAttention, MixerConfig
from ...models import Griffin, ModelConfig

_PAPER_C = 8.0  # Griffin, eq. 3
_ROWS = 16_384  # of the head at once: 16 k x 2560 in float64 are 0.3 GB
_KNOWN = {
    *("vocab", "width", "mlp_width", "layers", "pattern", "norm_eps"),
    *("logit_cap", "scale_embeddings", "mlp_init"),
}

Weight = Callable[[str], Tensor]


def undefined(config: ModelConfig) -> str | None:
    """Why this file has no equations for a model, or None where it has."""
    if kinds := {m.kind for m in config.pattern if type(m) not in (RGLRU, LocalAttention)}:
        return f"the float64 definition has no mixer {', '.join(sorted(kinds))}"
    if other := sorted(set(config.to_dict()) - _KNOWN):
        return f"the float64 definition knows no setting {', '.join(other)}"
    return None


class Definition:
    """A model's equations in float64 on the CPU; `model` lends its weights and its settings."""

    def __init__(self, model: Griffin) -> None:
        self.config = model.config
        self._weights = dict(model.named_parameters())

    def embed(self, tokens: list[int]) -> Tensor:
        """(T, W): rows of the embedding, times sqrt(W) rounded to bfloat16 where it is scaled."""
        rows = self._weights["embed.weight"].detach()[tokens].cpu().double()
        if not self.config.scale_embeddings:
            return rows
        return rows * torch.tensor(math.sqrt(self.config.width)).bfloat16().double()

    def block(
        self, x: Tensor, layer: int, weight: Weight, coarse: torch.dtype | None = None
    ) -> Tensor:
        """(T, W) after one residual block: mixer, then MLP, each on its normalised input.

        weight: of `layer(layer)`. coarse: see `mixed`.
        """
        mixer, y = self.config.mixer(layer), self._norm(x, weight("mixer_norm.scale"))
        x = x + mixed(y, weight, mixer, coarse)
        y = self._norm(x, weight("mlp_norm.scale"))
        gate = y @ weight("mlp.gate.weight").T + weight("mlp.gate.bias")
        up = y @ weight("mlp.up.weight").T + weight("mlp.up.bias")
        return x + (_gelu(gate) * up) @ weight("mlp.down.weight").T + weight("mlp.down.bias")

    def head(self, x: Tensor) -> Tensor:
        """(T, V): final norm, the embedding's transpose, the soft cap."""
        scale = self._weights["final_norm.scale"].detach().cpu().double()
        y, table = self._norm(x, scale), self._weights["embed.weight"].detach()
        logits = torch.cat([y @ part.cpu().double().T for part in table.split(_ROWS)], dim=1)
        cap = self.config.logit_cap
        return (logits / cap).tanh() * cap if cap else logits

    def layer(self, layer: int) -> Weight:
        """A layer's weights by their names inside it, in float64, each made once."""
        return cache(lambda name: self._weights[f"layers.{layer}.{name}"].detach().cpu().double())

    def _norm(self, x: Tensor, scale: Tensor) -> Tensor:
        return x / (x.square().mean(-1, keepdim=True) + self.config.norm_eps).sqrt() * (1 + scale)


def mixed(
    x: Tensor, weight: Weight, mixer: MixerConfig, coarse: torch.dtype | None = None
) -> Tensor:
    """What the mixer with these weights makes of normalised inputs (T, W).

    coarse: a dtype in which a^2 is rounded before it is taken from 1 in eq. 4, as implementations
    do that have no expm1 there; only to learn how much that costs them.
    """
    if isinstance(mixer, RGLRU):
        return _recurrent_block(x, weight, coarse)
    assert isinstance(mixer, LocalAttention)
    return attention(x, weight, mixer)


def _recurrent_block(x: Tensor, weight: Weight, coarse: torch.dtype | None) -> Tensor:
    """Griffin, section 2.3 and figure 2: linear, conv, RG-LRU, times the GELU branch, linear."""
    u = x @ weight("mixer.linear_x.weight").T + weight("mixer.linear_x.bias")
    taps, bias = weight("mixer.conv.w"), weight("mixer.conv.b")
    newest, steps = taps.shape[0] - 1, range(len(u))
    # tap k meets the token newest - k steps back; before the document there is nothing
    v = torch.stack(
        [
            bias + sum(taps[newest - back] * u[t - back] for back in range(min(t, newest) + 1))
            for t in steps
        ]
    )
    r = _gate(v, weight("mixer.cell.a_gate.w"), weight("mixer.cell.a_gate.b"))  # eq. 1
    i = _gate(v, weight("mixer.cell.x_gate.w"), weight("mixer.cell.x_gate.b"))  # eq. 2
    softplus = torch.logaddexp(weight("mixer.cell.Lambda"), torch.zeros((), dtype=torch.float64))
    a = (-_PAPER_C * r * softplus).exp()  # eq. 3
    square = a**2 if coarse is None else (a**2).to(coarse).double()
    h = [i[0] * v[0]]  # a document begins: nothing is carried, and nothing is damped
    for t in steps[1:]:
        h.append(a[t] * h[-1] + (1 - square[t]).sqrt() * (i[t] * v[t]))  # eq. 4
    y = x @ weight("mixer.linear_y.weight").T + weight("mixer.linear_y.bias")
    out = torch.stack(h) * _gelu(y)
    return out @ weight("mixer.linear_out.weight").T + weight("mixer.linear_out.bias")


def _gate(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    """A sigmoid of block-diagonal linear maps: w (heads, in, out)."""
    heads, block = b.shape
    parts = [x[:, n * block : (n + 1) * block] @ w[n] + b[n] for n in range(heads)]
    return torch.cat(parts, dim=1).sigmoid()


def attention(x: Tensor, weight: Weight, mixer: LocalAttention, last: int | None = None) -> Tensor:
    """Local attention over normalised inputs (T, W); the outputs of the `last` tokens (None: all).

    A token sees itself and at most `window` tokens before it (RecurrentGemma's code: window + 1).
    """
    first = 0 if last is None else len(x) - last
    q, k, v = (
        (rows @ weight(f"mixer.{name}.weight").T).unflatten(-1, (-1, mixer.head_dim))
        for name, rows in (("q", x[first:]), ("k", x), ("v", x))
    )
    place = torch.arange(len(x))
    q, k = _rotated(q, place[first:], mixer), _rotated(k, place, mixer)
    back = place[first:, None] - place[None, :]
    visible = (back >= 0) & (back <= mixer.window)
    heads: list[Tensor] = []
    for head in range(mixer.heads):
        shared = head * mixer.kv_heads // mixer.heads
        scores = q[:, head] @ k[:, shared].T / math.sqrt(mixer.head_dim)
        heads.append(scores.masked_fill(~visible, -math.inf).softmax(-1) @ v[:, shared])
    return torch.cat(heads, dim=1) @ weight("mixer.out.weight").T + weight("mixer.out.bias")


def _rotated(x: Tensor, place: Tensor, mixer: LocalAttention) -> Tensor:
    """Su et al. 2021 on the first part of each head (T, H, D): dimension j turns with j + half."""
    width = int(mixer.head_dim * mixer.rope_fraction)
    turns = mixer.rope_base ** (-torch.arange(0, width, 2, dtype=torch.float64) / max(width, 1))
    pairs = torch.complex(x[..., : width // 2], x[..., width // 2 : width])
    angle = (place[:, None].double() * turns)[:, None, :]
    pairs = pairs * torch.polar(torch.ones_like(angle), angle)
    return torch.cat([pairs.real, pairs.imag, x[..., width:]], dim=-1)


def _gelu(x: Tensor) -> Tensor:
    """The tanh approximation (Hendrycks and Gimpel 2016)."""
    return 0.5 * x * (1 + (math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)).tanh())
