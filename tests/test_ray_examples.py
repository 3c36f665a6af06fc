"""The examples for Ray, on a local Ray of two processors."""

import json
import socket
import time
from pathlib import Path

import httpx
import pytest

import griffin_lm as griffin
from griffin_lm.inference import LanguageModel
from tests.ray_local import LIMIT, ROOT, finished, program, until

pytest.importorskip("ray.serve", reason="needs the extra `ray`")

from tests.server.conftest import KEY, running

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PARTS = [f"On day {day} the wind rose over the old house, and nobody came. " for day in range(12)]
ASK = {"input": "Who was there?", "temperature": 0, "max_tokens": 6}
HEADERS = {"Authorization": f"Bearer {KEY}"}
Told = tuple[int, str]


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    """As the examples load it."""
    return griffin.load("fledgling")


def said(answer: httpx.Response) -> str:
    answer.raise_for_status()
    return answer.json()["choices"][0]["message"]["content"]


def read_and_asked(http: httpx.Client) -> list[Told]:
    """(tokens, answer) after each part that a session was given."""
    http.post("/v1/sessions", json={"id": "log"}).raise_for_status()
    told: list[Told] = []
    for part in PARTS:
        read = http.post("/v1/sessions/log/append", json={"text": part})
        read.raise_for_status()
        answer = http.post("/v1/sessions/log/ask", json=ASK)
        told.append((read.json()["tokens"], said(answer)))
    return told


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_any_replica_goes_on_with_a_session(
    lm: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(lm, api_keys=(KEY,), state_dir=tmp_path / "alone") as alone, alone.http() as http:
        expected = read_and_asked(http)
    monkeypatch.setenv("GRIFFIN_API_KEY", KEY)
    log, port, replicas = tmp_path / "log", free_port(), set[str]()
    words = ("fledgling", tmp_path / "shared", str(port))
    with (
        program(log, ROOT / "examples" / "ray_serve.py", *words) as process,
        httpx.Client(
            base_url=f"http://127.0.0.1:{port}", headers=HEADERS, timeout=LIMIT, trust_env=False
        ) as http,
    ):

        def answering() -> set[str]:
            """The replica that answers next, if one does."""
            try:
                ready = http.get("/ready")
            except httpx.TransportError:
                return set()
            return {ready.headers["x-replica"]} if ready.status_code == 200 else set()

        deadline = time.monotonic() + LIMIT
        while len(replicas) < 2:  # both are there
            replicas |= answering()
            until(deadline, process, log)
        assert read_and_asked(http) == expected
        asked: set[str] = set()
        for _ in range(200):  # the last append was one replica's; the other knows of it too
            answer = http.post("/v1/sessions/log/ask", json=ASK)
            assert said(answer) == expected[-1][1]
            asked.add(answer.headers["x-replica"])
            if asked == replicas:
                break
        assert asked == replicas and len(replicas) == 2
        stranger = http.get("/v1/sessions/log", headers={"Authorization": "Bearer another"})
        assert stranger.status_code == 401


def test_a_file_of_prompts_is_answered(lm: LanguageModel, tmp_path: Path) -> None:
    prompts = ["The wind rose", "She said é", "Once", "Where", "a", "It was the last day"] * 3
    file, answers = tmp_path / "prompts.jsonl", tmp_path / "answers"
    file.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts))
    printed = finished(tmp_path / "log", ROOT / "examples" / "ray_data.py", file, answers)
    assert f"answers in {answers}" in printed
    lines = [line for part in answers.glob("*.json") for line in part.read_text().splitlines()]
    rows = [json.loads(line) for line in lines]
    assert sorted(row["prompt"] for row in rows) == sorted(prompts)
    texts = {prompt: lm.generate(prompt, max_new_tokens=32).text for prompt in set(prompts)}
    assert all(row["text"] == texts[row["prompt"]] for row in rows)
