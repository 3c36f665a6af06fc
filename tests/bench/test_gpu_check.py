"""`make gpu-check` where there is no GPU, and the parts of it that need none."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from griffin_lm.bench.gpu import headline, transformers_peer, whole_model
from griffin_lm.bench.gpu import run as gpu_run
from griffin_lm.bench.gpu.kernel_checks import Outcome, poisoned
from griffin_lm.bench.gpu.limits import Limits
from griffin_lm.bench.gpu.run import Clock, checked, guarded, line

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this is about a machine without a GPU")
def test_without_a_gpu_it_says_so_writes_a_report_and_fails(tmp_path):
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "gpu_check.py")],
        env=os.environ | {"OUT": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1 and not done.stdout
    assert done.stderr.startswith("gpu-check: torch sees no CUDA device")
    report = json.loads((tmp_path / "gpu-check.json").read_text())
    assert report["checks"] == report["rows"] == []
    assert "no CUDA device" in report["failure"]


BARE = """
import importlib, pkgutil, runpy, sys, time

class Absent:  # what torch, Triton and transformers don't bring along
    names = set(sys.argv[2:])

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name in Absent.names else find(name, *rest)
runpy.run_path(sys.argv[1])
import torch
import griffin_lm.bench.gpu as folder
for module in pkgutil.iter_modules(folder.__path__):
    importlib.import_module(f"{folder.__name__}.{module.name}")
from griffin_lm.bench.gpu import headline, limits, whole_model
def once(run, **options):
    run()
    return 1.0
whole_model.seconds = headline.seconds = once
limit, left = limits.Limits(1e10, 1e11), lambda: 1.0
model = whole_model.random_model("tiny-griffin", "cpu")
rows = list(whole_model.decode_rows(model, limit, left, (1,)))
rows += [whole_model.prefill_row(model, limit, 20), whole_model.train_row(model, limit, length=20)]
rows += headline.rows(model, "tiny", left, (10,), prompt=20, free=10_000_000)
rows += whole_model.rounded_rows("int8", limit, left, "tiny-griffin", "cpu")
assert not [name for name in sys.modules if name.partition(".")[0] in Absent.names - {"jaxtyping"}]
print(len(rows), "rows")
"""
# every dependency of ours, and of our extras, that a bare environment for the check may lack
LACKING = ("jaxtyping", "sentencepiece", "psutil", "typer", "rich", "pydantic", "peft", "fastapi")


def test_it_needs_nothing_beside_torch_and_triton_and_no_installation(tmp_path):
    without = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", BARE, str(ROOT / "tests" / "gpu_check.py"), *LACKING],
        env=without | {"OUT": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == "9 rows\n"


def test_a_check_passes_up_to_what_is_allowed_and_nan_never_does():
    assert Outcome("c", "s", 1.0, 1.0).passed
    assert not Outcome("c", "s", 1.1, 1.0).passed
    assert not Outcome("c", "s", float("nan"), 1.0).passed
    (row,) = checked([Outcome("c", "s", 2.0, 1.0)])
    assert row["passed"] is False and row["error"] == 2.0


def test_an_error_in_a_table_leaves_a_row_and_what_came_before_it():
    def rows():
        yield {"what": "one"}
        raise ValueError("no memory")

    found = list(guarded("two", rows, Clock(60.0)))
    assert found == [{"what": "one"}, {"what": "two", "failure": "ValueError: no memory"}]


def test_what_the_time_does_not_allow_for_is_left_out_by_name():
    (row,) = guarded("decode", lambda: [{"what": "decode"}], Clock(-1.0))
    assert row == {"what": "decode", "failure": "left out: the time was up"}


def test_a_failed_check_makes_the_exit_code(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("OUT", str(tmp_path))
    outcomes = [Outcome("a", "s", 0.0, 1.0), Outcome("b", "s", 3.0, 1.0)]
    monkeypatch.setattr(gpu_run.quantized_checks, "quantized_checks", lambda *_: iter(()))
    monkeypatch.setattr(gpu_run.kernel_checks, "kernel_checks", lambda *_: iter(outcomes))
    assert gpu_run.run("tiny", "cpu") == 1
    assert "1 of 2 checks passed" in capsys.readouterr().out
    monkeypatch.setattr(gpu_run.kernel_checks, "kernel_checks", lambda *_: iter(outcomes[:1]))
    assert gpu_run.run("tiny", "cpu") == 0


def test_a_row_reads_as_a_line():
    text = line({"what": "decode", "who": "griffin", "tokens_per_s": 1234.5678, "failure": ""})
    assert text.split() == ["decode", "griffin", "tokens_per_s", "1235"]


def test_new_memory_is_nan_within_and_as_before_after():
    torch.utils.deterministic.fill_uninitialized_memory = False
    before = torch.are_deterministic_algorithms_enabled()
    with poisoned():
        assert torch.empty(3).isnan().all()
    assert torch.utils.deterministic.fill_uninitialized_memory is False
    assert torch.are_deterministic_algorithms_enabled() == before
    torch.utils.deterministic.fill_uninitialized_memory = True


@pytest.fixture
def by_the_clock_on_the_wall(monkeypatch):
    """Runs twice, as the device's clock would have it run at least."""

    def seconds(run, **_):
        begin = time.perf_counter()
        run(), run()
        return time.perf_counter() - begin

    monkeypatch.setattr(whole_model, "seconds", seconds)
    monkeypatch.setattr(headline, "seconds", seconds)
    monkeypatch.setattr(transformers_peer, "seconds", seconds)


def test_the_whole_models_tables_at_a_tiny_size(by_the_clock_on_the_wall):
    model = whole_model.random_model("tiny-griffin", "cpu")
    limit = Limits(bytes_per_s=1e10, flops=1e11)
    rows = [
        *whole_model.decode_rows(model, limit, lambda: 1.0, batches=(1, 3)),
        whole_model.prefill_row(model, limit, length=20),
        *(whole_model.train_row(model, limit, kind, length=20) for kind in ("selective", "none")),
    ]
    assert [row["what"] for row in rows] == [*["decode"] * 4, "prefill", *["training step"] * 2]
    assert "forward" not in vars(model.blocks[0]), "the blocks are not as they were"
    assert [row["context"] for row in rows[:4]] == [2048, 1_000_000] * 2
    assert all(row["tokens_per_s"] > 0 and row["fraction_of_limit"] > 0 for row in rows)
    short = whole_model.decode_rows(model, limit, lambda: -1.0, batches=(1, 3))
    assert [row["batch"] for row in short] == [1, 1], "no time is left for the second batch size"


def test_a_cache_and_weights_of_few_bits_have_rows_of_their_own(by_the_clock_on_the_wall):
    model, limit = whole_model.random_model("tiny-griffin", "cpu"), Limits(1e10, 1e11)
    model.cache = "int8"
    (plain, *_) = whole_model.decode_rows(model, limit, lambda: -1.0, batches=(1,))
    assert (plain["weights"], plain["cache"]) == ("bf16", "int8")
    for kind in ("int8", "int4"):
        found = list(whole_model.rounded_rows(kind, limit, lambda: 1.0, "tiny-griffin", "cpu"))
        assert [row["batch"] for row in found] == [1, 1, 4, 4]
        assert all(row["weights"] == kind for row in found)
        assert found[0]["bytes_per_token"] < plain["bytes_per_token"]


def test_the_headline_takes_the_largest_batch_that_fits(by_the_clock_on_the_wall):
    model = whole_model.random_model("tiny-griffin", "cpu")
    one = headline.read_state(model, 1, 40).nbytes
    free = int(5 * (2 * one + 16 * model.config.vocab) / headline.SHARE) + 9
    found = list(headline.rows(model, "tiny", lambda: 1.0, (10, 30), prompt=20, free=free))
    assert [(row["batch"], row["sampled"]) for row in found] == [(4, 10), (4, 30)]
    assert all(row["tokens_per_s"] > 0 for row in found)
    (none,) = headline.rows(model, "tiny", lambda: 1.0, (10,), free=10)
    assert none["failure"] == "no row fits into memory"
    assert not list(headline.rows(model, "tiny", lambda: -1.0, (10,), free=10))


def test_the_headline_is_taken_at_all_powers_of_two_both_ends_and_the_middle_first():
    assert sorted(headline.LENGTHS) == [2**n for n in range(10, 16)]
    assert set(headline.LENGTHS[:3]) == {1024, 8192, 32_768}


def test_the_headline_of_a_model_whose_cache_grows(by_the_clock_on_the_wall):
    model = whole_model.random_model("tiny-mqa", "cpu")
    found = list(headline.rows(model, "tiny", lambda: 1.0, (10, 300), prompt=20, free=2_000_000))
    assert found[0]["batch"] > found[1]["batch"] > 0
    assert all(row["tokens_per_s"] > 0 for row in found)


def test_the_table_of_transformers_at_a_tiny_size(by_the_clock_on_the_wall):
    transformers = pytest.importorskip("transformers", reason="the peer is not installed")
    config = transformers.RecurrentGemmaConfig(
        vocab_size=50, hidden_size=16, intermediate_size=48, num_hidden_layers=3, lru_width=16,
        num_attention_heads=2, num_key_value_heads=1, attention_window_size=8,
        pad_token_id=0, eos_token_id=1, bos_token_id=2,
    )  # fmt: skip
    rows = list(transformers_peer.rows(config, length=20, device="cpu"))
    assert [row["what"] for row in rows] == ["decode", "prefill", "training step"]
    assert all(row["who"] == "transformers, eager" for row in rows)
