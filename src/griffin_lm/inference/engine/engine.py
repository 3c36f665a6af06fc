"""The engine: many requests at once through one model, a token for each at every step.

A sequence's state has a size that does not grow, so capacity is a number known at the start: so
many slots. No paging, no preemption (docs/decisions/0013). The rows that generate lie side by side
at the front of one state, which every model call uses up and gives back; when one ends, the last
moves into its place. A prompt is read as a row of its own, a chunk at every step, taking turns with
others, and moves to a slot when it is read.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import torch

from ...errors import GriffinError, Overloaded
from ...models import State
from ..language_model import LanguageModel
from .choosing import choose_for
from .fair_queue import FairQueue
from .prefix_cache import PrefixCache
from .request import EndReason, Event, Failed, Job, Request
from .run import Run, check

CHUNK = 256  # tokens of a prompt between two steps of generation


@dataclass
class Counters:
    """What the engine has done so far."""

    requests: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    steps: int = 0
    refused: int = 0
    failed: int = 0


class Engine:
    """Serves requests: `submit` from any thread, `step` from one.

    lm      the model
    slots   requests that are served at once; their memory is taken at the start
    queue   requests that may wait besides
    chunk   tokens of a prompt that are read between two steps of generation
    cache_bytes   for states at places of prompts, so that what begins the same is read once
    """

    def __init__(
        self,
        lm: LanguageModel,
        slots: int = 8,
        queue: int = 64,
        chunk: int = CHUNK,
        cache_bytes: int = 0,
    ) -> None:
        self.lm, self.slots, self.chunk = lm, slots, chunk
        self.counters = Counters()
        self.cache = PrefixCache(lm.model, cache_bytes)
        self._pool = lm.model.empty_state(slots)
        self._queue = FairQueue(queue)
        self._readers: deque[Run] = deque()
        self._rows: list[Run] = []  # that generate: [i] lies in slot i
        self._wake = threading.Condition()
        self._closing = False

    # ---- from any thread

    def submit(self, request: Request, on_event: Callable[[Event], None]) -> Job:
        """Queues a request; `on_event` is called, from the engine's thread, until its end.

        Exactly one `Finished` or `Failed` comes, as the last. Raises `InputError` for a request
        that can't be served, `Overloaded` where the queue is full or the engine closing.
        """
        job = Job(request, on_event)
        check(self.lm, job)
        with self._wake:
            if self._closing:
                self.counters.refused += 1
                raise Overloaded("the server is closing; try another, or later")
            try:
                # what comes between two steps is not yet in the slots that are free for it
                self._queue.add(job, free=max(0, self.slots - self.running))
            except Overloaded:
                self.counters.refused += 1
                raise
            self._wake.notify_all()
        return job

    def close(self) -> None:
        """Takes no more requests; those it has are served."""
        with self._wake:
            self._closing = True
            self._wake.notify_all()

    def wait(self, seconds: float) -> None:
        """Returns once there is something to do, or the time is over."""
        with self._wake:
            if not self.busy and not self._closing:
                self._wake.wait(seconds)

    @property
    def busy(self) -> bool:
        """Whether there is something to do."""
        return bool(self._readers or self._rows or len(self._queue))

    @property
    def closing(self) -> bool:
        """Whether it takes no more requests."""
        return self._closing

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._queue)

    @property
    def running(self) -> int:
        """Requests that are read or generate."""
        return len(self._readers) + len(self._rows)

    @property
    def state_bytes(self) -> int:
        """Bytes of all slots."""
        return self._pool.nbytes

    # ---- from the engine's thread

    def step(self) -> None:
        """Takes up what waits, reads a chunk of one prompt, and generates a token for each row."""
        self.counters.steps += 1
        self._admit()
        self._end_cancelled()
        self._read()
        self._generate()

    def run_until_idle(self) -> None:
        """Steps until nothing is left to do."""
        while self.busy:
            self.step()

    def abandon(self) -> None:
        """Ends all requests where they are."""
        for run in [*self._readers, *self._rows]:
            run.job.cancelled = True
        with self._wake:
            jobs = [job for job in iter(self._queue.take, None)]
        self._end_cancelled()
        for job in jobs:
            self._fail(job, Overloaded("the server is closing; try another, or later"))

    def fail_all(self, error: Exception) -> None:
        """Ends all requests under way with an error, and begins with empty slots."""
        runs = [*self._readers, *self._rows]
        self._readers.clear()
        self._rows.clear()
        self._pool = self.lm.model.empty_state(self.slots)
        for run in runs:
            self._fail(run.job, error)

    # ---- inside

    def _admit(self) -> None:
        with self._wake:
            gone = self._queue.remove_ended()
            jobs: list[Job] = []
            while self.running + len(jobs) < self.slots and (job := self._queue.take()):
                jobs.append(job)
        for job in gone:
            run = Run(self.lm, job, self.chunk)
            self._end(run, "cancelled" if job.cancelled else "deadline", None)
        for job in jobs:
            try:
                self._readers.append(self._taken_up(job))
            except (GriffinError, RuntimeError) as error:
                self._fail(job, error)

    def _taken_up(self, job: Job) -> Run:
        self.counters.requests += 1
        return Run(self.lm, job, self.chunk, self.cache if self.cache.budget else None)

    def _end_cancelled(self) -> None:
        for run in [run for run in self._readers if run.job.cancelled or run.job.late]:
            self._readers.remove(run)
            self._end(run, "cancelled" if run.job.cancelled else "deadline", None)
        for slot in reversed(range(len(self._rows))):
            job = self._rows[slot].job
            if job.cancelled or job.late:
                self._leave(slot, "cancelled" if job.cancelled else "deadline")

    def _read(self) -> None:
        """A chunk of the prompt whose turn it is."""
        if not self._readers:
            return
        run = self._readers.popleft()
        try:
            if run.reading:
                before = run.fed
                run.read_on()
                self.counters.prompt_tokens += run.fed - before
            if run.reading:
                self._readers.append(run)
            else:
                self._begin_generating(run)
        except (GriffinError, RuntimeError) as error:
            self._fail(run.job, error)

    def _begin_generating(self, run: Run) -> None:
        if run.job.request.options.max_new_tokens == 0:
            run.row.finish("length")
            self._end(run, "length", None)
            return
        run.keep_for_cut()
        assert run.state is not None
        slot = len(self._rows)
        self._pool.put(slice(slot, slot + 1), run.state)
        run.state = None
        self._rows.append(run)

    @torch.no_grad()
    def _generate(self) -> None:
        """One token for every row in a slot."""
        if not self._rows:
            return
        count, model = len(self._rows), self.lm.model
        last = [[run.row.last(len(run.row.tokens))] for run in self._rows]
        tokens = torch.tensor(last, device=model.embed.weight.device)
        try:
            logits, after = model(
                tokens, state=self._pool.narrow(0, count), logits="last", donate=True
            )
            assert logits is not None
            self._pool.put(slice(0, count), after)
        except (GriffinError, RuntimeError) as error:  # the slots' memory may be half written
            rows, self._rows = self._rows, []
            self._pool = model.empty_state(self.slots)
            for run in rows:
                self._fail(run.job, error)
            return
        for slot in reversed(range(count)):
            self._choose(slot, logits[slot : slot + 1])

    def _choose(self, slot: int, logits: torch.Tensor) -> None:
        run = self._rows[slot]
        row, request = run.row, run.job.request
        try:
            token = choose_for(logits, request.options, row.draw, request.ids, row.tokens)
        except (GriffinError, RuntimeError) as error:
            self._vacate(slot)
            self._fail(run.job, error)
            return
        self.counters.generated_tokens += 1
        if run.first_seconds is None:
            run.first_seconds = time.monotonic() - run.job.submitted
        piece = run.take(token)
        if piece is not None:
            self._tell(run.job, piece)
        if row.ended is not None:
            reason = row.ended.reason
            self._leave(slot, "length" if reason == "cancelled" else reason)

    def _leave(self, slot: int, reason: EndReason) -> None:
        """Ends the request in a slot."""
        run = self._rows[slot]
        state = self._pool[slot] if run.job.request.keep_state else None
        self._vacate(slot)
        self._end(run, reason, state)

    def _vacate(self, slot: int) -> None:
        """Frees a slot: the last row moves into it."""
        last = len(self._rows) - 1
        moved = self._rows.pop()
        if slot != last:
            self._pool.put(slice(slot, slot + 1), self._pool.narrow(last, last + 1))
            self._rows[slot] = moved

    def _end(self, run: Run, reason: EndReason, slot: State | None) -> None:
        if run.row.ended is None:
            piece = run.piece(run.row.finish("cancelled"))
            if piece is not None:
                self._tell(run.job, piece)
        if run.first_seconds is None:
            run.first_seconds = time.monotonic() - run.job.submitted
        try:
            end: Event = run.finished(reason, slot)
        except (GriffinError, RuntimeError) as error:
            end = Failed(error=error)
        run.job.over = True
        self._tell(run.job, end)

    def _fail(self, job: Job, error: Exception) -> None:
        self.counters.failed += 1
        job.over = True
        self._tell(job, Failed(error=error))

    def _tell(self, job: Job, event: Event) -> None:
        """Reports an event; a listener that is gone ends its request, and nobody else's."""
        try:
            job.on_event(event)
        except Exception:  # whoever listened is no concern of the other rows
            job.cancelled = True
