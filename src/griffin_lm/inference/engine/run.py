"""A request that the engine has taken up: how far it was read, what it generated."""

from collections.abc import Iterable, Sequence

import torch

from ...errors import InputError
from ...models import Griffin, State
from ..language_model import LanguageModel
from ..reading import read_rows
from ..row import Row
from ..sampling import seeds_for
from ..stops import stop_strings
from .choosing import scored
from .cuts import all_cuts, canonical_cuts
from .prefix_cache import PrefixCache, Visit
from .request import EndReason, Finished, Job, Piece, Scored

SCORED_AT_ONCE = 64  # positions whose logits are in memory together: 64 MB at a vocabulary of 256k


class Run:
    """A job under way: first it reads all of its prompt but the last token, then it generates.

    The last token is fed by itself, as every later one is, so that what is generated does not
    depend on how the prompt was read.

    ids     the prompt's tokens, with the one that was pending in front
    fed     how many of them the state has read
    cuts    where reading pauses; the last is the end of reading
    state   while it reads, a row of its own; later it lies in the engine's slots
    """

    def __init__(
        self, lm: LanguageModel, job: Job, chunk: int, cache: PrefixCache | None = None
    ) -> None:
        request = job.request
        start = request.state
        state = lm.model.empty_state(1) if start is None else start[:]
        waiting = [] if state.pending is None else [t for t in state.pending.tolist() if t >= 0]
        before = int(state.read.item())
        self.lm, self.job = lm, job
        self.ids = [*waiting, *request.ids]
        state.pending = None
        self.state: State | None = state.to(lm.model.embed.weight.device)
        self.fed = self.cached = self.written = 0
        new = start is None
        markers, marks = (opening_markers(lm), request.marks) if new else ((), ())
        canonical = canonical_cuts(self.ids, chunk, markers, marks)
        self.cuts = all_cuts(canonical, len(self.ids))
        self._visit: Visit | None = None
        if cache is not None and new and request.use_cache and not request.score_prompt:
            self._visit = visit = cache.visit(request.owner, self.ids, canonical, marks)
            if visit.state is not None:
                self.state, self.fed, self.cached = visit.state, visit.found, visit.found
            visit.state = None
        options = request.options
        self.row = Row.begin(
            lm.tokenizer,
            frozenset(lm.stop_ids),
            options.max_new_tokens,
            seeds_for(options.seed, 1)[0],
            stop_strings(options.stop),
            before + len(waiting),
            request.ids,
            self.ids[-1],
        )
        self.scores: list[Scored] = []
        self.prompt_scores: list[Scored] = []
        self.first_seconds: float | None = None
        self._before: State | None = None  # after reading, if a stop string may cut to it
        self._reported = 0

    @property
    def reading(self) -> bool:
        """Whether there is more of the prompt to be read."""
        return self.fed < len(self.ids) - 1

    @torch.no_grad()
    def read_on(self) -> None:
        """Reads up to the next cut."""
        end = next(cut for cut in self.cuts if cut > self.fed)
        part = self.ids[self.fed : end]
        assert self.state is not None
        if self.job.request.score_prompt:
            self.state = self._read_scoring(part, self.ids[self.fed + 1 : end + 1], self.state)
        else:
            self.state = read_rows(self.lm.model, [part], self.state, donate=True, chunk=len(part))
        self.fed = end
        visit = self._visit
        if visit is not None and end in visit.wanted and visit.keep(end, self.state):
            self.written = end - self.cached

    def keep_for_cut(self) -> None:
        """Before the row goes to its slot: keeps what may be needed if a stop string cuts."""
        request = self.job.request
        if request.keep_state and self.row.watch.stops:
            assert self.state is not None
            self._before = self.state.clone()

    def take(self, token: Scored) -> Piece | None:
        """Adds a generated token; what there is to report of it."""
        self.scores.append(token)
        return self.piece(self.row.take(token.token, token.logprob))

    def piece(self, shown: str) -> Piece | None:
        """What is to be reported, given the text to show; None: nothing yet."""
        row = self.row
        settled = row.cuts().start if row.ended is None else row.ended.kept
        tokens = tuple(self.scores[self._reported : settled])
        self._reported = max(self._reported, settled)
        return Piece(text=shown, tokens=tokens) if shown or tokens else None

    def finished(self, reason: EndReason, slot: State | None) -> Finished:
        """Its end. slot: its row in the engine, which has read all but the last token."""
        row, request = self.row, self.job.request
        count = row.ended.kept if row.ended is not None else len(row.tokens)
        kept = request.keep_state and not self.reading and reason in ("stop", "length")
        return Finished(
            text=row.watch.text,
            tokens=tuple(self.scores[:count]),
            reason=reason,
            prompt_tokens=len(request.ids),
            cached_tokens=self.cached,
            written_tokens=self.written,
            state=self._state_after(count, slot) if kept else None,
            prompt=tuple(self.prompt_scores),
            first_seconds=self.first_seconds or 0.0,
        )

    def _state_after(self, count: int, slot: State | None) -> State:
        row = self.row
        if count == len(row.tokens):
            state = slot if slot is not None else self.state
        else:  # a stop string cut off tokens that the slot has read: read the others once more
            state = self._before
            again = [row.prompt_last, *row.tokens][:count]
            if state is not None and again:
                state = read_rows(self.lm.model, [again], state)
        assert state is not None
        return state.with_pending([row.last(count)])

    def _read_scoring(self, part: Sequence[int], following: Sequence[int], state: State) -> State:
        """Reads a part, and scores the tokens that follow each of its own."""
        model, options = self.lm.model, self.job.request.options
        tokens = torch.tensor([part], device=model.embed.weight.device)
        hidden, after = model.hidden(tokens, state=state, donate=True)
        for begin in range(0, len(part), SCORED_AT_ONCE):
            logits = model.head(hidden[:, begin : begin + SCORED_AT_ONCE])[0]
            for row, token in zip(logits, following[begin : begin + SCORED_AT_ONCE], strict=True):
                self.prompt_scores.append(scored(row[None], token, options))
        return after


def opening_markers(lm: LanguageModel) -> frozenset[int]:
    """Ids that open a turn in the model's own template; none for a base model."""
    template = lm.tokenizer.turn if lm.instruction_tuned else None
    if template is None:
        return frozenset()
    opens = (template.user_open, template.model_open)
    firsts = [lm.tokenizer.split_markers(text)[:1] for text in opens]
    return frozenset(part for first in firsts for part in first if isinstance(part, int))


def check(lm: LanguageModel, job: Job) -> None:
    """Refuses a request that could not be served, by `InputError` or `StateError`."""
    request, model = job.request, lm.model
    state = request.state
    if state is not None and state.batch_size != 1:
        raise InputError(f"a request goes on from one row, not {state.batch_size}; pass state[i]")
    if not request.ids and (state is None or state.pending is None or int(state.pending) < 0):
        raise InputError("there is nothing to go on from: no tokens, and none pending in a state")
    _in_vocabulary(model, request.ids, "token")
    _in_vocabulary(model, request.options.logit_bias, "logit_bias's token")
    seeds_for(request.options.seed, 1)
    if state is not None:
        _ = state.layers
        if state.origin is not model.origin and state.origin.model() != model.origin.model():
            raise InputError("the state belongs to another model")


def _in_vocabulary(model: Griffin, ids: Iterable[int], what: str) -> None:
    vocab = model.config.vocab
    for token in ids:
        if not 0 <= token < vocab:
            raise InputError(f"{what} {token} is outside the vocabulary of {vocab}")
