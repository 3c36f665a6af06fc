"""torch.compile gives what eager gives, in one graph. In a process of its own: the shape checks of
these tests are Python in every function, which no compiler should have to see."""

import os
import subprocess
import sys

import pytest

CODE = """
import sys, torch, griffin_lm as g
m = g.build(sys.argv[1], seed=3)
t = torch.randint(0, 96, (2, 21))
valid, starts = torch.rand(2, 21) < .8, torch.rand(2, 21) < .1
fast = torch.compile(m, fullgraph=True, backend="aot_eager")
state = m.empty_state(2)
exact, after = m(t, starts, valid, state)
mine, other = fast(t, starts, valid, state)
second = fast(t, starts, valid, other)[0]
torch.testing.assert_close(second, m(t, starts, valid, after)[0], rtol=0, atol=1e-5)
torch.testing.assert_close(mine, exact, rtol=0, atol=1e-5)
for a, b in zip(after.compact().layers, other.compact().layers):
    for x, y in zip(a, b):
        torch.testing.assert_close(x, y, rtol=0, atol=1e-5)
def gradients(out):
    m.zero_grad()
    out.square().sum().backward()
    return [p.grad.clone() for p in m.parameters()]
for a, b in zip(gradients(mine), gradients(exact)):
    assert (a - b).abs().max() <= 2e-5 * b.abs().max(), "both round in fp32, each in its own order"
print("same")
"""


@pytest.mark.slow
@pytest.mark.parametrize("preset", ("tiny-griffin", "tiny-llama"))
@pytest.mark.timeout(280)
def test_the_compiled_model_equals_the_eager_one_in_a_single_graph(preset):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", CODE, preset], capture_output=True, text=True, env=environment
    )
    assert done.stdout.strip() == "same", done.stderr[-3000:]
