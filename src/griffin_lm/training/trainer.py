"""The training loop: any feed, any model that obeys the model call."""

import math
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..allocator import keep_freed_memory
from ..errors import TrainingError
from ..models.state import State
from .batch import Batch, Feed, Located, World
from .blocks import compile_why_not, prepare_blocks
from .config import TrainConfig
from .distributed import processes_of
from .loss import token_losses
from .metrics import Metrics, StepFigures
from .optim import make_optimizer
from .randomness import random_states, restore_random_states
from .resume import held, newest, refuse_other_config, state_from_list, state_to_list
from .schedule import learning_rate
from .signals import Signals


class _Seen(NamedTuple):
    """A micro-batch after its backward pass: each token's loss and hit, on the CPU or a device."""

    batch: Batch
    each: Tensor
    right: Tensor
    loss: float


class Trainer:
    """Drives one model over one feed.

    model: obeys the model call (Griffin, or a wrapper with its attributes). The loss of a step is
    sum(weight * loss) over sum(weight) of all its micro-batches, never a mean of means. Where this
    process was joined with others (`distributed.joined`), they train the model together.
    """

    def __init__(
        self,
        model: nn.Module,
        feed: Feed,
        config: TrainConfig,
        out: Path,
        world: World = World(),  # noqa: B008  (immutable)
    ) -> None:
        why_not = compile_why_not(world.device) if config.compile else None
        self.compiled = config.compile and why_not is None
        self.processes = processes_of(world)
        self.processes.prepare(model, config, self.compiled)
        self.model: Any = model
        self.feed, self.config, self.out, self.world = feed, config, out, world
        self.optimizer = make_optimizer(model, config)
        self.state: State | None = None  # carried from batch to batch
        self.steps, self.tokens, self.seconds = 0, 0, 0.0
        self.split = 1  # parts that a micro-batch is cut into, more where memory does not suffice
        if why_not is not None:
            self._say(f"{why_not}; going on without it, slower")
        prepare_blocks(model, self.compiled, config.recomputed())

    @property
    def share(self) -> float:
        """How much of the run is done, 0 to 1: by steps or tokens, or by the clock if further."""
        config = self.config
        done = self.steps / config.steps if config.steps else self.tokens / config.tokens
        return max(done, self.seconds / config.seconds if config.seconds > 0 else 0.0)

    # ---- one step

    def step(self) -> StepFigures:
        """One optimiser step. Raises TrainingError, before any update, where it must not go on."""
        config, began = self.config, time.perf_counter()
        share = self.share
        taken = [self.feed.take(share) for _ in range(config.accumulate)]
        # counted where the feed left them: on a GPU each look would stop the queue
        weights, tokens = self.processes.totals(
            sum(float(batch.weight.sum()) for batch in taken),
            sum(int(batch.valid.sum()) for batch in taken),
        )
        by_weight = config.loss_over == "weights"
        over = weights if by_weight else float(len(taken) * self.world.size)
        batches = [batch.to(self.world.device) for batch in taken]
        seen, state = self._gradients(batches, over or 1.0)
        (loss,) = self.processes.totals(sum(one.loss for one in seen))
        norm = self._norm() if math.isfinite(loss) else math.nan
        self._refuse_broken(seen, loss, norm)
        rate = learning_rate(config, self.steps, share)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.state = state
        self.steps += 1
        self.tokens += int(tokens)
        for one in seen:
            if line := self.feed.observe(one.batch, one.each, one.right):
                self._say(f"step {self.steps}: {line}")
        took = time.perf_counter() - began
        self.seconds += took
        return StepFigures(
            self.steps, self.tokens, self.seconds, loss, norm, rate, int(tokens), took
        )

    def _gradients(self, batches: list[Batch], over: float) -> tuple[list[_Seen], State | None]:
        """Gradients of all micro-batches; where memory does not suffice, again in smaller parts."""
        while True:
            try:
                state, seen = self.state, []
                for batch in batches:
                    one, state = self._backward(batch, state if batch.carries else None, over)
                    seen.append(one)
                return seen, state
            except RuntimeError as error:
                if not _is_out_of_memory(error):
                    raise
                reason = str(error).splitlines()[0]
            # outside of the handler: until here its traceback held the tensors that filled memory
            self._halve(max(batch.tokens.shape[0] for batch in batches), reason)

    def _halve(self, rows: int, reason: str) -> None:
        """Cuts micro-batches into twice as many parts; the global batch stays."""
        self.optimizer.zero_grad(set_to_none=True)
        parts = -(-rows // self.split)
        if self.world.size > 1:  # the others wait in a collective call: no step is made again
            raise TrainingError(
                f"rank {self.world.rank} ran out of memory at step {self.steps} ({reason}); start "
                f"again with --set rows={max(1, rows // 2)} "
                f"--set accumulate={2 * self.config.accumulate}"
            )
        if parts == 1:
            raise TrainingError(
                f"out of memory at step {self.steps} with one row at a time ({reason}); use "
                "--set recompute=full, a shorter --set length or segment, or a smaller model"
            )
        self.split *= 2
        if self.world.device.type == "cuda":
            torch.cuda.empty_cache()
        self._say(
            f"step {self.steps}: out of memory ({reason}); micro-batches of {-(-parts // 2)} rows "
            f"instead of {parts} from here on, the same {rows} rows counting together"
        )

    def _backward(
        self, batch: Batch, state: State | None, over: float
    ) -> tuple[_Seen, State | None]:
        """Adds a micro-batch's gradients; each token's loss, and the state after it if carried."""
        config, (rows, length) = self.config, batch.tokens.shape
        part, span = -(-rows // self.split), config.segment or length
        each, right, total = [], [], 0.0
        states: list[State] = []
        for begin in range(0, rows, part):
            some = slice(begin, min(begin + part, rows))
            here = state if state is None or part >= rows else state[some]
            row_each, row_right = [], []
            for at in range(0, length, span):
                cut = batch.part(some, slice(at, min(at + span, length)))
                with torch.autocast(
                    self.world.device.type, torch.bfloat16, enabled=self.config.bf16
                ):
                    hidden, here = self.model.hidden(
                        cut.tokens,
                        starts=cut.starts,
                        valid=None if bool(cut.valid.all()) else cut.valid,
                        state=here,
                        window=cut.window,
                    )
                    found = token_losses(
                        self.model.head,
                        hidden,
                        cut.targets,
                        cut.weight,
                        config.loss_chunk,
                        self.compiled,
                    )
                loss = found.total / over
                loss.backward()
                total += float(loss.detach())
                here = here.detach()
                row_each.append(found.each)
                row_right.append(found.right)
            each.append(torch.cat(row_each, 1))
            right.append(torch.cat(row_right, 1))
            if batch.carries and here is not None:
                states.append(here)
        after = (states[0] if len(states) == 1 else State.concat(states)) if states else None
        return _Seen(batch, torch.cat(each), torch.cat(right), total), after

    def _norm(self) -> float:
        """The gradient's norm before clipping; clips it."""
        found = [p for p in self.model.parameters() if p.grad is not None]
        total = self.processes.norm([p.grad for p in found if p.grad is not None])
        norm = float(total)
        if (
            0 < self.config.clip < norm < math.inf
        ):  # else multiplied by 1: a walk over all for nothing
            nn.utils.clip_grads_with_norm_(found, self.config.clip, total)
        return norm

    def _refuse_broken(self, seen: list[_Seen], loss: float, norm: float) -> None:
        """Raises, all gradients dropped, if the loss or the gradient's norm is not finite."""
        if math.isfinite(loss) and math.isfinite(norm):
            return
        self.optimizer.zero_grad(set_to_none=True)
        bad = next((i for i, one in enumerate(seen) if not math.isfinite(one.loss)), None)
        what = (
            f"the loss is {loss}" if not math.isfinite(loss) else f"the gradient's norm is {norm}"
        )
        first = self.steps * self.config.accumulate
        which = f"batch {first + bad}" if bad is not None else f"batches from {first}"
        where = f" ({self.feed.where()})" if isinstance(self.feed, Located) else ""
        mine = f"{which} of rank {self.world.rank}{where}"
        guilty = [text for text in self.processes.texts(mine if bad is not None else "") if text]
        raise TrainingError(
            f"{what} at step {self.steps}, {' and '.join(guilty) or mine}; weights are "
            "not updated. Look at that data, or resume with a smaller --set peak_rate"
        )

    # ---- the whole run

    def run(self, resume: bool) -> int:
        """Trains to the end of the budget; saves on the way and at the end.

        resume: go on from the folder's newest checkpoint, if there is one; without it a folder with
        one is refused. Returns 0, or 128 + the number of the signal that ended it (SIGTERM 143,
        Ctrl-C 130): the step is finished and saved first.
        """
        if self.world.device.type == "cpu":
            keep_freed_memory()
        self._open(resume)
        metrics = Metrics(self.config, self.model, self.out, self.world, self.steps)
        saved, last, ended_by = time.monotonic(), self.steps, 0
        signals = Signals(passed_on=self.world.size > 1)
        with signals, metrics, self.processes.saver(self.out, self.config.keep) as saver:
            while self.share < 1 and not ended_by:
                metrics.add(self.step(), self.share, self.feed)
                late = time.monotonic() - saved > self.config.save_every
                # what differs from process to process, agreed upon
                number, late, broken, self.seconds = self.processes.most(
                    signals.seen, late, saver.failed, self.seconds
                )
                ended_by = int(number)
                by_step = self.config.save_steps and self.steps % self.config.save_steps == 0
                if broken:
                    saver.wait()
                if by_step or late:
                    saver.save(self.steps, self.to_dict())
                    saved, last = time.monotonic(), self.steps
            if last != self.steps:
                saver.save(self.steps, self.to_dict())
        if ended_by and self.world.rank == 0:
            print(
                f"\nsaved at step {self.steps}; go on with --resume auto",
                file=sys.stderr,
                flush=True,
            )
        return 128 + ended_by if ended_by else 0

    def _open(self, resume: bool) -> None:
        if not resume and self.processes.first(lambda: bool(held(self.out))):
            raise TrainingError(
                f"{self.out} holds a run; go on with --resume auto or choose another"
            )
        if path := self.processes.first(lambda: newest(self.out, self._say)):
            self.restore(self.processes.load(path, self.model, self.optimizer))
            self._say(f"going on from step {self.steps}")
        if self.compiled:
            self._say("the first step compiles the blocks too, which may take a minute")

    def _say(self, line: str) -> None:
        if self.world.rank == 0:
            print(line, flush=True)

    # ---- checkpoints

    def to_dict(self) -> dict[str, Any]:
        """Everything that going on to the bit needs."""
        return {
            "model": self.model.state_dict(),
            "config": self.model.config.to_dict(),
            "optimizer": self.optimizer.state_dict(),
            "state": None if self.state is None else state_to_list(self.state),
            "feed": self.feed.to_dict(),
            "random": random_states(self.world.device),
            "progress": {
                "steps": self.steps,
                "tokens": self.tokens,
                "seconds": self.seconds,
                "split": self.split,
            },
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """The inverse of to_dict. Raises TrainingError for a run of another model."""
        refuse_other_config(saved["config"], self.model.config.to_dict(), self.out)
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        state = saved["state"]
        self.state = None if state is None else state_from_list(self.model, state)
        self.feed.restore(saved["feed"])
        progress = saved["progress"]
        self.steps, self.tokens = progress["steps"], progress["tokens"]
        self.seconds, self.split = progress["seconds"], progress["split"]
        if saved["random"] is not None:  # a process that there was not when it was saved
            restore_random_states(saved["random"], self.world.device)


def _is_out_of_memory(error: RuntimeError) -> bool:
    on_cpu = "can't allocate memory" in str(error)  # the CPU's allocator has no class of its own
    return isinstance(error, torch.OutOfMemoryError) or on_cpu
