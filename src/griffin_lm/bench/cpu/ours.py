"""This project as a contender: random weights of a shape, a state at any point of a long text."""

import time
from dataclasses import replace

import torch
from torch import Tensor

from ...errors import InputError
from ...layers.quantized import KINDS, QuantizedMatrix, has_matrix
from ...mixers import RGLRU, LocalAttention, MixerConfig
from ...models import Griffin, ModelConfig, State
from ...models.griffin import resolve_config
from ...ops import native
from ...ops.rg_lru import rg_lru
from ...shapes import JSON
from .profile import profile

TILE = 1 << 20
ROWS = 256  # a multiple of the rows that int4 lays side by side
SPREAD = 0.02  # of the random weights: large enough that nothing underflows
WEIGHTS = ("fp32", "bf16", "int8", "int4")


class Contender:
    """A model with random weights of one kind of WEIGHTS."""

    def __init__(self, threads: int, weights: str, config: ModelConfig) -> None:
        torch.set_num_threads(threads)
        self.config, self.weights = config, weights
        self.model = random_model(self.config, weights)
        self._states: dict[tuple[int, int], State] = {}

    def facts(self) -> JSON:
        """Sizes, and which kernels serve."""
        tensors = [*self.model.parameters(), *self.model.buffers()]
        parameters = sum(p.numel() for p in Griffin(self.config, "meta").parameters())
        head = self.model.embed.weight
        return {
            "parameters": parameters,
            "weights_bytes": sum(tensor.nbytes for tensor in tensors),
            "bits_per_weight": 8 * sum(tensor.nbytes for tensor in tensors) / parameters,
            "head_bits": 8 * head.nbytes / (head.shape[0] * head.shape[1]),
            "flops_per_token": 2 * matrix_parameters(self.config),
            "kernels": native.isa() if native.UNBUILT is None else "PyTorch",
        }

    def bytes_per_step(self, batch: int, context: int) -> int:
        """Bytes that one step must move: weights, rings as far as filled, states."""
        moved = sum(tensor.nbytes for tensor in (*self.model.parameters(), *self.model.buffers()))
        state = self.model.empty_state(batch)
        for number, layer in enumerate(state.layers):
            mixer, size = self.config.mixer(number), sum(tensor.nbytes for tensor in layer)
            if isinstance(mixer, LocalAttention):
                moved += size * min(context, mixer.window) // mixer.window
            else:
                moved += 2 * size
        return moved

    @torch.no_grad()
    def decode(self, batch: int, context: int, count: int) -> float:
        """Seconds for `count` greedy steps after one that is not timed."""
        state = self._states.pop((batch, context), None)
        if state is None or context == 0:
            state = state_at(self.model, batch, context)
        tokens = torch.zeros(batch, 1, dtype=torch.int64)
        tokens, state = self._step(tokens, state)
        began = time.perf_counter()
        for _ in range(count):
            tokens, state = self._step(tokens, state)
        took = time.perf_counter() - began
        self._states[batch, context] = state
        return took

    @torch.no_grad()
    def prefill(self, count: int) -> float:
        """Seconds to read a prompt of `count` tokens, up to the logits of its last."""
        tokens = torch.randint(self.config.vocab, (1, count))
        began = time.perf_counter()
        self.model(tokens, logits="last")
        return time.perf_counter() - began

    @torch.no_grad()
    def profile_decode(self, batch: int, context: int, count: int) -> JSON:
        """Seconds by part of the model over `count` steps."""
        state = state_at(self.model, batch, context)
        tokens, state = self._step(torch.zeros(batch, 1, dtype=torch.int64), state)
        with profile(self.model) as parts:
            for _ in range(count):
                tokens, state = self._step(tokens, state)
        return parts

    @torch.no_grad()
    def profile_prefill(self, count: int) -> JSON:
        """Seconds by part of the model over one prompt."""
        with profile(self.model) as parts:
            self.prefill(count)
        return parts

    @torch.no_grad()
    def recurrence(self, count: int) -> float:
        """Seconds that the RG-LRU takes of a prompt, gates' sigmoids to states, all layers."""
        mixers = [self.config.mixer(i) for i in range(self.config.layers)]
        widths = [mixer.width for mixer in mixers if isinstance(mixer, RGLRU)]
        if not widths:
            return 0.0
        dtype = self.model.embed.weight.dtype
        x, r, i = (torch.randn(1, count, widths[0]).to(dtype) for _ in range(3))
        starts = torch.zeros(1, count, dtype=torch.bool)
        arguments = (x, r, i, torch.zeros(widths[0]), starts, torch.zeros(1, widths[0]))
        rg_lru(*arguments)
        began = time.perf_counter()
        for _ in widths:
            rg_lru(*arguments)
        return time.perf_counter() - began

    def _step(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        logits, state = self.model(tokens, state=state, logits="last", donate=True)
        return logits.float().argmax(-1, keepdim=True), state  # in bf16 it is no vector's work


def shape(preset: str, layers: int = 0, scale: int = 1) -> ModelConfig:
    """A preset, or its first `layers`; widths, heads and vocabulary divided by `scale`."""
    config = resolve_config(preset)
    if scale > 1:
        config = replace(
            config,
            vocab=config.vocab // scale,
            width=config.width // scale,
            mlp_width=config.mlp_width // scale,
            pattern=tuple(_divided(mixer, scale) for mixer in config.pattern),
        )
    return replace(config, layers=layers) if layers else config


def _divided(mixer: MixerConfig, scale: int) -> MixerConfig:
    if isinstance(mixer, RGLRU):
        return replace(mixer, width=mixer.width // scale, heads=max(1, mixer.heads // scale))
    if isinstance(mixer, LocalAttention):
        return replace(mixer, heads=max(1, mixer.heads // scale))
    return mixer


def matrix_parameters(config: ModelConfig) -> int:
    """Parameters but the embedding (and head): what a token of a prompt is multiplied with."""
    model = Griffin(config, "meta")
    head = {id(parameter) for parameter in (*model.embed.parameters(), *model.head.parameters())}
    return sum(p.numel() for p in model.parameters() if id(p) not in head)


@torch.no_grad()
def random_model(config: ModelConfig, weights: str) -> Griffin:
    """Weights that repeat a million random numbers: drawing billions would take minutes.

    Each stands in memory of its own; for time it makes no difference what they are.
    """
    if weights not in WEIGHTS:
        raise InputError(f"--weights {weights!r} is none of: {', '.join(WEIGHTS)}")
    dtype = torch.float32 if weights == "fp32" else torch.bfloat16
    model = Griffin(config, "cpu", dtype).requires_grad_(False)
    if weights in KINDS:
        for module in list(model.modules()):
            if has_matrix(module):
                (rows, columns) = module.get_parameter("weight").shape
                del module.weight  # before anything touched it, so it took no memory
                module.weight = _random_matrix(rows, columns, weights)
    for parameter in model.parameters():
        fill(parameter)
    return model


def _random_matrix(rows: int, columns: int, kind: str) -> QuantizedMatrix:
    """A few rows quantised, over and over: rounding billions of weights would take minutes."""
    few = ROWS if rows % ROWS == 0 else rows
    sample = torch.empty(few, columns, dtype=torch.bfloat16)
    fill(sample)
    packed = QuantizedMatrix.of(sample, kind)
    made = QuantizedMatrix(kind, (rows, columns), torch.bfloat16)
    made.put(
        {
            name: buffer.repeat(rows // few, *[1] * (buffer.dim() - 1))
            for name, buffer in packed.named_buffers()
        }
    )
    return made


def fill(tensor: Tensor) -> None:
    """The same random numbers over and over."""
    numbers = torch.randn(min(TILE, tensor.numel()), generator=torch.Generator().manual_seed(0))
    tile = (numbers * SPREAD).to(tensor.dtype)
    flat = tensor.view(-1)
    whole = len(flat) // len(tile) * len(tile)
    flat[:whole].view(-1, len(tile)).copy_(tile)
    flat[whole:].copy_(tile[: len(flat) - whole])


def state_at(model: Griffin, batch: int, context: int) -> State:
    """A state after `context` tokens: full rings of random keys and values, the counter set.

    What it would have read makes no difference for time; reading it would take hours.
    """
    state = model.empty_state(batch)
    if context:
        for layer in state.layers:
            for tensor in layer:
                fill(tensor)
        state.read.fill_(context)
        state.position.fill_(context)
        state.longest = context
    return state
