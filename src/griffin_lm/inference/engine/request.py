"""What goes into the engine and what comes out: requests, their options, and events."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from ...errors import InputError
from ...models import State
from ..generate import GenerateOptions

EndReason = Literal["stop", "length", "cancelled", "deadline"]
MOST_TOP = 20  # alternatives that may be asked for with each token, as OpenAI's interface has it


@dataclass(frozen=True, kw_only=True)
class RowOptions(GenerateOptions):
    """How one request is continued: a generate call's options, and what OpenAI's interface adds.

    logit_bias         added to the logits of these ids before anything else
    presence_penalty   taken from the logits of tokens that this request has generated
    frequency_penalty  the same, times how often
    top_logprobs       likeliest alternatives reported with each token, if `logprobs`

    Raises `InputError` where an option makes no sense.
    """

    seed: int | None = None
    logit_bias: Mapping[int, float] = field(default_factory=dict[int, float])
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    top_logprobs: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("presence_penalty", "frequency_penalty"):
            if not math.isfinite(getattr(self, name)):
                raise InputError(f"{name} is {getattr(self, name)}; give a number")
        for token, bias in self.logit_bias.items():
            if not math.isfinite(bias):
                raise InputError(f"logit_bias of token {token} is {bias}; give a number")
        if not 0 <= self.top_logprobs <= MOST_TOP:
            raise InputError(f"top_logprobs is {self.top_logprobs}; give 0 to {MOST_TOP}")


@dataclass(frozen=True, kw_only=True)
class Request:
    """A text to read, and how to go on.

    ids           tokens to read; none: goes on from the state's pending token
    options       with max_new_tokens=0 the text is only read
    state         what they follow, one row; not changed. None: nothing
    owner         whose it is: the queue is fair among owners, and their caches are apart
    keep_state    the end brings the state after the request, as `Output.state`
    use_cache     the prefix cache may be read and filled; only without a `state`
    marks         numbers of `ids` after which the prefix cache keeps the state, besides the places
                  that it chooses; only without a `state`. Whoever asks for the same is given it
    score_prompt  the end brings the log-probability of each of `ids` (the cache is not read then)
    seconds       from submission, after which it ends where it is
    """

    ids: Sequence[int]
    options: RowOptions = field(default_factory=RowOptions)
    state: State | None = None
    owner: str = ""
    keep_state: bool = False
    use_cache: bool = True
    marks: Sequence[int] = ()
    score_prompt: bool = False
    seconds: float | None = None


class Scored(NamedTuple):
    """A token, its log-probability under the model's own distribution, and likelier ones."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Piece:
    """More text. `tokens` are those that no stop string can cut off any more."""

    text: str
    tokens: tuple[Scored, ...]


@dataclass(frozen=True, kw_only=True)
class Finished:
    """The end of a request that was served.

    text, tokens     all of it, as in `Output`
    prompt_tokens    that it read, or found in the cache
    cached_tokens    of these, found
    written_tokens   of these, left in the cache
    state            where it was asked for: after the prompt and all of `tokens`
    prompt           where it was asked for: the scores of the prompt's tokens but the first
    first_seconds    from submission to the first token (to the end of reading, if there is none)
    """

    text: str
    tokens: tuple[Scored, ...]
    reason: EndReason
    prompt_tokens: int
    cached_tokens: int = 0
    written_tokens: int = 0
    state: State | None = None
    prompt: tuple[Scored, ...] = ()
    first_seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Failed:
    """The end of a request that could not be served."""

    error: Exception


Event = Piece | Finished | Failed


class Job:
    """A request that was submitted. `cancel` may be called from any thread."""

    def __init__(self, request: Request, on_event: Callable[[Event], None]) -> None:
        self.request, self.on_event = request, on_event
        self.submitted = time.monotonic()
        self.cancelled = False
        self.over = False  # its last event was given

    def cancel(self) -> None:
        """Ends the request where it is, at the engine's next step; its end still comes."""
        self.cancelled = True

    @property
    def late(self) -> bool:
        """Whether its time has run out."""
        seconds = self.request.seconds
        return seconds is not None and time.monotonic() - self.submitted >= seconds
