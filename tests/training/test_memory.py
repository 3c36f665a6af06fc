"""Memory that a step frees is there, touched, for the next one."""

import subprocess
import sys

import pytest

CODE = """
import resource, torch
from griffin_lm.training.memory import keep_freed_memory
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
