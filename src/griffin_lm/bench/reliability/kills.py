"""Training runs killed at random moments, over and over: what they end in, and what was lost.

A tiny run saves in the background after every step. Each of its processes gets SIGKILL after a time
drawn at random: while it starts, resumes, trains, saves or removes what is old. The next one goes
on by `--resume auto`. In the end all of the last checkpoint, weights, moments, state and the feed's
cursor, has to be equal to the bit to that of a run which nobody disturbed and which saved once.
"""

import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import GriffinError
from ...inference.resolution import BUNDLED
from ...mixers import RGLRU, LocalAttention
from ...models import ModelConfig
from ...text import load_tokenizer
from ...training.config import TrainConfig
from ...training.data.feeds import PackedText
from ...training.data.prepare import prepare
from ...training.memo import MemoCourse
from ...training.pretraining import open_run
from ...training.resume import load, newest

LONGEST = 120.0  # seconds that a process may take to start, or to end its run
_MORE = 3  # steps from the last kill to the end
# imported before processes are forked: also what torch imports when the first model and optimiser
# are made, which is most of a process's first second
FORKED = (__name__, "torch._dynamo", "torch._refs", "torch.fx.experimental.symbolic_shapes")
_ASIDE = "step-*.tmp-*"  # folders of saves that are under way
_ALONE = ("seconds",)  # of progress: what a clock says is not repeated


@dataclass(frozen=True)
class Arm:
    """A run to be killed: its recipe, and what makes its data folder and prepares its own."""

    name: str
    about: str
    config: TrainConfig
    prepare: Callable[[Path, Path], None]  # (data, out)


@dataclass
class Killed:
    """What came of one arm. failures: every rule that was broken, in words; none: all held.

    starting, training, saving: where the kills fell: before the first step of a process, between
    saves, or with a save under way (its folder was there).
    """

    arm: str
    about: str
    kills: int = 0
    starting: int = 0
    training: int = 0
    saving: int = 0
    steps: int = 0
    resumed: int = 0  # processes that found a checkpoint and went on from it
    seconds: float = 0.0
    equal: bool = False
    failures: list[str] = field(default_factory=list[str])

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {"what": "kills", **asdict(self), "seconds": round(self.seconds, 1)}


_MODEL = ModelConfig(
    vocab=2048,
    width=16,
    mlp_width=16,
    layers=2,
    pattern=(RGLRU(width=16, heads=2), LocalAttention(heads=1, head_dim=16, window=24)),
)
_TINY = TrainConfig(
    model=_MODEL,
    rows=2,
    length=32,
    steps=1_000_000,  # never reached: the runs are ended by SIGTERM, which saves
    warmup_steps=20,
    schedule="cosine",
    save_steps=1,
    save_every=1e9,
    keep=2,
    compile=False,
    log_every=50,
    rate_seconds=0.0,
)


def _packed(data: Path, out: Path) -> None:
    """Forty documents of different lengths out of the bundled book, as `griffin data prepare`."""
    draw, words = random.Random(0), _book().split()[:20_000]
    texts: list[str] = []
    while len(texts) < 200:
        begin = draw.randrange(len(words) - 80)
        texts.append(" ".join(words[begin : begin + draw.randint(1, 60)]))
    source = data.with_name("texts.jsonl")
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    prepare(source, load_tokenizer(BUNDLED["fledgling"]), data)


def _memo(data: Path, out: Path) -> None:
    """Five books, and the bundled vocabulary so that none has to be trained."""
    text = _book()
    data.mkdir()
    with (data / "books.jsonl").open("w", encoding="utf-8") as file:
        for number in range(5):
            part = text[number * 20_000 : (number + 1) * 20_000]
            file.write(json.dumps({"id": str(number), "text": part}) + "\n")
    out.mkdir()
    shutil.copy(BUNDLED["fledgling"] / "tokenizer.model", out)


def _book() -> str:
    return (BUNDLED["fledgling"] / "book.txt").read_text(encoding="utf-8")


ARMS: Mapping[str, Arm] = {
    arm.name: arm
    for arm in (
        Arm(
            "packed",
            "packed documents, two micro-batches a step, blocks computed twice",
            replace(_TINY, feed=PackedText(bins=8), accumulate=2, recompute="full"),
            _packed,
        ),
        Arm(
            "memo",
            "rows that carry their state, windows dropped at random, a course that learns",
            replace(_TINY, feed=MemoCourse(), loss_over="batches", slow_share=0.35),
            _memo,
        ),
    )
}


def kill(
    arm: Arm,
    kills: int,
    seed: int,
    folder: Path,
    progress: Callable[[int], None] = lambda done: None,
    child: Callable[..., None] | None = None,
) -> Killed:
    """Kills a run so many times in `folder`, empty or new; ends it; compares.

    child: instead of `train`, what each of the killed processes does.
    """
    began, draw = time.perf_counter(), random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    out, data, found = folder / "run", folder / "data", Killed(arm.name, arm.about)
    arm.prepare(data, out)
    if out.exists():
        shutil.copytree(out, folder / "whole")
    spread = 2.0 * _Life(arm.config, data, out, train).time_to_steps(folder / "trial", 4)
    life = _Life(arm.config, data, out, child or train)
    reached = 0
    for done in range(kills):
        left = set(out.glob(_ASIDE))  # of a save that an earlier process was killed in
        steps, code = life.killed_after(draw.uniform(0.0, spread))
        found.kills += code == -signal.SIGKILL
        if code != -signal.SIGKILL:
            found.failures.append(f"process {done} ended by itself with exit code {code}")
        saving = not left.issuperset(out.glob(_ASIDE))
        found.saving += saving
        found.starting += not saving and not steps
        found.training += not saving and bool(steps)
        now = _verified(out, found.failures)
        if now < reached:
            found.failures.append(f"after kill {done} the newest was step {now}, not {reached}")
        found.resumed += reached > 0 and bool(steps) and steps[0] == reached + 1
        if steps and reached and steps[0] != reached + 1:
            found.failures.append(f"process {done} went on from step {steps[0] - 1}, not {reached}")
        reached = now
        progress(done + 1)
    found.steps = reached + _MORE
    _end(life, arm, data, found, folder)
    found.seconds = time.perf_counter() - began
    return found


def _end(life: "_Life", arm: Arm, data: Path, found: Killed, folder: Path) -> None:
    """Lets the run end, makes the undisturbed one, and compares their last checkpoints."""
    code = life.ended_at(found.steps)
    if code != 128 + signal.SIGTERM:
        found.failures.append(f"the last process ended with exit code {code}")
        return
    quiet = replace(arm.config, save_steps=0)
    code = _Life(quiet, data, folder / "whole", train).ended_at(found.steps)
    if code != 128 + signal.SIGTERM:
        found.failures.append(f"the undisturbed run ended with exit code {code}")
        return
    ends = [load(folder / name / f"step-{found.steps}") for name in ("run", "whole")]
    for end in ends:
        del end["random"]  # each process's own at its start; nothing here draws from it
        for name in _ALONE:
            del end["progress"][name]
    different = differences(ends[0], ends[1])
    found.equal = not different
    found.failures += [f"the ends differ in {name}" for name in different[:8]]


class _Life:
    """Processes of one run, one after the other."""

    def __init__(
        self, config: TrainConfig, data: Path, out: Path, child: Callable[..., None]
    ) -> None:
        self.config, self.data, self.out, self.child = config, data, out, child
        # forked from a process that has imported everything and never computed: quick, and clean
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(list(FORKED))

    def start(self, out: Path, until: int) -> tuple[Any, Connection]:
        """A process that goes on with the run, and what it sends: the number of every step."""
        here, there = self.context.Pipe(duplex=False)
        process = self.context.Process(
            target=self.child, args=(self.config, self.data, out, until, there)
        )
        process.start()
        there.close()
        return process, here

    def killed_after(self, seconds: float) -> tuple[list[int], int | None]:
        """The steps that a process made before it was killed, and its exit code."""
        process, here = self.start(self.out, -1)
        process.join(seconds)
        process.kill()
        process.join()
        steps: list[int] = []
        try:
            while here.poll():
                steps.append(here.recv())
        except (EOFError, OSError):
            pass
        return steps, process.exitcode

    def ended_at(self, step: int) -> int | None:
        """Lets the run end after a step; the exit code."""
        process, _ = self.start(self.out, step)
        process.join(LONGEST + 0.5 * step)
        process.kill()
        process.join()
        return process.exitcode

    def time_to_steps(self, out: Path, steps: int) -> float:
        """Seconds from the start of a new run to the end of so many steps."""
        if self.out.exists():
            shutil.copytree(self.out, out)
        self.start(out, 1)[0].join(LONGEST)  # the first one also starts the fork server
        began = time.perf_counter()
        process, here = self.start(out, 1 + steps)
        for _ in range(steps):
            if not here.poll(LONGEST):
                break
            here.recv()
        took = time.perf_counter() - began
        process.join(LONGEST)
        return took


def train(config: TrainConfig, data: Path, out: Path, until: int, going: Connection) -> None:
    """As `griffin pretrain --resume auto`; sends each step, and after one of them gets SIGTERM."""
    torch.set_num_threads(1)
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115  (until the process ends)
    trainer = open_run(config, data, out, "cpu")
    step = trainer.step

    def told() -> Any:
        figures = step()
        going.send(figures.steps)
        if figures.steps == until:
            os.kill(os.getpid(), signal.SIGTERM)
        return figures

    trainer.step = told
    sys.exit(trainer.run(True))


def differences(one: object, other: object, name: str = "") -> list[str]:
    """Where two contents are not equal to the bit, types too."""
    if type(one) is not type(other):
        return [name]
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return [] if one.dtype == other.dtype and torch.equal(one, other) else [name]
    mine, theirs = _parts(one), _parts(other)
    if mine is None or theirs is None:
        return [] if one == other else [name]
    if mine.keys() != theirs.keys():
        return [name]
    return [at for k in mine for at in differences(mine[k], theirs[k], f"{name}/{k}")]


def _parts(value: Any) -> dict[Any, Any] | None:
    """What a dict, list or tuple holds, by key or place; None for anything else."""
    if isinstance(value, list | tuple):
        return dict(enumerate(value))
    return value if isinstance(value, dict) else None


def _verified(out: Path, failures: list[str]) -> int:
    """The step of the newest checkpoint that verifies; whatever had to be passed over is noted."""
    try:
        path = newest(out, failures.append)
    except GriffinError as error:
        failures.append(str(error))
        return 0
    return 0 if path is None else int(path.name.partition("-")[2])


def section(figures: Mapping[str, Any]) -> str:
    """The table, and what its words mean, as Markdown."""
    rows = [row for row in figures["rows"] if row["what"] == "kills"]
    table = "\n".join(
        f"| {row['arm']}: {row['about']} | {row['kills']:,} | {row['starting']:,} "
        f"| {row['training']:,} | {row['saving']:,} | {row['resumed']:,} | {row['steps']:,} "
        f"| {'equal' if row['equal'] else 'DIFFERENT'} | {len(row['failures'])} |"
        for row in rows
    )
    listed = "".join(f"\n- {row['arm']}: {text}" for row in rows for text in row["failures"][:20])
    return f"""## Training runs killed at random moments

A tiny run saves in the background after every step. Each of its processes gets SIGKILL after a time
drawn at random, and the next goes on by `--resume auto`. In the end weights, moments, carried state
and the feed's cursor are held, to the bit, against a run that nobody disturbed and that saved once.

| run | kills | while it started or resumed | while it trained | while it saved | went on | steps \
| weights in the end | failures |
|---|---|---|---|---|---|---|---|---|
{table}

- **while it saved**: the folder of an unfinished save was there when the process was dead.
- **went on**: processes that made a step after resuming; all began right after the newest step.
- **failures**: a checkpoint that was there before and is not any more, one that does not verify, a
  process that does not start, an end that differs in any bit.{listed}
"""
