"""A decode step on buffers that stay where they are, so that a CUDA graph can replay it.

A step of a 2B model is some hundred small kernels; launched one by one from Python they take many
times what they compute. Recorded once, they are launched as one. What a recorded step reads and
writes has fixed addresses: the state, the tokens fed, which rows still go, the noise; the choice of
the next token is part of it. Noise is a function of (seed, step), so the host makes it beforehand.

There is one recording for each bucket of batch sizes; rows that fill a bucket up stand still.
"""

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Sequence
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ..mixers.base import capacity
from ..models import Griffin, State
from .sampling import GREEDY, SamplingOptions, draw, filtered, logprob_of, refuse_nan

BUCKETS = (1, 2, 4, 8, 16, 32, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
KEPT = 2  # recordings kept for a model's next call: each holds a state of its bucket
_WARM_UPS = 2  # runs before recording: kernels are compiled, libraries make their workspaces


def bucket(rows: int) -> int | None:
    """The smallest bucket that holds so many rows; None if none does."""
    at = bisect_left(BUCKETS, rows)
    return BUCKETS[at] if at < len(BUCKETS) else None


def usable(model: Griffin, state: State) -> bool:
    """Whether a step of this model can be recorded: on a GPU, with a state of fixed size.

    With kernels="reference" it never is: then everything is PyTorch's own, one call after another.
    """
    if state.device.type != "cuda" or model.kernels == "reference":
        return False
    fixed = all(capacity(layer) is None for layer in state.layers)
    return fixed and bucket(state.batch_size) is not None


class DecodeStep:
    """One token for each of `rows` rows, of which fewer may go. Nothing here is shared: see `take`.

    options: how the next token is chosen. logprobs: its log-probability is wanted too.
    """

    def __init__(self, model: Griffin, rows: int, options: SamplingOptions, logprobs: bool) -> None:
        weight = model.embed.weight
        self.rows, self.options, self._model, self._logprobs = rows, options, model, logprobs
        device = weight.device
        self._state = model.empty_state(rows)
        self._fed = torch.zeros(rows, 1, dtype=torch.int64, device=device)
        self._goes = torch.zeros(rows, 1, dtype=torch.bool, device=device)
        self._uniform = torch.zeros(rows, dtype=torch.float64, device=device)
        words = model.config.vocab if options.repetition_penalty is not None else 0
        self._seen = torch.zeros(rows, words, dtype=torch.bool, device=device)
        self._tokens = torch.zeros(rows, dtype=torch.int64, device=device)
        self._scores = torch.zeros(rows, dtype=torch.float32, device=device)
        self._graph = self._recorded() if device.type == "cuda" else None
        self._going = 0

    @torch.no_grad()
    def load(self, state: State, seen: Tensor | None) -> None:
        """Starts from a state of at most `rows` rows, without pending tokens; it is copied."""
        self._going = state.batch_size
        self._goes.zero_()
        self._state.put(slice(0, self._going), state)
        if seen is not None:
            self._seen[: self._going] = seen

    @torch.no_grad()
    def step(
        self, fed: Sequence[int], goes: Sequence[bool], noise: Sequence[float]
    ) -> tuple[list[int], list[float]]:
        """Feeds a token to each row that goes; the next tokens, and their log-probabilities.

        noise: a uniform number a row, unused when greedy. Raises `InputError` where logits are NaN.
        """
        used = slice(0, self._going)
        self._fed[used, 0] = torch.tensor(fed).to(self._fed.device)
        self._goes[used, 0] = torch.tensor(goes).to(self._goes.device)
        if self.options.temperature != GREEDY:
            uniform = torch.tensor(noise, dtype=torch.float64)
            self._uniform[used] = uniform.to(self._uniform.device)
        if self._graph is None:
            self._once()
        else:
            self._graph.replay()
        tokens = self._tokens[used].tolist()
        refuse_nan(any(token < 0 for token, goes_on in zip(tokens, goes, strict=True) if goes_on))
        return tokens, self._scores[used].tolist() if self._logprobs else [0.0] * self._going

    def row(self, index: int) -> State:
        """A copy of a row's state."""
        return self._state[index]

    def _once(self) -> None:
        """What is recorded: model, choice, and everything back to its place."""
        view = self._state.narrow(0, self.rows)
        logits, after = self._model(
            self._fed, valid=self._goes, state=view, logits="last", donate=True
        )
        assert isinstance(logits, Tensor)
        self._state.put(slice(0, self.rows), after)
        seen = self._seen if self.options.repetition_penalty is not None else None
        scores = filtered(logits, self.options, seen)
        if self.options.temperature == GREEDY:
            tokens = scores.argmax(dim=-1)
        else:
            tokens = draw(scores, self._uniform)
        if seen is not None:
            seen.scatter_(1, tokens[:, None], True)
        if self._logprobs:
            self._scores.copy_(logprob_of(logits, tokens))
        self._tokens.copy_(torch.where(logits.isnan().any(-1), -1, tokens))

    @torch.no_grad()
    def _recorded(self) -> torch.cuda.CUDAGraph:
        beside = torch.cuda.Stream()
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(_WARM_UPS):
                self._once()
        torch.cuda.current_stream().wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._once()
        return graph


_Key = tuple[int, SamplingOptions, bool, str, str]
_idle: "WeakKeyDictionary[Griffin, OrderedDict[_Key, DecodeStep]]" = WeakKeyDictionary()


def _key(model: Griffin, rows: int, options: SamplingOptions, logprobs: bool) -> _Key:
    return rows, options, logprobs, model.kernels, model.cache


def take(model: Griffin, rows: int, options: SamplingOptions, logprobs: bool) -> DecodeStep:
    """A step for this many rows or more, for the caller alone: one that lies idle, or a new one.

    rows must fit into a bucket.
    """
    size = bucket(rows)
    assert size is not None
    found = _idle.get(model, OrderedDict()).pop(_key(model, size, options, logprobs), None)
    return found or DecodeStep(model, size, options, logprobs)


def give_back(model: Griffin, step: DecodeStep, logprobs: bool) -> None:
    """For the next call; the longest idle of more than KEPT are dropped."""
    idle = _idle.setdefault(model, OrderedDict())
    idle[_key(model, step.rows, step.options, logprobs)] = step
    while len(idle) > KEPT:
        idle.popitem(last=False)
