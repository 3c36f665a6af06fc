"""What the allocator does with freed memory: keeps it for the next step, or gives it back."""

import subprocess
import sys

import pytest

CODE = """
import resource, torch
from griffin_lm.allocator import keep_freed_memory
if {keep}:
    print(keep_freed_memory())
def step():
    # above 32 MiB glibc asks the system for each block, whatever was freed before
    tensors = [torch.ones(10_000_000) for _ in range(3)]
    del tensors
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(6):
    step()
before = step()
print(step() - before)
"""


def faults(keep: bool) -> list[str]:
    code = CODE.format(keep=keep)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="only glibc can be told to keep memory"
)
def test_a_later_step_meets_memory_that_is_there_already():
    told, kept = faults(True)
    if told != "True":
        pytest.skip("the C library is not glibc, and nothing else can be told to keep memory")
    (given_back,) = faults(False)
    assert int(given_back) >= 50  # 120 MB, in pages of 2 MiB at the most
    assert int(kept) < int(given_back) // 10


BETWEEN = """
import torch
from griffin_lm.allocator import give_back_freed_memory
from griffin_lm.bench.cpu.reading import anonymous
torch.empty(5_000_000).fill_(1)  # from here on glibc takes blocks of 20 MB from its heap
if {told}:
    print(give_back_freed_memory())
blocks = [torch.ones(2_000_000) for _ in range(20)]
del blocks[:-1]  # the last one lies above the others
print(anonymous() // 2**20)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only glibc can be told so")
def test_blocks_freed_below_one_in_use_are_given_back():
    def left(told: bool) -> list[str]:
        code = [sys.executable, "-c", BETWEEN.format(told=told)]
        return subprocess.run(code, capture_output=True, text=True, check=True).stdout.split()

    said, *given = left(True)
    if said != "True":
        pytest.skip("the C library is not glibc, and nothing else can be told to give memory back")
    (kept,) = left(False)
    assert int(given[0]) < int(kept) - 100  # of 19 blocks of 8 MB
