"""One row of text on its way: what it has generated, what may be shown, and how it ends."""

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from ..text import StreamDecoder, Tokenizer
from .stops import StopWatch

FinishReason = Literal["stop", "length", "cancelled"]
HELD_BYTES = 3  # tokens that a UTF-8 character may keep waiting for its last byte


class Ended(NamedTuple):
    """How a row ended: its first `kept` tokens stay, the others lie in what a stop cut off."""

    kept: int
    reason: FinishReason


@dataclass
class Row:
    """A row on its way. `ends[k]`: characters of text that the first k tokens have given."""

    tokenizer: Tokenizer
    stop_ids: Collection[int]
    max_new_tokens: int
    seed: int
    step: int  # tokens that the row had before it generated any
    prompt_last: int  # the token that is fed first
    decoder: StreamDecoder
    watch: StopWatch
    tokens: list[int] = field(default_factory=list[int])
    logprobs: list[float] = field(default_factory=list[float])
    ends: list[int] = field(default_factory=lambda: [0])
    ended: Ended | None = None

    @classmethod
    def begin(
        cls,
        tokenizer: Tokenizer,
        stop_ids: Collection[int],
        max_new_tokens: int,
        seed: int,
        stops: Sequence[str],
        before: int,
        prompt: Sequence[int],
        prompt_last: int,
    ) -> "Row":
        """The row after a prompt that follows `before` earlier tokens."""
        return cls(
            tokenizer=tokenizer,
            stop_ids=stop_ids,
            max_new_tokens=max_new_tokens,
            seed=seed,
            step=before + len(prompt),
            prompt_last=prompt_last,
            # only at the very beginning of a text is a leading space the vocabulary's own
            decoder=tokenizer.decoder(
                continues=before > 0 or any(token != tokenizer.bos_id for token in prompt)
            ),
            watch=StopWatch(stops),
        )

    @property
    def draw(self) -> tuple[int, int]:
        """(seed, step) of the noise by which the next token is drawn."""
        return self.seed, self.step + len(self.tokens)

    def cuts(self) -> range:
        """How many tokens may stay if a stop string turns out to begin where text isn't shown yet.

        Several, as the last of them may be part of a character of which the decoder holds bytes.
        """
        most = bisect_right(self.ends, self.watch.shown) - 1
        return range(max(bisect_left(self.ends, self.ends[most]), most - HELD_BYTES), most + 1)

    def last(self, count: int) -> int:
        """The last token of the prompt and the first `count` new ones."""
        return self.tokens[count - 1] if count else self.prompt_last

    def take(self, token: int, logprob: float) -> str:
        """Adds a token, and ends the row if that was its last; the text to show by now."""
        self.tokens.append(token)
        self.logprobs.append(logprob)
        stopped = token in self.stop_ids
        piece = "" if stopped else self.decoder.feed(token)
        self.ends.append(self.ends[-1] + len(piece))
        shown = self.watch.add(piece)
        if self.watch.stopped:
            self._cut()
        elif stopped or len(self.tokens) == self.max_new_tokens:
            shown += self.finish("stop" if stopped else "length")
        return shown

    def finish(self, reason: FinishReason) -> str:
        """Ends the row after all its tokens; what the decoder still holds may complete a stop."""
        shown = self.watch.add(self.decoder.finish())
        if self.watch.stopped:
            self._cut()
            return shown
        shown += self.watch.finish()
        self.ended = Ended(len(self.tokens), reason)
        return shown

    def _cut(self) -> None:
        """Ends the row before a stop string: at the last token that lies wholly before it."""
        cuts = self.cuts()
        whole = (k for k in reversed(cuts) if k == cuts.start or self._is_whole(self.tokens[:k]))
        self.ended = Ended(next(whole), "stop")

    def _is_whole(self, tokens: Sequence[int]) -> bool:
        """Whether these tokens end with a whole character."""
        decoder = self.tokenizer.decoder(continues=True)
        for token in tokens:
            decoder.feed(token)
        return not decoder.finish()
