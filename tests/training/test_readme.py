"""The README's commands of training, exactly as they stand there, with a kill between them."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from griffin_lm.training.resume import held, newest

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```sh\n(griffin data prepare.*?)^```", re.DOTALL | re.MULTILINE)
PLACES = ("DATA", "RUN", "MODEL")
# of this process only: the tests' own settings are none of the command's business
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src"), "HF_HUB_OFFLINE": "1"}


def commands(folder: Path) -> list[list[str]]:
    """The block's lines as arguments, its folders in `folder`."""
    found = BLOCK.search((ROOT / "README.md").read_text(encoding="utf-8"))
    assert found is not None
    lines = [shlex.split(line, comments=True) for line in found[1].splitlines()]
    assert all(line[0] == "griffin" for line in lines)
    return [
        [sys.executable, "-m", "griffin_lm.cli.main"]
        + [str(folder / word) if word in PLACES else word for word in line[1:]]
        for line in lines
    ]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(shutil.which("g++") is None, reason="compiled steps; eager ones take longer")
def test_the_readme_s_training_survives_a_kill_and_gives_a_model(tmp_path: Path) -> None:
    prepare, train, go_on, generate, convert = commands(tmp_path)

    def done(command: list[str]) -> str:
        result = subprocess.run(
            command, cwd=ROOT, env=os.environ | ENVIRONMENT, capture_output=True, text=True
        )
        assert result.returncode == 0, result.stderr
        return result.stdout

    assert "1 documents" in done(prepare)
    run = tmp_path / "RUN"
    with (tmp_path / "said").open("w") as said:
        process = subprocess.Popen(train, cwd=ROOT, env=os.environ | ENVIRONMENT, stdout=said)
        while not (run / "latest").exists() and process.poll() is None:
            time.sleep(0.1)
        time.sleep(0.3)  # somewhere in the next step, or in its save
        process.kill()
        assert process.wait() == -9
    reached = max(int(path.name.partition("-")[2]) for path in held(run))
    said_then = done(go_on)
    assert re.search(rf"going on from step ({reached - 1}|{reached})\n", said_then)
    end = newest(run)
    assert end is not None and int(end.name.partition("-")[2]) == 7  # 16,384 tokens each
    assert len(done(generate).strip()) > 20
    assert "read back and compared: the same bits" in done(convert)
    again = [str(tmp_path / "MODEL") if word == str(run) else word for word in generate]
    assert len(done(again).strip()) > 20
