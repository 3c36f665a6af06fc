"""Slow: two servers, each a process, with one --state-dir; a session has one writer at a time."""

import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from griffin_lm.bench.reliability import alone
from griffin_lm.bench.serving.process import Process, serving
from griffin_lm.inference import GenerateOptions, ask, read_tokens

pytestmark = pytest.mark.slow
TEXTS = ("The wind rose over the old house. ", "A letter lay on the stairs, and nobody came. ")
PLAIN = {"content-type": "text/plain"}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Process, Process]]:
    options = (*alone.OPTIONS, "--state-dir", str(tmp_path_factory.mktemp("states")))
    with serving(options) as one, serving(options) as other:
        yield one, other


def client(server: Process) -> httpx.Client:
    return httpx.Client(base_url=server.url, timeout=300, trust_env=False)


def append(http: httpx.Client, name: str, text: str) -> httpx.Response:
    return http.post(f"/v1/sessions/{name}/append", json={"text": text, "raw": True})


def answer(http: httpx.Client, name: str) -> str:
    said = http.post(f"/v1/sessions/{name}/ask", json=alone.question()).raise_for_status()
    return said.json()["choices"][0]["message"]["content"]


def test_what_one_began_the_other_goes_on_with(pair: tuple[Process, Process]) -> None:
    with client(pair[0]) as one, client(pair[1]) as other:
        assert one.post("/v1/sessions", json={"id": "turns"}).status_code == 201
        assert other.post("/v1/sessions", json={"id": "turns"}).status_code == 409
        for number in range(6):
            here, there = (one, other) if number % 2 else (other, one)
            text = alone.piece(number)["text"]
            assert append(here, "turns", text).json()["tokens"] == alone.session(number + 1).tokens
            assert answer(there, "turns") == alone.session(number + 1).answer
        marks = one.get("/v1/sessions/turns").json()["marks"]
        assert other.post("/v1/sessions/turns/rewind", json={"tokens": marks[-1]}).is_success
        assert answer(one, "turns") == alone.session(5).answer
        assert other.delete("/v1/sessions/turns").is_success
        assert one.get("/v1/sessions/turns").status_code == 404


def test_what_both_append_at_once_is_there_in_some_order(pair: tuple[Process, Process]) -> None:
    with client(pair[0]) as http:
        http.post("/v1/sessions", json={"id": "both"}).raise_for_status()
        first = append(http, "both", "Once upon a time. ").json()["tokens"]
    kept: list[tuple[int, str]] = []
    wrong: list[httpx.Response] = []

    def write(server: Process, text: str) -> None:
        with client(server) as http:
            for _ in range(8):
                said = append(http, "both", text)
                while said.status_code == 409:  # the other was at it for too long
                    said = append(http, "both", text)
                if said.status_code == 200:
                    kept.append((said.json()["tokens"], text))
                else:
                    wrong.append(said)

    writers = [
        threading.Thread(target=write, args=(server, text))
        for server, text in zip(pair * 2, TEXTS * 2, strict=True)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert not wrong and len(kept) == 32
    # each was kept on top of all before it, so the numbers of tokens tell the order
    tokenizer, tokens = alone.model().tokenizer, first
    ids = alone.model().encode("Once upon a time. ")
    for told, text in sorted(kept):
        more = tokenizer.encode(text, bos=False, continues=True)
        tokens, ids = tokens + len(more), [*ids, *more]
        assert told == tokens
    state = read_tokens(alone.model().model, ids, None)
    options = GenerateOptions(max_new_tokens=4)
    expected = "".join(ask(alone.model(), alone.QUESTION, state, options, in_turn=False))
    for server in pair:
        with client(server) as http:
            assert http.get("/v1/sessions/both").json()["tokens"] == tokens
            assert answer(http, "both") == expected


def test_a_killed_process_leaves_its_lease_to_the_other(tmp_path: Path) -> None:
    options = (*alone.OPTIONS, "--state-dir", str(tmp_path))
    text = (TEXTS[0] * 400_000).encode()  # more than is read while the test looks
    with serving(options) as one, serving(options) as other, client(other) as http:
        http.post("/v1/sessions", json={"id": "s"}).raise_for_status()
        append(http, "s", alone.piece(0)["text"]).raise_for_status()
        with client(one) as reading:
            path = "/v1/sessions/s/append?raw=true&stream=true"
            with (
                pytest.raises(httpx.TransportError),
                reading.stream("POST", path, content=text, headers=PLAIN) as events,
            ):
                lines = events.iter_lines()
                assert '"session.progress"' in next(lines)
                said = append(http, "s", alone.piece(1)["text"])
                assert said.status_code == 409 and "someone else" in said.text
                assert answer(http, "s") == alone.session(1).answer, "reading needs no lease"
                one.kill()
                for _ in lines:
                    pass
        said = append(http, "s", alone.piece(1)["text"])
        assert said.json()["tokens"] == alone.session(2).tokens, said.text
        assert answer(http, "s") == alone.session(2).answer
