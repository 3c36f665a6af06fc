"""Generation: many rows at once, each of which ends by itself.

The last token of a prompt is always fed by itself, as every later token is. So a state that has
read all but that token exists (what a stop string cuts off may be everything), and a generation
that is interrupted anywhere and continued makes the very same calls as one that is not.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from ..errors import InputError
from ..models import Griffin, State
from ..text import StreamDecoder, Tokenizer
from .reading import read_rows
from .sampling import SamplingOptions, choose, logprob_of, seeds_for
from .stops import StopWatch, stop_strings

FinishReason = Literal["stop", "length", "cancelled"]
HELD_BYTES = 3  # tokens that a UTF-8 character may keep waiting for its last byte


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


@dataclass
class _Row:
    """A row on its way. `ends[k]`: characters of text that the first k tokens have given."""

    seed: int
    step: int  # tokens that the row had before it generated any
    prompt_last: int  # the token that is fed first
    decoder: StreamDecoder
    watch: StopWatch
    tokens: list[int] = field(default_factory=list[int])
    logprobs: list[float] = field(default_factory=list[float])
    ends: list[int] = field(default_factory=lambda: [0])
    output: Output | None = None

    def cuts(self) -> range:
        """How many tokens may stay if a stop string turns out to begin where text isn't shown yet.

        Several, as the last of them may be part of a character of which the decoder holds bytes.
        """
        most = bisect_right(self.ends, self.watch.shown) - 1
        return range(max(bisect_left(self.ends, self.ends[most]), most - HELD_BYTES), most + 1)

    def last(self, count: int) -> int:
        """The last token of the prompt and the first `count` new ones."""
        return self.tokens[count - 1] if count else self.prompt_last


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
            _Row(
                seed=seed,
                step=before + len(prompt),
                prompt_last=ids[-1],
                # only at the very beginning of a text is a leading space the vocabulary's own
                decoder=tokenizer.decoder(
                    continues=before > 0 or any(token != tokenizer.bos_id for token in prompt)
                ),
                watch=StopWatch(stops),
            )
            for seed, before, prompt, ids in zip(seeds, read, prompts, feed, strict=True)
        ]
        self._feed = [ids[:-1] for ids in feed]
        self._keep = bool(stops)
        self._seen = self._mark_seen(prompts) if options.repetition_penalty is not None else None
        state = state[:].to(model.embed.weight.device)  # a copy: ours to use up
        state.pending = None
        # states that a row may have to end with: [k] has read all but the last of k new tokens
        self._past: dict[int, State] = {0: state}
        self._count = 0
        self._begun = False

    @property
    def done(self) -> bool:
        """Whether every row has ended."""
        return all(row.output is not None for row in self.rows)

    @property
    def outputs(self) -> list[Output]:
        """What the rows generated, once all are done."""
        outputs = [row.output for row in self.rows if row.output is not None]
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

    @torch.no_grad()
    def step(self) -> list[str]:
        """One more token for every row that has not ended; the text to show by now, per row."""
        self.begin()
        going = [row.output is None for row in self.rows]
        if not any(going):
            return [""] * len(self.rows)
        tokens, logprobs = self._next_tokens(going)
        shown = [""] * len(self.rows)
        for index, row in enumerate(self.rows):
            if going[index]:
                shown[index] = self._take(index, row, tokens[index], logprobs[index])
        first = min((row.cuts().start for row in self.rows if row.output is None), default=0)
        for count in [count for count in self._past if count < first]:
            del self._past[count]
        return shown

    def cancel(self, reason: FinishReason = "cancelled") -> list[str]:
        """Ends every row where it is; the text that was held back, per row."""
        self.begin()
        return [
            self._finish(index, row, reason) if row.output is None else ""
            for index, row in enumerate(self.rows)
        ]

    def _next_tokens(self, going: list[bool]) -> tuple[list[int], list[float]]:
        """Feeds each row its last token and chooses the next; rows that ended stand still."""
        device = self.model.embed.weight.device
        before = self._past[self._count]
        if not self._keep:
            self._past.clear()  # nothing can be cut: one state is enough, and its memory is ours
        fed = torch.tensor([[row.last(len(row.tokens))] for row in self.rows], device=device)
        valid = None if all(going) else torch.tensor(going, device=device)[:, None]
        logits, after = self.model(
            fed, valid=valid, state=before, logits="last", donate=not self._keep
        )
        assert isinstance(logits, Tensor)
        self._count += 1
        self._past[self._count] = after
        draws = [(row.seed, row.step + len(row.tokens)) for row in self.rows]
        tokens = choose(logits, self.options, draws, self._seen)
        if self._seen is not None:
            self._seen[torch.arange(len(going), device=device), tokens] = True
        if not self.options.logprobs:
            return tokens.tolist(), [0.0] * len(going)
        return tokens.tolist(), logprob_of(logits, tokens).tolist()

    def _take(self, index: int, row: _Row, token: int, logprob: float) -> str:
        """Adds a token to a row and ends the row if that was its last."""
        row.tokens.append(token)
        row.logprobs.append(logprob)
        ended = token in self.stop_ids
        piece = "" if ended else row.decoder.feed(token)
        row.ends.append(row.ends[-1] + len(piece))
        shown = row.watch.add(piece)
        if row.watch.stopped:
            self._cut(index, row)
        elif ended or len(row.tokens) == self.options.max_new_tokens:
            shown += self._finish(index, row, "stop" if ended else "length")
        return shown

    def _finish(self, index: int, row: _Row, reason: FinishReason) -> str:
        """Ends a row after all its tokens; what the decoder still holds may complete a stop."""
        shown = row.watch.add(row.decoder.finish())
        if row.watch.stopped:
            self._cut(index, row)
            return shown
        shown += row.watch.finish()
        self._end(index, row, len(row.tokens), reason)
        return shown

    def _cut(self, index: int, row: _Row) -> None:
        """Ends a row before a stop string: at the last token that lies wholly before it."""
        cuts = row.cuts()
        whole = (k for k in reversed(cuts) if k == cuts.start or self._is_whole(row.tokens[:k]))
        self._end(index, row, next(whole), "stop")

    def _is_whole(self, tokens: list[int]) -> bool:
        """Whether these tokens end with a whole character."""
        decoder = self.tokenizer.decoder(continues=True)
        for token in tokens:
            decoder.feed(token)
        return not decoder.finish()

    def _end(self, index: int, row: _Row, count: int, reason: FinishReason) -> None:
        row.output = Output(
            text=row.watch.text,
            tokens=row.tokens[:count],
            finish_reason=reason,
            state=self._past[count][index].with_pending([row.last(count)]),
            logprobs=row.logprobs[:count] if self.options.logprobs else None,
        )

    def _mark_seen(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """(B, V) bool: the tokens of this call's prompts."""
        seen = torch.zeros(len(prompts), self.model.config.vocab, dtype=torch.bool)
        for row, ids in enumerate(prompts):
            seen[row, list(ids)] = True
        return seen.to(self.model.embed.weight.device)
