"""Memory while a long text is read: a model in a process of its own, watched from inside it."""

import gc
import threading
import time
from types import TracebackType

import torch

from ...allocator import give_back_freed_memory
from ...errors import InputError
from ...inference.loading import load, pick_dtype
from ...inference.reading import CHUNK, read_rows
from ...inference.resolution import BUNDLED
from ...layers.quantized import matrices
from ...models import Griffin
from ...shapes import JSON
from .ours import WEIGHTS, random_model, shape

EVERY = 0.002  # seconds between two looks at the memory


def anonymous() -> int:
    """Bytes of this process that no file backs. Raises InputError where the system can't tell."""
    try:
        with open("/proc/self/status") as status:
            return next(int(row.split()[1]) * 1024 for row in status if row.startswith("RssAnon"))
    except (OSError, StopIteration) as error:
        raise InputError("anonymous memory is told by Linux only (RssAnon)") from error


class Watch:
    """The most anonymous memory while it is entered, seen by a thread."""

    def __enter__(self) -> "Watch":
        gc.collect()
        self.before = self.most = anonymous()
        self._on = True
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def _look(self) -> None:
        while self._on:
            self.most = max(self.most, anonymous())
            time.sleep(EVERY)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._on = False
        self._thread.join()
        self.most = max(self.most, anonymous())


class Contender:
    """A model, bundled or with random weights of a preset's shape, that reads random ids."""

    def __init__(self, threads: int, model: str, weights: str, layers: int = 0) -> None:
        torch.set_num_threads(threads)
        give_back_freed_memory()  # as `griffin read` does
        self.model = _made(model, weights, layers)
        gc.collect()

    def read(self, count: int, chunk: int = CHUNK) -> JSON:
        """Reads `count` ids in chunks, then asks for the logits of one more.

        {"tokens", "seconds", "weights_bytes", "state_bytes", "loaded", "peak"}: bytes; the last two
        of anonymous memory, once the model was there and at most while it read.
        """
        ids = torch.randint(self.model.config.vocab, (count,)).tolist()
        with Watch() as watch, torch.no_grad():
            began = time.perf_counter()
            state = read_rows(
                self.model, [ids], self.model.empty_state(1), donate=True, chunk=chunk
            )
            _, state = self.model(torch.tensor([ids[:1]]), state=state, logits="last", donate=True)
            seconds = time.perf_counter() - began
        kinds = sum(tensor.nbytes for m in matrices(self.model).values() for tensor in m.buffers())
        return {
            "tokens": count,
            "seconds": seconds,
            "weights_bytes": kinds + sum(p.nbytes for p in self.model.parameters()),
            "state_bytes": state.nbytes,
            "loaded": watch.before,
            "peak": watch.most,
        }


def _made(model: str, weights: str, layers: int) -> Griffin:
    if weights not in WEIGHTS:
        raise InputError(f"--weights {weights!r} is none of: {', '.join(WEIGHTS)}")
    if model not in BUNDLED:
        return random_model(shape(model, layers), weights)
    quantize = weights if weights in ("int8", "int4") else None
    name = {"fp32": "float32"}.get(weights, "bfloat16")
    kind = pick_dtype(name, torch.device("cpu"))
    return load(model, device="cpu", dtype=kind, quantize=quantize).model.requires_grad_(False)
