"""Slow: the command itself, killed and stopped; clients that come, go and send nonsense."""

import asyncio
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from griffin_lm.inference import LanguageModel
from tests.server.conftest import Live

pytestmark = pytest.mark.slow


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def command(*options: str) -> Iterator[tuple[subprocess.Popen, str]]:
    port = free_port()
    line = [sys.executable, "-m", "griffin_lm.cli.main", "serve", "fledgling", "--port", str(port)]
    run = subprocess.Popen([*line, *options], stderr=subprocess.PIPE, text=True)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            assert run.poll() is None, run.stderr and run.stderr.read()
            try:
                if httpx.get(f"{url}/ready", trust_env=False).status_code == 200:
                    break
            except httpx.TransportError:
                time.sleep(0.1)
        yield run, url
    finally:
        run.kill()
        run.wait()
        assert run.stderr is not None
        run.stderr.close()


def test_it_does_not_let_other_machines_in_without_a_key() -> None:
    line = [sys.executable, "-m", "griffin_lm.cli.main", "serve", "fledgling", "--host", "0.0.0.0"]
    run = subprocess.run(line, capture_output=True, text=True, timeout=120)
    assert run.returncode == 1
    assert "no key" in run.stderr and "Traceback" not in run.stderr


def test_told_to_stop_it_finishes_what_is_under_way(fledgling: LanguageModel) -> None:
    body = {"prompt": "The wind", "max_tokens": 150, "temperature": 0}
    answers: list[httpx.Response] = []
    with command("--drain", "60", "--dtype", "float32") as (run, url):
        asking = threading.Thread(
            target=lambda: answers.append(
                httpx.post(f"{url}/v1/completions", json=body, timeout=120, trust_env=False)
            )
        )
        asking.start()
        while "griffin_running 1.0" not in httpx.get(f"{url}/metrics", trust_env=False).text:
            assert asking.is_alive()
        run.send_signal(signal.SIGTERM)
        asking.join(120)
        assert run.wait(60) == 0
    expected = fledgling.generate("The wind", max_new_tokens=150).text
    assert answers[0].json()["choices"][0]["text"] == expected


def test_killed_under_load_every_session_stands_where_it_was_said_to(tmp_path: Path) -> None:
    names = [f"s{i}" for i in range(4)]
    sure: dict[str, int] = {}

    def append(url: str, name: str) -> None:
        with httpx.Client(base_url=url, timeout=60, trust_env=False) as http:
            try:
                http.post("/v1/sessions", json={"id": name})
                sure[name] = 0
                while True:
                    text = {"text": "The wind rose over the old house. "}
                    done = http.post(f"/v1/sessions/{name}/append", json=text).json()["tokens"]
                    sure[name] = done
            except httpx.TransportError:
                return

    with command("--state-dir", str(tmp_path)) as (run, url):
        threads = [threading.Thread(target=append, args=(url, name)) for name in names]
        for thread in threads:
            thread.start()
        time.sleep(6)
        run.kill()
        for thread in threads:
            thread.join()
    with (
        command("--state-dir", str(tmp_path)) as (_, url),
        httpx.Client(base_url=url, timeout=60, trust_env=False) as http,
    ):
        for name in sure:
            info = http.get(f"/v1/sessions/{name}").json()
            assert info["tokens"] >= sure[name] > 0  # said, or one more that was not
            ask = {"input": "Who?", "max_tokens": 2}
            assert http.post(f"/v1/sessions/{name}/ask", json=ask).status_code == 200
            more = http.post(f"/v1/sessions/{name}/append", json={"text": "x"}).json()
            assert more["tokens"] > info["tokens"]


def test_clients_that_come_and_go_change_no_answer_and_keep_no_slot(
    another, fledgling: LanguageModel
) -> None:
    prompts = ["The wind", "She said", "Once upon", "a", "It was late and", "Where is the key?"]
    expected = {
        prompt: fledgling.generate(prompt, max_new_tokens=10, temperature=0.8, seed=5).text
        for prompt in prompts
    }
    rng, wrong, right, refused = random.Random(3), [], [], []

    async def one(http: httpx.AsyncClient) -> None:
        prompt = rng.choice(prompts)
        body = {"prompt": prompt, "max_tokens": 10, "temperature": 0.8, "seed": 5}
        kind = rng.random()
        if kind < 0.15:
            await http.post("/v1/completions", content=b"{" * rng.randrange(1, 99))
        elif kind < 0.4:
            with suppress(httpx.TimeoutException):  # it leaves on purpose, after 20 ms
                await http.post("/v1/completions", json=body | {"stream": True}, timeout=0.02)
        else:
            answer = await http.post("/v1/completions", json=body)
            if answer.status_code == 429:
                refused.append(answer)
            else:
                text = answer.json()["choices"][0]["text"]
                (right if text == expected[prompt] else wrong).append((prompt, text))

    async def crowd(live: Live) -> None:
        limits = httpx.Limits(max_connections=30)
        async with httpx.AsyncClient(
            base_url=live.url, timeout=120, trust_env=False, limits=limits
        ) as http:
            until = time.monotonic() + 20
            while time.monotonic() < until:
                await asyncio.gather(*(one(http) for _ in range(30)))

    with another(max_sessions=6, max_queue=20, cache_bytes=1 << 20) as live:
        asyncio.run(crowd(live))
        until = time.monotonic() + 30
        while live.service.engine.busy and time.monotonic() < until:
            time.sleep(0.05)
        assert not live.service.engine.busy and live.service.engine.running == 0
    assert not wrong and len(right) > 20


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
