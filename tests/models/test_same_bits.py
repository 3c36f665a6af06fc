"""With the compiled kernels a row has the same bits in any batch and in chunks of any size."""

import pytest
import torch

from griffin_lm.layers.quantized import quantize_weights
from griffin_lm.mixers import RGLRU, LocalAttention
from griffin_lm.models import Griffin, ModelConfig, State, build
from griffin_lm.ops import native

pytestmark = pytest.mark.skipif(native.UNBUILT is not None, reason=str(native.UNBUILT))
KINDS = ("float32", "bfloat16", "int8", "int4")
each_kind = pytest.mark.parametrize("kind", KINDS)
each_preset = pytest.mark.parametrize("preset", ["tiny-griffin", "tiny-hawk"])


def made(preset: str, kind: str) -> Griffin:
    model = build(preset, seed=1, dtype=torch.float32 if kind == "float32" else torch.bfloat16)
    if kind in ("int8", "int4"):
        quantize_weights(model, kind)
    model.kernels = "native"
    return model.eval()


def tokens_of(model: Griffin, rows: int, length: int) -> torch.Tensor:
    random = torch.Generator().manual_seed(length)
    return torch.randint(3, model.config.vocab, (rows, length), generator=random)


def in_chunks(model: Griffin, tokens: torch.Tensor, size: int) -> tuple[torch.Tensor, State]:
    state, parts = None, []
    for begin in range(0, tokens.shape[1], size):
        logits, state = model(tokens[:, begin : begin + size], state=state)
        parts.append(logits)
    assert state is not None
    return torch.cat(parts, dim=1), state


def same(mine: State, theirs: State) -> bool:
    pairs = zip(mine.layers, theirs.layers, strict=True)
    return all(torch.equal(a, b) for m, t in pairs for a, b in zip(m, t, strict=True))


def check_chunks(model: Griffin, length: int, sizes: tuple[int, ...]) -> None:
    tokens = tokens_of(model, 1, length)
    whole, state = model(tokens)
    for size in sizes:
        logits, after = in_chunks(model, tokens, size)
        assert torch.equal(logits, whole), f"chunks of {size}"
        assert same(after, state), f"chunks of {size}"


def check_rows(model: Griffin, lengths: tuple[int, ...]) -> None:
    tokens = tokens_of(model, len(lengths), max(lengths))
    valid = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    together, state = model(tokens, valid=valid)
    for row, length in enumerate(lengths):
        alone, after = model(tokens[row : row + 1, :length])
        assert torch.equal(together[row : row + 1, :length], alone), f"row {row}"
        assert same(state[torch.tensor([row])], after), f"row {row}"


@each_kind
@each_preset
@torch.no_grad()
def test_chunks_of_any_size_give_the_logits_and_the_state_of_the_whole(preset, kind):
    check_chunks(made(preset, kind), 21, (1, 3, 16, 17))


@each_kind
@each_preset
@torch.no_grad()
def test_a_row_of_a_ragged_batch_is_what_it_is_alone(preset, kind):
    check_rows(made(preset, kind), (35, 1, 16))


@pytest.mark.parametrize("preset", ["griffin", "hawk"])
@torch.no_grad()
def test_widths_that_no_vector_divides_change_nothing(preset):
    recurrent = RGLRU(width=21, heads=3)
    attention = LocalAttention(heads=3, head_dim=10, window=6, rope_fraction=0.4)
    pattern = (recurrent, attention) if preset == "griffin" else (recurrent,)
    config = ModelConfig(vocab=53, width=19, mlp_width=45, layers=2, pattern=pattern)
    for dtype in (torch.float32, torch.bfloat16):
        model = build(config, seed=2, dtype=dtype).eval()
        model.kernels = "native"
        check_chunks(model, 19, (1, 7, 16))
        check_rows(model, (29, 5, 11))


@pytest.mark.slow
@each_kind
@torch.no_grad()
def test_so_it_is_over_many_windows(kind):
    model = made("fledgling", kind)
    check_chunks(model, 1100, (1, 3, 16, 17, 64, 1000))
    check_rows(model, (300, 1, 64, 65, 17))


@torch.no_grad()
def test_without_naming_them_the_kernels_serve_whole_models():
    model = made("tiny-griffin", "bfloat16")
    named, _ = model(tokens_of(model, 2, 20))
    model.kernels = "auto"
    assert torch.equal(model(tokens_of(model, 2, 20))[0], named)
