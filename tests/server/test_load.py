"""Slow: the command itself, killed and stopped; clients that come, go and send nonsense."""

import signal
import subprocess
import sys
import threading

import httpx
import pytest

from griffin_lm.bench.reliability import crowds
from griffin_lm.bench.reliability.clients import HABITS
from griffin_lm.bench.reliability.restarts import restarts
from griffin_lm.bench.serving.process import serving
from griffin_lm.inference import LanguageModel

pytestmark = pytest.mark.slow


def test_it_does_not_let_other_machines_in_without_a_key() -> None:
    line = [sys.executable, "-m", "griffin_lm.cli.main", "serve", "fledgling", "--host", "0.0.0.0"]
    run = subprocess.run(line, capture_output=True, text=True, timeout=120)
    assert run.returncode == 1
    assert "no key" in run.stderr and "Traceback" not in run.stderr


def test_told_to_stop_it_finishes_what_is_under_way(fledgling: LanguageModel) -> None:
    body = {"prompt": "The wind", "max_tokens": 600, "temperature": 0}
    answers: list[httpx.Response] = []
    with serving(("--drain", "60", "--dtype", "float32")) as server:
        asking = threading.Thread(
            target=lambda: answers.append(
                httpx.post(f"{server.url}/v1/completions", json=body, timeout=120, trust_env=False)
            )
        )
        asking.start()
        while server.figures()["griffin_running"] != 1:
            assert asking.is_alive()
        server.run.send_signal(signal.SIGTERM)
        asking.join(120)
        assert server.run.wait(60) == 0
    expected = fledgling.generate("The wind", max_new_tokens=600).text
    assert answers[0].json()["choices"][0]["text"] == expected


def test_killed_and_stopped_under_load_every_session_stands_where_it_was_said_to() -> None:
    found = restarts(4, seed=1, progress=lambda *_: None)
    assert not found.failures
    assert (found.kills, found.stops) == (2, 2) and found.appended > 0
    assert found.compared == 5 * found.sessions


def test_a_crowd_that_comes_and_goes_changes_no_answer_and_keeps_no_slot() -> None:
    found = crowds.crowd(50, 60.0, seed=3, progress=lambda *_: None)
    assert not found.failures
    assert found.compared >= 50 and found.done.keys() == HABITS.keys()
    assert found.memory["most"] > 0


def test_many_streams_at_once_get_what_each_gets_alone() -> None:
    found = crowds.streams(200, seed=4, progress=lambda *_: None)
    assert not found.failures and found.compared == 200


def test_whatever_the_schema_allows_is_answered(another) -> None:
    """Bodies made by schemathesis from /openapi.json: no 500, and errors in OpenAI's form."""
    import schemathesis
    from hypothesis import HealthCheck, given, settings

    with another(max_tokens=3, max_sessions=2) as live:
        schema = schemathesis.openapi.from_url(f"{live.url}/openapi.json")
        for result in schema.get_all_operations():
            operation = result.ok()
            assert operation is not None

            @given(case=operation.as_strategy())
            @settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
            def answered(case) -> None:
                answer = case.call(timeout=60)
                assert answer.status_code < 500, (case.path, answer.status_code, answer.text)
                if answer.status_code >= 400 and case.path.startswith("/v1") and answer.text:
                    assert answer.json()["error"]["message"]

            answered()
