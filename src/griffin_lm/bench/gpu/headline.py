"""The figure that was published for a TPU: a prompt of 2k tokens, then 1k to 32k sampled.

With the largest batch that fits, of random weights: RecurrentGemma-2B, whose state is full after
2,048 tokens, and a Gemma of its size, whose cache grows. Nobody waits for 32k tokens here: a step
is timed after the prompt and before the last token, and since its time grows by equal amounts, the
mean of the two is that of all.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from ...inference.decode_step import DecodeStep, usable
from ...inference.sampling import SamplingOptions
from ...mixers.base import capacity
from ...models import Griffin, State
from .limits import seconds

# both ends first and the middle, so that a run cut short by its time has a line to draw
PROMPT, LENGTHS = 2048, (1024, 32_768, 8192, 2048, 4096, 16_384)
MOST = 1024  # rows: from some hundred on, products of matrices are all that counts
SHARE = 0.8  # of the free memory
Row = dict[str, Any]


def read_state(model: Griffin, rows: int, tokens: int) -> State:
    """As after so many tokens of random text: full rings, and room for one token more."""
    state = model.empty_state(rows)
    if any(capacity(layer) is not None for layer in state.layers):
        state = state._with_capacity(tokens + 1)  # pyright: ignore[reportPrivateUsage]  # nobody else wants one
    for layer in state.layers:
        for tensor in layer:
            if tensor.is_floating_point():
                tensor.normal_()
            else:
                tensor.random_(-127, 128)
    state.read.fill_(tokens)
    state.position.fill_(tokens)
    state.longest = tokens
    return state


def rows_that_fit(model: Griffin, tokens: int, free: int) -> int:
    """The largest power of two of rows for which there is memory, MOST at most; 0 if for none.

    A row needs its state twice, while one is loaded into the recorded step, and its logits.
    """
    one = read_state(model, 1, tokens).nbytes
    each = 2 * one + 16 * model.config.vocab
    rows = min(MOST, int(SHARE * free) // each)
    return 1 << (rows.bit_length() - 1) if rows else 0


@torch.no_grad()
def _step_seconds(model: Griffin, rows: int, tokens: int) -> float:
    """Of a token for each row after so many, by the recorded step where there is one."""
    state = read_state(model, rows, tokens)
    if usable(model, state) or state.device.type == "cpu":
        step = DecodeStep(model, rows, SamplingOptions(), logprobs=False)
        step.load(state, None)
        del state
        return seconds(lambda: step.step([1] * rows, [True] * rows, []), least=0.2, most=10)
    fed, kept = torch.ones(rows, 1, dtype=torch.int64, device=state.device), [state]
    del state

    def once() -> None:
        logits, after = model(fed, state=kept.pop(), logits="last", donate=True)
        assert logits is not None
        logits.argmax(-1)
        kept.append(after)

    return seconds(once, least=0.2, most=10)


def rows(
    model: Griffin,
    name: str,
    left: Callable[[], float],
    lengths: Sequence[int] = LENGTHS,
    prompt: int = PROMPT,
    free: int | None = None,
) -> Iterator[Row]:
    """Tokens a second for each length of sample; stops where no time is left."""
    for length in lengths:
        if left() < 0:
            return
        room = torch.cuda.mem_get_info()[0] if free is None else free
        batch = rows_that_fit(model, prompt + length, room)
        row: Row = {"what": "2k prompt, sampling", "who": "griffin", "model": name}
        row |= {"weights": "bf16", "batch": batch, "sampled": length}
        if not batch:
            yield row | {"failure": "no row fits into memory"}
            continue
        spent = [_step_seconds(model, batch, tokens) for tokens in (prompt, prompt + length)]
        yield row | {
            "tokens_per_s": 2 * batch / sum(spent),
            "first_s": spent[0],
            "last_s": spent[1],
        }
        if free is None:
            torch.cuda.empty_cache()
