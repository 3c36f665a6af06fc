"""What only changes how a step is computed does not change where training goes."""

import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from griffin_lm.bench.trajectories import batch_of
from griffin_lm.errors import TrainingError
from griffin_lm.models import PRESETS, Griffin, build
from griffin_lm.training import trainer as module
from griffin_lm.training.batch import Batch
from griffin_lm.training.config import TrainConfig
from griffin_lm.training.trainer import Trainer

STEPS = 6
# of weights of size 0.1 to 1 after STEPS steps of AdamW at 3e-3, in float64; in fp32 a gradient
# that is nearly 0 has a random sign, which AdamW makes as large as any other
CLOSE = {"rtol": 1e-9, "atol": 1e-11}


class Rows:
    """A feed of given batches, one after the other."""

    def __init__(self, batches: list[Batch]) -> None:
        self.batches, self.at = batches, 0
        self.told: list[tuple[Tensor, Tensor]] = []

    def take(self, share: float) -> Batch:
        self.at += 1
        return self.batches[self.at - 1]

    def observe(self, batch: Batch, loss: Tensor, right: Tensor) -> None:
        self.told.append((loss, right))

    def to_dict(self) -> dict[str, Any]:
        return {"at": self.at}

    def restore(self, saved: dict[str, Any]) -> None:
        self.at = saved["at"]


def documents(count: int, seed: int = 0) -> list[Tensor]:
    """Tokens of documents of 3 to 20 tokens, from 12 words so that there is something to learn."""
    random = torch.Generator().manual_seed(seed)
    lengths = torch.randint(3, 21, (count,), generator=random)
    return [torch.randint(12, (int(n),), generator=random) for n in lengths]


def config(**changes: Any) -> TrainConfig:
    given = {"steps": STEPS, "warmup_steps": 1, "compile": False, "bf16": False}
    return TrainConfig(model="tiny-griffin", **(given | {"rate_seconds": 0.0} | changes))


def model(kind: torch.dtype = torch.float64) -> Griffin:
    return build("tiny-griffin", dtype=kind)


def trained(
    out: Path, batches: list[Batch], settings: TrainConfig, kind: torch.dtype = torch.float64
) -> tuple[list[float], Trainer]:
    """The losses of a run, and the run."""
    run = Trainer(model(kind), Rows(batches), settings, out)
    return [run.step().loss for _ in range(STEPS)], run


def assert_same_way(
    one: tuple[list[float], Trainer], other: tuple[list[float], Trainer], **tolerance: float
) -> None:
    tolerance = tolerance or CLOSE
    assert one[0] == pytest.approx(other[0], rel=tolerance["rtol"])
    named = zip(one[1].model.named_parameters(), other[1].model.parameters(), strict=True)
    for (name, a), b in named:
        torch.testing.assert_close(a, b, **tolerance, msg=lambda text, name=name: f"{name}: {text}")


def eights() -> list[Batch]:
    return [batch_of([[d] for d in documents(8, seed)], 20) for seed in range(STEPS)]


def test_a_batch_of_8_goes_where_4_micro_batches_of_2_go(tmp_path: Path):
    """Documents differ in length: a mean of means would not."""
    whole = eights()
    parts = [b.part(slice(i, i + 2), slice(None)) for b in whole for i in range(0, 8, 2)]
    one = trained(tmp_path, whole, config(rows=8))
    four = trained(tmp_path, parts, config(rows=2, accumulate=4))
    assert_same_way(one, four)
    assert one[1].tokens == four[1].tokens == sum(int(b.valid.sum()) for b in whole)


def test_packed_documents_go_where_padded_ones_go(tmp_path: Path):
    """Neither recurrence, conv nor attention crosses a border."""
    each = [documents(8, seed) for seed in range(STEPS)]
    alone = [batch_of([[d] for d in ds], 20) for ds in each]
    packed = [batch_of([ds[:3], ds[3:]], 100) for ds in each]
    assert_same_way(trained(tmp_path, alone, config()), trained(tmp_path, packed, config()))


def test_padding_between_tokens_changes_nothing(tmp_path: Path):
    spread = []
    for batch in eights():
        wide = batch.part(slice(None), slice(None)).tokens.new_zeros(8, 40)
        fields = {}
        for name in ("tokens", "starts", "valid", "targets", "weight"):
            old = getattr(batch, name)
            fields[name] = wide.to(old.dtype).clone()
            fields[name][:, ::2] = old
        spread.append(Batch(**fields))
    assert_same_way(trained(tmp_path, eights(), config()), trained(tmp_path, spread, config()))


@pytest.mark.parametrize("recompute", ("selective", "full"))
def test_what_is_computed_twice_goes_the_same_way(tmp_path: Path, recompute: str):
    on = trained(tmp_path, eights(), config(recompute=recompute))
    assert_same_way(trained(tmp_path, eights(), config()), on)


def test_blocks_computed_twice_keep_less_for_the_way_back(tmp_path: Path):
    def kept(settings: TrainConfig) -> int:
        seen: dict[int, int] = {}

        def note(tensor: Tensor) -> Tensor:
            seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        run = Trainer(model(), Rows(eights()), settings, tmp_path)
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            batch = eights()[0]
            run.model.hidden(batch.tokens, batch.starts, batch.valid)
        return sum(seen.values())

    assert kept(config(recompute="full")) < kept(config()) / 3


def test_the_loss_in_chunks_goes_the_same_way(tmp_path: Path):
    assert_same_way(
        trained(tmp_path, eights(), config(loss_chunk=7)), trained(tmp_path, eights(), config())
    )


def compare_compiled(out: Path, recompute: str) -> None:
    """In a process without the shape checker, which can't be compiled. One layer of each kind."""
    small = PRESETS["tiny-griffin"]
    small = replace(small, layers=2, pattern=small.pattern[1:])
    runs = [
        Trainer(build(small, dtype=torch.float64), Rows(eights()), settings, out)
        for settings in (config(), config(compile=True, recompute=recompute))
    ]
    eager, compiled = (([run.step().loss for _ in range(STEPS)], run) for run in runs)
    assert_same_way(eager, compiled)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("recompute", ("none", "selective", "full"))
def test_compiled_blocks_go_the_same_way(tmp_path: Path, recompute: str):
    """Also where they are computed twice, wholly or in part."""
    code = (
        "from pathlib import Path; from tests.training.test_trajectories import compare_compiled; "
        f"compare_compiled(Path({str(tmp_path)!r}), {recompute!r})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2]
    )
    assert done.returncode == 0, done.stderr


def test_without_a_compiler_a_run_goes_on_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    run = Trainer(model(), Rows(eights()), config(compile=True), tmp_path)
    assert not run.compiled and "needs a C++ compiler" in capsys.readouterr().out
    assert math.isfinite(run.step().loss)


def carried(cut: int) -> list[Batch]:
    """Two endless rows, cut into batches of so many tokens that go on from one to the next."""
    random = torch.Generator().manual_seed(0)
    tokens = torch.randint(12, (2, STEPS * 24 + 1), generator=random)
    starts = torch.rand(2, STEPS * 24, generator=random) < 0.05
    ones = torch.ones(2, cut)
    spans = [slice(at, at + cut) for at in range(0, STEPS * 24, cut)]
    return [
        Batch(tokens[:, s], starts[:, s], ones.bool(), tokens[:, 1:][:, s], ones, None, None, True)
        for s in spans
    ]


def test_segments_of_a_batch_are_batches_that_carry_their_state(tmp_path: Path):
    """Truncated back-propagation: the state goes on at the cuts, gradients do not."""
    batches = trained(tmp_path, carried(8), config(accumulate=3))
    segments = trained(tmp_path, carried(24), config(segment=8))
    assert_same_way(batches, segments)
    whole = trained(tmp_path, carried(24), config())
    assert whole[0][0] == pytest.approx(segments[0][0], rel=1e-9)  # the losses before any update
    assert whole[0][-1] != pytest.approx(segments[0][-1], rel=1e-5)


def test_a_carried_state_is_felt(tmp_path: Path):
    forgets = [batch._replace(carries=False) for batch in carried(24)]
    with_state = trained(tmp_path, carried(24), config())
    without = trained(tmp_path, forgets, config())
    assert with_state[0][0] == without[0][0]
    assert with_state[0][1] != pytest.approx(without[0][1], rel=1e-5)
    assert with_state[1].state is not None and without[1].state is None


def tight(rows: int, hidden: Callable[..., Any]) -> Callable[..., Any]:
    """A model's `hidden` that has no memory for more than so many rows."""

    def refuse(tokens: Tensor, *arguments: Any, **options: Any) -> Any:
        if tokens.shape[0] > rows:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB")
        return hidden(tokens, *arguments, **options)

    return refuse


def test_out_of_memory_halves_the_micro_batch_and_goes_the_same_way(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    run = Trainer(model(), Rows(eights()), config(), tmp_path)
    run.model.hidden = tight(3, run.model.hidden)
    losses = [run.step().loss for _ in range(STEPS)]
    assert_same_way(trained(tmp_path, eights(), config()), (losses, run))
    lines = [line for line in capsys.readouterr().out.splitlines() if "out of memory" in line]
    assert len(lines) == 2 and "4 rows instead of 8" in lines[0] and "2 rows" in lines[1]
    assert run.split == 4 and run.to_dict()["progress"]["split"] == 4


def test_out_of_memory_with_a_carried_state_goes_the_same_way(tmp_path: Path):
    run = Trainer(model(), Rows(carried(24)), config(), tmp_path)
    run.model.hidden = tight(1, run.model.hidden)
    losses = [run.step().loss for _ in range(STEPS)]
    assert_same_way(trained(tmp_path, carried(24), config()), (losses, run))


def test_out_of_memory_going_backward_drops_the_gradients_made_so_far(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The second micro-batch fails once, after the first has left its gradients."""
    calls, losses = [0], module.token_losses

    def fails_once(*arguments: Any) -> Any:
        calls[0] += 1
        if calls[0] == 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 8 bytes")
        return losses(*arguments)

    whole = [batch_of([[d] for d in documents(8, seed)], 20) for seed in range(2 * STEPS)]
    want = trained(tmp_path, whole, config(accumulate=2))
    monkeypatch.setattr(module, "token_losses", fails_once)
    assert_same_way(want, trained(tmp_path, whole, config(accumulate=2)))


def test_out_of_memory_with_one_row_says_what_helps(tmp_path: Path):
    run = Trainer(model(), Rows(eights()), config(), tmp_path)
    run.model.hidden = tight(0, run.model.hidden)
    with pytest.raises(TrainingError, match=r"one row at a time.*recompute=full"):
        run.step()
    assert not run.optimizer.state


def test_other_errors_are_not_taken_for_a_lack_of_memory(tmp_path: Path):
    run = Trainer(model(), Rows(eights()), config(), tmp_path)

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("shapes do not match")

    run.model.hidden = broken
    with pytest.raises(RuntimeError, match="do not match"):
        run.step()


def test_a_feed_is_told_each_tokens_loss_and_whether_it_was_right(tmp_path: Path):
    whole = eights()
    _, run = trained(tmp_path, whole, config())
    assert isinstance(run.feed, Rows) and len(run.feed.told) == STEPS
    for batch, (loss, right) in zip(whole, run.feed.told, strict=True):
        assert loss.shape == right.shape == batch.tokens.shape
        assert torch.equal(loss > 0, batch.weight > 0) and not right[batch.weight == 0].any()


def test_bf16_keeps_weights_moments_and_recurrence_in_fp32(tmp_path: Path):
    losses, run = trained(tmp_path, carried(24), config(bf16=True), torch.float32)
    kinds = {p.dtype for p in run.model.parameters()}
    kinds |= {t.dtype for s in run.optimizer.state.values() for t in s.values()}
    assert kinds == {torch.float32} and run.state is not None
    assert run.state.layers[0].h.dtype == torch.float32
    exact = trained(tmp_path, carried(24), config(), torch.float32)[0]
    assert losses == pytest.approx(exact, rel=0.01) and losses != exact


def test_a_head_learns_tied_or_not(tmp_path: Path):
    """The head's matrix gets its gradient from the loss, and from the embedding where tied."""
    for tied in (True, False):
        other = build(replace(PRESETS["tiny-griffin"], tied=tied))
        run = Trainer(other, Rows(eights() * 3), config(), tmp_path)
        losses = [run.step().loss for _ in range(3 * STEPS)]
        assert losses[-1] < losses[0] - 0.3


def test_gradients_are_clipped_where_their_norm_is_larger(tmp_path: Path):
    """As torch's own clipping does; the figures tell the norm before it."""
    found: list[Tensor] = []
    for clip in (0.0, 0.01):
        run = Trainer(model(), Rows(eights()), config(clip=clip), tmp_path)
        parameters = list(run.model.parameters())
        run.optimizer.register_step_pre_hook(
            lambda *_, ps=parameters: found.append(nn.utils.get_total_norm([p.grad for p in ps]))
        )
        norm = run.step().norm
        assert norm > 1
        assert found[-1].item() == pytest.approx(clip or norm, rel=1e-4)
