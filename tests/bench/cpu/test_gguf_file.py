"""The random Gemma that is written for llama.cpp; and its cache, stretched without reading."""

import struct

import numpy as np
import pytest

from griffin_lm.bench.cpu import ours
from griffin_lm.bench.cpu.gguf_file import Shape
from griffin_lm.bench.cpu.llama import stretched


def test_a_gemma_beside_the_2b_has_its_parameters() -> None:
    config = ours.shape("recurrentgemma-2b")
    matrices = ours.matrix_parameters(config)
    shape = Shape.beside(config.vocab, config.width, config.layers, matrices)
    assert (shape.heads, shape.head_dim, shape.mlp_width) == (10, 256, 8192)
    assert 0.98 * matrices < shape.matrix_parameters() <= matrices
    # keys and values of one head of 256 in fp16, 26 layers
    assert shape.cache_bytes_per_token() == 2 * 256 * 2 * 26


def saved(cells: int, transposed: bool, layers: int = 2, width: int = 3) -> bytes:
    """A saved sequence as llama.cpp lays it out; 2 bytes an element."""
    parts = [struct.pack("<IiII", 7, 0, 1, cells)]
    parts += [struct.pack("<iIi", position, 1, 0) for position in range(cells)]
    parts += [struct.pack("<II", transposed, layers)]
    for layer in range(layers):
        rows = np.arange(cells * width, dtype=np.uint16) + 100 * layer
        parts += [struct.pack("<iQ", 1, 2 * width), rows.tobytes()]
    for layer in range(layers):
        rows = np.arange(cells * width, dtype=np.uint16) + 500 * layer
        head = struct.pack("<iII", 1, 2, width) if transposed else struct.pack("<iQ", 1, 2 * width)
        parts += [head, rows.tobytes()]
    return b"".join(parts)


@pytest.mark.parametrize("transposed", [False, True])
def test_a_stretched_cache_has_as_many_cells_and_repeats_what_was_read(transposed: bool) -> None:
    longer = stretched(saved(2, transposed), 6)
    plain = saved(6, transposed)
    assert len(longer) == len(plain)
    head = 16 + 6 * 12 + 8
    assert longer[:head] == plain[:head]  # positions 0 to 5
    keys = np.frombuffer(longer, np.uint16, 18, head + 12)
    assert keys.tolist() == [*range(6)] * 3
    assert stretched(plain, 6) == plain
