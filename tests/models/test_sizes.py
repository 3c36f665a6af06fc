"""What a model would take, against formulas written down here: to the digit, without memory."""

from typing import NamedTuple

import pytest
import torch

import griffin_lm as griffin
from griffin_lm.models.sizes import memory, parameter_count, parameter_counts, quantised_bytes


class Published(NamedTuple):
    """A row of RecurrentGemma's table of sizes: width, MLP, heads, layers; all else is the same."""

    width: int
    mlp: int
    heads: int
    layers: int


# RecurrentGemma report, table 1; DeepMind's recurrentgemma/common.py
MODELS = {
    "recurrentgemma-2b": Published(2560, 7680, 10, 26),
    "recurrentgemma-9b": Published(4096, 12288, 16, 38),
}
VOCAB, WINDOW, HEAD, TAPS = 256_000, 2048, 256, 4
each_model = pytest.mark.parametrize("name", MODELS)


def attention_layers(row: Published) -> int:
    """Every third layer attends; the last two of 26 and of 38 don't."""
    return row.layers // 3


def counted_by_hand(row: Published) -> dict[str, int]:
    """Parameters by part, from the equations of the Griffin paper (sections 2.2 to 2.4)."""
    w, m, h = row.width, row.mlp, row.heads
    attention = attention_layers(row)
    recurrent = row.layers - attention
    return {
        "embedding (and head)": VOCAB * w,
        "norms": row.layers * 2 * w + w,
        "recurrent block, linear": recurrent * 3 * (w * w + w),
        "causal conv": recurrent * (TAPS + 1) * w,
        "gates and Lambda": recurrent * (2 * (w * w // h + w) + w),
        "local attention": attention * (w * w + 2 * w * HEAD + w * w + w),
        "MLP": row.layers * (3 * w * m + 2 * m + w),
    }


@each_model
def test_parameters_are_those_of_the_equations(name: str) -> None:
    config = griffin.PRESETS[name]
    assert parameter_counts(config) == counted_by_hand(MODELS[name])
    assert parameter_count(config) == sum(counted_by_hand(MODELS[name]).values())


def test_the_published_totals() -> None:
    assert parameter_count(griffin.PRESETS["recurrentgemma-2b"]) == 2_682_862_080
    assert parameter_count(griffin.PRESETS["recurrentgemma-9b"]) == 8_579_977_216
    nine = parameter_counts(griffin.PRESETS["recurrentgemma-9b"])
    assert nine["embedding (and head)"] == 1_048_576_000
    assert sum(nine.values()) - nine["embedding (and head)"] == 7_531_401_216


@each_model
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_state_is_a_recurrence_and_a_window(name: str, dtype: torch.dtype) -> None:
    row, size = MODELS[name], dtype.itemsize
    attention = attention_layers(row)
    # h in fp32 whatever the weights; the conv's last three inputs; keys and values of the window
    recurrent = (row.layers - attention) * row.width * (4 + (TAPS - 1) * size)
    ring = attention * 2 * WINDOW * HEAD * size
    counters = 8 + 8 + 1  # tokens read, position, a start that waits
    found = memory(griffin.PRESETS[name], dtype)
    assert found.state_of_recurrent_layers == recurrent
    assert found.state_per_sequence == recurrent + ring + counters
    assert found.state_per_token == 0


def test_the_9b_state_to_the_byte() -> None:
    found = memory(griffin.PRESETS["recurrentgemma-9b"], torch.bfloat16)
    assert found.state_of_recurrent_layers == 1_064_960
    assert found.state_per_sequence == 26_230_801
    assert found.weights == 17_159_954_432
    assert found.logits_per_sequence == 1_024_000


def test_a_cache_of_keys_and_values_grows_with_every_token() -> None:
    found = memory(griffin.PRESETS["gemma-2b"], torch.bfloat16)
    assert found.state_per_token == 18 * 2 * 1 * 256 * 2  # layers, k and v, one head of 256
    assert found.state_of_recurrent_layers == 0


@each_model
def test_loading_takes_the_weights_and_their_largest_tensor(name: str) -> None:
    count = sum(counted_by_hand(MODELS[name]).values())
    found = memory(griffin.PRESETS[name], torch.bfloat16)
    assert found.weights == 2 * count
    assert found.to_load == 2 * (count + VOCAB * MODELS[name].width)
    parts = (found.weights, found.state_per_sequence, found.logits_per_sequence)
    assert found.to_run_one_sequence == sum(parts)
    assert found.peak == found.to_load


def matrices_by_hand(row: Published) -> list[tuple[int, int]]:
    """Rows and columns of what is quantised: embedding, linear maps, projections, MLPs."""
    w, m = row.width, row.mlp
    attention = attention_layers(row)
    recurrent = row.layers - attention
    found = [(VOCAB, w), *[(w, w)] * 3 * recurrent]
    found += [(w, w), (w, w), (HEAD, w), (HEAD, w)] * attention
    return found + [(m, w), (m, w), (w, m)] * row.layers


@each_model
def test_fewer_bits_take_fewer_bytes(name: str) -> None:
    config = griffin.PRESETS[name]
    matrices = matrices_by_hand(MODELS[name])
    rest = 2 * (parameter_count(config) - sum(rows * columns for rows, columns in matrices))
    # a byte a weight, an fp32 scale and an int32 sum a row; 4 bits, a bf16 scale for 32 weights
    int8 = rest + sum(rows * columns + 8 * rows for rows, columns in matrices)
    int4 = rest + sum(rows * columns * 9 // 16 for rows, columns in matrices)
    assert quantised_bytes(config, "int8") == int8
    assert quantised_bytes(config, "int4") == int4


@pytest.mark.parametrize("name", ["tiny-griffin", "tiny-hawk"])
def test_what_is_counted_is_what_is_built(name: str) -> None:
    config = griffin.PRESETS[name]
    model = griffin.build(name, dtype=torch.bfloat16)
    tensors = list(model.parameters())
    assert parameter_count(config) == sum(tensor.numel() for tensor in tensors)
    assert memory(config, torch.bfloat16).weights == sum(tensor.nbytes for tensor in tensors)
    assert memory(config, torch.bfloat16).state_per_sequence == model.empty_state(1).nbytes
