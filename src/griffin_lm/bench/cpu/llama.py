"""llama.cpp as a contender, on a random Gemma of the same size (gguf_file.py)."""

import ctypes
import importlib
import os
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import GriffinError, MissingExtra
from ...shapes import JSON
from .gguf_file import Shape

SPARE = 512  # tokens that a context has room for besides the one it starts from
SEED_TOKENS = 32  # read in truth, for keys and values to fill a context with


def library() -> Any:
    """The bindings. Raises MissingExtra where llama-cpp-python is not installed."""
    try:
        return importlib.import_module("llama_cpp.llama_cpp")
    except ImportError as error:
        raise MissingExtra(
            "llama-cpp-python", "peers", "measuring llama.cpp beside ours"
        ) from error


class Contender:
    """A model from a GGUF file of this shape; a context for every length that is asked for.

    GRIFFIN_LLAMA_PLAIN=1 keeps it from weights in layouts of its own (repacked, AMX): release
    0.3.36 of the bindings ends with an illegal instruction on some machines with AMX.
    """

    def __init__(self, threads: int, path: str, shape: Shape) -> None:
        self._lib, self._threads, self._shape = library(), threads, shape
        self._silent = self._lib.llama_log_callback(lambda *_: None)
        self._lib.llama_log_set(self._silent, None)
        self._lib.llama_backend_init()
        self._size = Path(path).stat().st_size
        parameters = self._lib.llama_model_default_params()
        self._plain = os.environ.get("GRIFFIN_LLAMA_PLAIN") == "1"
        parameters.use_extra_bufts = not self._plain
        self._model = self._lib.llama_model_load_from_file(path.encode(), parameters)
        if not self._model:
            raise GriffinError(f"llama.cpp can't load {path}: remove it, and it is written again")
        self._contexts: dict[int, Any] = {}
        self._position: dict[int, int] = {}

    def facts(self) -> JSON:
        """Sizes."""
        embedding = self._shape.vocab * self._shape.width
        count = self._shape.matrix_parameters() + embedding
        bits = 8 * self._size / count  # the head has the type of all matrices
        return {
            "parameters": count,
            "kernels": "plain" if self._plain else "all",
            "weights_bytes": self._size,
            "bits_per_weight": bits,
            "head_bits": bits,
            "flops_per_token": 2 * self._shape.matrix_parameters(),
        }

    def bytes_per_step(self, batch: int, context: int) -> int:
        """The weights, and all keys and values."""
        return self._size + batch * context * self._shape.cache_bytes_per_token()

    def decode(self, batch: int, context: int, count: int) -> float:
        """Seconds for `count` greedy steps after one that is not timed."""
        if batch != 1:
            raise GriffinError("llama.cpp is measured at batch 1 only")
        handle = self._context(context)
        if context == 0 or self._position[context] + count + 1 > context + SPARE:
            self._rewind(handle, context)
        token = self._step(handle, context, [3])
        began = time.perf_counter()
        for _ in range(count):
            token = self._step(handle, context, [token])
        return time.perf_counter() - began

    def prefill(self, count: int) -> float:
        """Seconds to read a prompt of `count` tokens, up to the logits of its last."""
        handle = self._context(0, count)
        self._rewind(handle, 0)
        tokens = np.random.default_rng(0).integers(3, self._shape.vocab, count).tolist()
        began = time.perf_counter()
        self._step(handle, 0, tokens)
        return time.perf_counter() - began

    def _context(self, context: int, batch: int = SEED_TOKENS) -> Any:
        if context in self._contexts and self._lib.llama_n_batch(self._contexts[context]) < batch:
            self._lib.llama_free(self._contexts.pop(context))
        if context not in self._contexts:
            options = self._lib.llama_context_default_params()
            options.n_ctx = max(context, batch) + SPARE
            options.n_batch = max(batch, 512)
            options.n_threads = options.n_threads_batch = self._threads
            handle = self._lib.llama_init_from_model(self._model, options)
            if not handle:
                raise GriffinError(f"llama.cpp can't make a context of {context} tokens")
            self._contexts[context], self._position[context] = handle, 0
            if context:
                self._fill(handle, context)
        return self._contexts[context]

    def _rewind(self, handle: Any, context: int) -> None:
        memory = self._lib.llama_get_memory(handle)
        self._lib.llama_memory_seq_rm(memory, 0, context, -1)
        self._position[context] = context

    def _fill(self, handle: Any, context: int) -> None:
        """Puts `context` tokens into the cache: a few that were read, over and over.

        Reading them all would take half an hour, and a step costs the same whatever they are.
        """
        self._step(handle, context, list(range(3, 3 + SEED_TOKENS)))
        size = self._lib.llama_state_seq_get_size(handle, 0)
        buffer = (ctypes.c_uint8 * size)()
        self._lib.llama_state_seq_get_data(handle, buffer, size, 0)
        longer = stretched(bytes(buffer), context)
        held = (ctypes.c_uint8 * len(longer)).from_buffer_copy(longer)
        taken = self._lib.llama_state_seq_set_data(handle, held, len(longer), 0)
        last = self._lib.llama_memory_seq_pos_max(self._lib.llama_get_memory(handle), 0)
        if taken != len(longer) or last != context - 1:
            raise GriffinError("this release of llama.cpp keeps its cache in another layout")
        self._position[context] = context

    def _step(self, handle: Any, context: int, tokens: list[int]) -> int:
        """Decodes tokens at the end of the sequence; the most likely next one."""
        array = (self._lib.llama_token * len(tokens))(*tokens)
        if self._lib.llama_decode(handle, self._lib.llama_batch_get_one(array, len(tokens))):
            raise GriffinError(f"llama.cpp can't decode {len(tokens)} tokens after {context}")
        self._position[context] += len(tokens)
        logits = self._lib.llama_get_logits_ith(handle, -1)
        return int(np.ctypeslib.as_array(logits, (self._shape.vocab,)).argmax())


def stretched(state: bytes, count: int) -> bytes:
    """A saved sequence of llama.cpp's key/value cache with its cells repeated to `count`.

    Layout (llama-kv-cache.cpp, state_write): magic, sequence, streams, cells; per cell position, 1,
    sequence; whether values are transposed, layers; per layer the type, bytes a cell, the cells of
    the keys; the same of the values, or per layer type, bytes an element, width and as many rows.
    """
    magic, sequence, streams, cells = struct.unpack_from("<IiII", state)
    at = 16 + 12 * cells
    transposed, layers = struct.unpack_from("<II", state, at)
    at += 8
    positions = np.zeros((count, 3), dtype=np.int32)
    positions[:, 0], positions[:, 1] = np.arange(count), 1
    parts = [
        struct.pack("<IiII", magic, sequence, streams, count),
        positions.tobytes(),
        struct.pack("<II", transposed, layers),
    ]

    def rows(at: int, number: int, size: int) -> int:
        """Adds `number` runs of cells of `size` bytes, each as long as wanted."""
        for _ in range(number):
            run = np.frombuffer(state, dtype=np.uint8, count=cells * size, offset=at)
            parts.append(np.resize(run, count * size).tobytes())
            at += cells * size
        return at

    for half in range(2):
        for _ in range(layers):
            if half and transposed:
                _, size, width = struct.unpack_from("<iII", state, at)
                parts.append(state[at : at + 12])
                at = rows(at + 12, width, size)
            else:
                _, size = struct.unpack_from("<iQ", state, at)
                parts.append(state[at : at + 12])
                at = rows(at + 12, 1, size)
    return b"".join(parts)
