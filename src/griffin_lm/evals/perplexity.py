"""Loss on a text: bits per byte and nats per token, with the state carried or partly forgotten."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from ..errors import DataError
from ..models import Griffin, State
from ..text import Tokenizer

Forget = Literal["never", "window", "token"]
_CHUNK = 256


@dataclass(frozen=True, kw_only=True)
class TextLoss:
    """Loss over `tokens` tokens that stand for `bytes` bytes of UTF-8.

    by_position: nats per token where the position in the row is from 2^k up to 2^(k+1), by 2^k.
    documents: or segments, that were read.
    """

    tokens: int
    bytes: int
    nats: float
    by_position: dict[int, float]
    documents: int = 1

    @property
    def nats_per_token(self) -> float:
        """Mean cross entropy of a token."""
        return self.nats / self.tokens

    @property
    def bits_per_byte(self) -> float:
        """Comparable across vocabularies."""
        return self.nats / math.log(2) / self.bytes

    def to_dict(self) -> dict[str, object]:
        """Plain values."""
        return {
            "tokens": self.tokens,
            "bytes": self.bytes,
            "nats_per_token": round(self.nats_per_token, 4),
            "perplexity": round(math.exp(self.nats_per_token), 3),
            "bits_per_byte": round(self.bits_per_byte, 4),
            "nats_by_position": {str(k): round(v, 4) for k, v in self.by_position.items()},
        }


def token_bytes(tokenizer: Tokenizer) -> np.ndarray:
    """(vocab_size,) int64: bytes of text that each id stands for; 0 for specials."""
    sizes = [len(tokenizer.bytes_of(token)) for token in range(tokenizer.vocab_size)]
    return np.array(sizes, dtype=np.int64)


def cut_segments(texts: Sequence[np.ndarray], length: int, most: int) -> np.ndarray:
    """(rows, length): at most `most` segments spread over the texts, none overlapping another."""
    segments = [
        text[begin : begin + length]
        for text in texts
        for begin in range(0, len(text) - length + 1, length)
    ]
    if not segments:
        longest = max((len(text) for text in texts), default=0)
        raise DataError(f"the longest text has {longest} tokens, fewer than a segment of {length}")
    chosen = np.linspace(0, len(segments) - 1, min(most, len(segments))).round().astype(int)
    return np.stack([segments[index] for index in chosen])


@torch.inference_mode()
def text_loss(
    model: Griffin,
    tokenizer: Tokenizer,
    segments: np.ndarray,
    forget: Forget = "never",
    every: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> TextLoss:
    """Loss on segments (rows, length), each read from BOS on with the state carried along.

    forget "window": the recurrent states h (not the window's keys, nor the conv's taps) are set to
    zero before every `every` tokens, the attention window by default; "token": before every token.
    """
    device = model.embed.weight.device
    if tokenizer.bos_id is None:
        raise DataError("this vocabulary has no BOS to begin a text with")
    rows, length = segments.shape
    windows = [getattr(mixer, "window", 0) for mixer in model.config.pattern]
    step = {"never": _CHUNK, "window": every or max([*windows, 1]), "token": 1}[forget]
    targets = torch.from_numpy(segments.astype(np.int64)).to(device)
    first = torch.full_like(targets[:, :1], tokenizer.bos_id)
    inputs = torch.cat([first, targets[:, :-1]], dim=1)
    state = model.empty_state(rows)
    sums = torch.zeros(length, dtype=torch.float64)
    for begin in range(0, length, step):
        if forget != "never":
            state = zero_recurrent(state)
        part = slice(begin, begin + step)
        logits, state = model(inputs[:, part], state=state, donate=True)
        assert logits is not None
        loss = cross_entropy(
            logits.float().flatten(0, 1), targets[:, part].flatten(), reduction="none"
        )
        sums[part] = loss.view(rows, -1).sum(0, dtype=torch.float64).cpu()
        if progress is not None:
            progress(min(begin + step, length), length)
    by_position: dict[int, float] = {}
    for power in range(length.bit_length()):
        part = sums[2**power : 2 ** (power + 1)]
        if len(part):
            by_position[2**power] = float(part.mean()) / rows
    return TextLoss(
        tokens=segments.size,
        bytes=int(token_bytes(tokenizer)[segments].sum()),
        nats=float(sums.sum()),
        by_position=by_position,
        documents=rows,
    )


def zero_recurrent(state: State) -> State:
    """The same state with every recurrent h at zero."""
    layers = tuple(
        layer._replace(h=torch.zeros_like(layer.h)) if hasattr(layer, "h") else layer
        for layer in state.layers
    )
    return State(layers, state.read, state.position, state.due, state.origin)
