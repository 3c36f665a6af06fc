"""Generation: many rows at once, each of which ends by itself.

The last token of a prompt is always fed by itself, as every later token is. So a state that has
read all but that token exists (what a stop string cuts off may be everything), and a generation
that is interrupted anywhere and continued makes the very same calls as one that is not.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from ..errors import InputError
from ..models import Griffin, State
from ..text import Tokenizer
from . import decode_step
from .decode_step import DecodeStep
from .reading import read_rows
from .row import FinishReason, Row
from .sampling import GREEDY, SamplingOptions, choose, logprob_of, noise, seeds_for
from .stops import stop_strings


@dataclass(frozen=True, kw_only=True)
class Output:
    """What a row generated.

    text           without EOS, end-of-turn, and what a stop string cut off
    tokens         with EOS or end-of-turn; only those that lie wholly before a stop string. `text`
                   may thus end with characters of a token that was cut, such as "a" of "a\\n"
    finish_reason  "stop": EOS, end-of-turn or a stop string; "length": max_new_tokens; "cancelled"
    state          stands for the prompt and all of `tokens`, no more; the last of them is pending
    logprobs       of `tokens`, under the model's own distribution (fp32); None if not asked for
    """

    text: str
    tokens: list[int]
    finish_reason: FinishReason
    state: State
    logprobs: list[float] | None = None


@dataclass(frozen=True, kw_only=True)
class GenerateOptions(SamplingOptions):
    """The options of a generate call. Raises `InputError` where one makes no sense."""

    max_new_tokens: int = 128
    seed: int | Sequence[int] | None = None
    stop: str | Sequence[str] = ()
    logprobs: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_new_tokens < 0:
            raise InputError(f"max_new_tokens is {self.max_new_tokens}; give 0 or more")
        stop_strings(self.stop)

    def sampling(self) -> SamplingOptions:
        """How to choose among logits, without the rest."""
        names = [field.name for field in fields(SamplingOptions)]
        return SamplingOptions(**{name: getattr(self, name) for name in names})


class Generation:
    """One generate call as it runs: `step()` until `done`, then `outputs`.

    prompts: token ids per row, read after `state` (of as many rows; it is not changed). A row
    without ids goes on from the state's pending token. Raises `InputError` where a row has neither.
    stop_ids: ids that end a row; the tokenizer's own unless given.
    """

    def __init__(
        self,
        model: Griffin,
        tokenizer: Tokenizer,
        prompts: Sequence[Sequence[int]],
        options: GenerateOptions,
        state: State,
        stop_ids: Sequence[int] | None = None,
    ) -> None:
        if state.batch_size != len(prompts):
            raise InputError(
                f"{len(prompts)} prompts, but the state has {state.batch_size} rows; they must "
                "agree (a state of one row is copied to every prompt)"
            )
        self.model, self.tokenizer, self.options = model, tokenizer, options
        self.stop_ids = frozenset(tokenizer.stop_ids if stop_ids is None else stop_ids)
        waiting = [-1] * len(prompts) if state.pending is None else state.pending.tolist()
        pairs = zip(waiting, prompts, strict=True)
        feed = [([first] if first >= 0 else []) + list(ids) for first, ids in pairs]
        for row, ids in enumerate(feed):
            if not ids:
                raise InputError(
                    f"row {row} has nothing to go on from: its prompt is empty and its state has "
                    "no pending token (one that a plain model call returned hasn't: its logits "
                    "are in that call's result); give it a prompt of at least one token"
                )
        stops = stop_strings(options.stop)
        seeds = seeds_for(options.seed, len(prompts))
        read = state.tokens.tolist()
        self.rows = [
            Row.begin(
                tokenizer,
                self.stop_ids,
                options.max_new_tokens,
                seed,
                stops,
                before,
                prompt,
                ids[-1],
            )
            for seed, before, prompt, ids in zip(seeds, read, prompts, feed, strict=True)
        ]
        self._outputs: list[Output | None] = [None] * len(self.rows)
        self._feed = [ids[:-1] for ids in feed]
        self._keep = bool(stops)
        self._seen = self._mark_seen(prompts) if options.repetition_penalty is not None else None
        state = state[:].to(model.embed.weight.device)  # a copy: ours to use up
        state.pending = None
        # states that a row may have to end with: [k] has read all but the last of k new tokens
        self._past: dict[int, State] = {0: state}
        self._count = 0
        self._begun = False
        self._step: DecodeStep | None = None  # where steps are recorded, the state lies in there

    @property
    def done(self) -> bool:
        """Whether every row has ended."""
        return all(output is not None for output in self._outputs)

    @property
    def outputs(self) -> list[Output]:
        """What the rows generated, once all are done."""
        outputs = [output for output in self._outputs if output is not None]
        if len(outputs) < len(self.rows):
            raise InputError("the generation is still going on: exhaust or cancel it first")
        return outputs

    def begin(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Reads the prompts, if that wasn't done yet; `progress` as in `read_rows`."""
        if self._begun:
            return
        if self.rows:
            self._past[0] = read_rows(
                self.model, self._feed, self._past[0], donate=True, progress=progress
            )
        self._begun = True
        if self.options.max_new_tokens == 0:
            self.cancel("length")
        # what a stop string may cut needs states of before, which a recorded step overwrites
        elif not self._keep and self.rows and decode_step.usable(self.model, self._past[0]):
            options, logprobs = self.options.sampling(), self.options.logprobs
            self._step = decode_step.take(self.model, len(self.rows), options, logprobs)
            self._step.load(self._past.pop(0), self._seen)

    @torch.no_grad()
    def step(self) -> list[str]:
        """One more token for every row that has not ended; the text to show by now, per row."""
        self.begin()
        going = [output is None for output in self._outputs]
        if not any(going):
            return [""] * len(self.rows)
        tokens, logprobs = self._next_tokens(going)
        shown = [""] * len(self.rows)
        for index, row in enumerate(self.rows):
            if going[index]:
                shown[index] = row.take(tokens[index], logprobs[index])
                self._end(index, row)
        self._finish()
        first = min((row.cuts().start for row in self.rows if row.ended is None), default=0)
        for count in [count for count in self._past if count < first]:
            del self._past[count]
        return shown

    def cancel(self, reason: FinishReason = "cancelled") -> list[str]:
        """Ends every row where it is; the text that was held back, per row."""
        self.begin()
        shown = [row.finish(reason) if row.ended is None else "" for row in self.rows]
        for index, row in enumerate(self.rows):
            self._end(index, row)
        self._finish()
        return shown

    def _finish(self) -> None:
        """Once all rows have ended, their step is free for another call."""
        if self._step is not None and self.done:
            decode_step.give_back(self.model, self._step, self.options.logprobs)
            self._step = None

    def _next_tokens(self, going: list[bool]) -> tuple[list[int], list[float]]:
        """Feeds each row its last token and chooses the next; rows that ended stand still."""
        last = [row.last(len(row.tokens)) for row in self.rows]
        draws = [row.draw for row in self.rows]
        if self._step is not None:
            self._count += 1
            greedy = self.options.temperature == GREEDY
            return self._step.step(last, going, [] if greedy else [noise(*d) for d in draws])
        device = self.model.embed.weight.device
        before = self._past[self._count]
        if not self._keep:
            self._past.clear()  # nothing can be cut: one state is enough, and its memory is ours
        fed = torch.tensor(last, device=device)[:, None]
        valid = None if all(going) else torch.tensor(going, device=device)[:, None]
        logits, after = self.model(
            fed, valid=valid, state=before, logits="last", donate=not self._keep
        )
        assert isinstance(logits, Tensor)
        self._count += 1
        self._past[self._count] = after
        tokens = choose(logits, self.options, draws, self._seen)
        if self._seen is not None:
            self._seen[torch.arange(len(going), device=device), tokens] = True
        if not self.options.logprobs:
            return tokens.tolist(), [0.0] * len(going)
        return tokens.tolist(), logprob_of(logits, tokens).tolist()

    def _end(self, index: int, row: Row) -> None:
        """Keeps what a row generated, once it has ended."""
        if row.ended is None or self._outputs[index] is not None:
            return
        count, reason = row.ended
        state = self._past[count][index] if self._step is None else self._step.row(index)
        self._outputs[index] = Output(
            text=row.watch.text,
            tokens=row.tokens[:count],
            finish_reason=reason,
            state=state.with_pending([row.last(count)]),
            logprobs=row.logprobs[:count] if self.options.logprobs else None,
        )

    def _mark_seen(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """(B, V) bool: the tokens of this call's prompts."""
        seen = torch.zeros(len(prompts), self.model.config.vocab, dtype=torch.bool)
        for row, ids in enumerate(prompts):
            seen[row, list(ids)] = True
        return seen.to(self.model.embed.weight.device)
