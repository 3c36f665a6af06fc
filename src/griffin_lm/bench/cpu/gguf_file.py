"""A random GGUF in the shape of Gemma, as large as RecurrentGemma, for llama.cpp to run.

llama.cpp has no Griffin; Gemma of the same width, depth and head is what it runs nearest to it.
Weights repeat the same random numbers, quantised once.
"""

import importlib
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import MissingExtra

TYPES = {"fp32": "F32", "bf16": "BF16", "int8": "Q8_0", "int4": "Q4_0"}
BLOCK = 32  # weights that share a scale in Q8_0 and Q4_0
TILE = 1 << 20
SPREAD = 0.02


@dataclass(frozen=True)
class Shape:
    """A Gemma: one key/value head, a gated MLP, the head tied to the embedding."""

    vocab: int
    width: int
    layers: int
    heads: int
    head_dim: int
    mlp_width: int

    @classmethod
    def beside(cls, vocab: int, width: int, layers: int, matrices: int) -> "Shape":
        """With at most `matrices` parameters besides the embedding, as many as its MLP allows."""
        head_dim = min(256, width)
        shape = cls(vocab, width, layers, max(1, width // head_dim), head_dim, 0)
        room = (matrices - shape.matrix_parameters()) // (3 * width * layers)
        step = 256 if room >= 1024 else BLOCK
        return replace(shape, mlp_width=max(room // step, 1) * step)

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes (rows, columns)."""
        inner = self.heads * self.head_dim
        shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (self.vocab, self.width)}
        for i in range(self.layers):
            shapes |= {
                f"blk.{i}.attn_norm.weight": (self.width,),
                f"blk.{i}.attn_q.weight": (inner, self.width),
                f"blk.{i}.attn_k.weight": (self.head_dim, self.width),
                f"blk.{i}.attn_v.weight": (self.head_dim, self.width),
                f"blk.{i}.attn_output.weight": (self.width, inner),
                f"blk.{i}.ffn_norm.weight": (self.width,),
                f"blk.{i}.ffn_gate.weight": (self.mlp_width, self.width),
                f"blk.{i}.ffn_up.weight": (self.mlp_width, self.width),
                f"blk.{i}.ffn_down.weight": (self.width, self.mlp_width),
            }
        return shapes | {"output_norm.weight": (self.width,)}

    def cache_bytes_per_token(self) -> int:
        """Keys and values in fp16, llama.cpp's default, that each token of context adds."""
        return 2 * 2 * self.head_dim * self.layers

    def matrix_parameters(self) -> int:
        """Parameters but the embedding (and head)."""
        sizes = (dims[0] * dims[1] for dims in self.tensors().values() if len(dims) == 2)
        return sum(sizes) - self.vocab * self.width


def library() -> Any:
    """The package `gguf`. Raises MissingExtra where it is not installed."""
    try:
        return importlib.import_module("gguf")
    except ImportError as error:
        raise MissingExtra("gguf", "peers", "writing a model for llama.cpp") from error


def write(path: Path, shape: Shape, weights: str) -> None:
    """Writes the file, whole or not at all."""
    gguf = library()
    kind = getattr(gguf.GGMLQuantizationType, TYPES[weights])
    aside = path.with_suffix(".part")
    writer = gguf.GGUFWriter(str(aside), "gemma")
    writer.add_context_length(1 << 20)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.mlp_width)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(1)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(shape.vocab)
    writer.add_tokenizer_model("none")
    packed = _tile(gguf, kind)
    for name, dims in shape.tensors().items():
        raw = gguf.GGMLQuantizationType.F32 if len(dims) == 1 else kind
        size = _size(gguf, raw, dims)
        writer.add_tensor_info(name, list(dims), np.dtype(np.float32), size, raw_dtype=raw)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for dims in shape.tensors().values():
        if len(dims) == 1:
            writer.write_tensor_data(np.zeros(dims, dtype=np.float32).view(np.uint8))
        else:
            writer.write_tensor_data(np.resize(packed, _size(gguf, kind, dims)))
    writer.close()
    os.replace(aside, path)


def _tile(gguf: Any, kind: Any) -> npt.NDArray[np.uint8]:
    """Random numbers in a type's blocks, as bytes."""
    numbers = np.random.default_rng(0).standard_normal(TILE, dtype=np.float32) * np.float32(SPREAD)
    return gguf.quants.quantize(numbers.reshape(-1, 4096), kind).view(np.uint8).reshape(-1)


def _size(gguf: Any, kind: Any, dims: tuple[int, ...]) -> int:
    """Bytes of a tensor."""
    block, size = gguf.GGML_QUANT_SIZES[kind]
    count = 1
    for dim in dims:
        count *= dim
    return count // block * size
