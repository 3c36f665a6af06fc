"""The model against the papers' equations in float64: each block alone, then all of it."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from ...mixers import LocalAttention, MixerState, Span
from .definition import Definition, attention, undefined
from .lines import Line, judged, left_out, within
from .subject import Subject, difference

# fp32 rounds at 2^-24; a sum of thousands of terms, a softmax and a GELU lose some bits of that.
BLOCK_LIMIT = 2.0**-15  # of a block's largest output
# scores in the tens pass through a softmax; the line also says what it would see, far above this
WINDOW_LIMIT = 2.0**-13
SEEN = 8  # outputs on each side of the window's edge that are compared
LOUD = 3.0  # the first inputs against the others, so that seeing one more or less shows


def whole_model(subject: Subject, progress: Callable[[int, int], None]) -> Iterator[Line]:
    """Block by block in fp32 from the definition's own input, then the logits as loaded."""
    names = ("each block = the paper's equations", "logits = the paper's equations")
    why = undefined(subject.twin.config)
    if why is not None:
        yield from (left_out(name, why) for name in names)
        return
    definition = Definition(subject.twin)
    dtype = subject.model.embed.weight.dtype
    x = coarse = definition.embed(subject.tokens)
    worst, where = 0.0, "none"
    for i, block in enumerate(subject.twin.blocks):
        weight = definition.layer(i)
        coarse = definition.block(coarse, i, weight, dtype)
        after = definition.block(x, i, weight)
        found = _run(block, x)
        error = difference(found, after) / after.abs().max().item()
        if not error <= worst:
            worst, where = error, f"layer {i} ({subject.twin.config.mixer(i).kind})"
        x = after
        progress(i + 1, subject.twin.config.layers)
    note = f"relative, in fp32, {subject.twin.config.layers} blocks; largest in {where}"
    yield within(names[0], worst, BLOCK_LIMIT, note)
    logits = definition.head(x)
    subject.coarse = difference(definition.head(coarse), logits)
    largest = logits.abs().max().item()
    name = str(dtype).removeprefix("torch.")
    note = f"{len(x)} tokens, {name} against float64; largest logit {largest:.1f}"
    yield within(names[1], difference(logits, subject.whole.cpu()), subject.limit, note)


def whole_window(subject: Subject, progress: Callable[[int, int], None]) -> Iterator[Line]:
    """Every attention layer by itself, in fp32, across the edge of its window as it really is.

    The inputs are random, the first ones loud: token `window` is the last that may see the first.
    Half of the outputs come from one call, half through the ring that an earlier call filled.
    """
    name = "attention across its whole window"
    model = subject.model
    layers = [
        i for i in range(model.config.layers) if type(model.config.mixer(i)) is LocalAttention
    ]
    if not layers:
        yield left_out(name, "the model has no local attention")
        return
    definition = Definition(model)
    worst, where, power = 0.0, "none", float("inf")
    for done, i in enumerate(layers, 1):
        mixer = model.config.mixer(i)
        assert isinstance(mixer, LocalAttention)
        x = torch.randn(
            mixer.window + 1 + SEEN,
            model.config.width,
            generator=torch.Generator().manual_seed(i),
            dtype=torch.float64,
        )
        x[: SEEN + 1] *= LOUD
        wanted = attention(x, definition.layer(i), mixer, last=2 * SEEN)
        largest = wanted.abs().max().item()
        for found in _across(model.blocks[i].mixer, x, mixer.window + 1 - SEEN):
            error = difference(found[-2 * SEEN :], wanted) / largest
            if not error <= worst:
                worst, where = error, f"layer {i}"
        # what a window one token longer would give: loud tokens that should be just out of sight
        longer = replace(mixer, window=mixer.window + 1)
        other = attention(x, definition.layer(i), longer, last=SEEN)
        power = min(power, difference(other, wanted[SEEN:]) / largest)
        progress(done, len(layers))
    note = (
        f"{len(layers)} layers, window {subject.window} + 1, relative, in fp32; largest in "
        f"{where}; a window off by one would show as {power:.1e}"
    )
    sharp = worst <= WINDOW_LIMIT < power / 4  # else the line would prove nothing
    yield judged(name, sharp, f"{worst:.1e}", f"{WINDOW_LIMIT:.1e}", note)


def _run(block: nn.Module, x: Tensor) -> Tensor:
    """(T, W) float64 after a block, computed in fp32 from an empty state."""
    wide, state, span = _prepared(block, block.get_submodule("mixer"))
    return wide(x.float().to(_device(block))[None], span(0, len(x)), state)[0][0].cpu().double()


def _across(mixer: nn.Module, x: Tensor, cut: int) -> Iterator[Tensor]:
    """The mixer's outputs in fp32: of one call, and of two that meet at `cut`."""
    wide, state, span = _prepared(mixer, mixer)
    row = x.float().to(_device(mixer))[None]
    yield wide(row, span(0, len(x)), state)[0][0].cpu().double()
    first, state = wide(row[:, :cut], span(0, cut), state)
    second, _ = wide(row[:, cut:], span(cut, len(x) - cut), state)
    yield torch.cat([first, second], dim=1)[0].cpu().double()


def _prepared(
    part: nn.Module, mixer: nn.Module
) -> tuple[nn.Module, MixerState, Callable[[int, int], Span]]:
    """The part in fp32 (itself, if it is), its empty state, and its spans."""
    device = _device(part)
    wide = part if _dtype(part) == torch.float32 else copy.deepcopy(part).float()
    state = mixer.empty_state(1, device, torch.float32)  # pyright: ignore[reportCallIssue]

    def span(read: int, count: int) -> Span:
        place = torch.arange(read, read + count, device=device)[None]
        rows = torch.tensor([read], device=device)
        return Span(place == 0, place, torch.tensor([count], device=device), rows)

    return wide, state, span


def _device(part: nn.Module) -> torch.device:
    return next(part.parameters()).device


def _dtype(part: nn.Module) -> torch.dtype:
    return next(part.parameters()).dtype
