"""/v1/sessions: read into, asked, forked, brought back, taken elsewhere."""

import json
from pathlib import Path

import httpx
import pytest

from griffin_lm.inference import GenerateOptions, LanguageModel, ask, read_text
from griffin_lm.models import State
from griffin_lm.text import Turn, encode_turns
from tests.server.conftest import OTHER, Live

TEXT = "The wind rose over the old house. Nobody was there to hear it. "
NOTE = "The name is Emma, the place is Bath, the number is 47."
ASK = {"input": "Who was there?", "temperature": 0, "max_tokens": 3}


@pytest.fixture
def http(live: Live):
    with live.http() as http:
        for session in http.get("/v1/sessions").json()["data"]:
            http.delete(f"/v1/sessions/{session['id']}").raise_for_status()
        yield http


def said(answer: httpx.Response) -> str:
    answer.raise_for_status()
    return answer.json()["choices"][0]["message"]["content"]


def test_a_session_is_read_into_and_asked_without_being_changed(
    http: httpx.Client, fledgling: LanguageModel, tmp_path: Path
) -> None:
    (tmp_path / "text").write_text(TEXT)
    state = read_text(fledgling, tmp_path / "text", raw=True).state
    assert state is not None
    stream = ask(fledgling, ASK["input"], state, GenerateOptions(max_new_tokens=3))
    expected = "".join(stream)
    assert http.post("/v1/sessions", json={"id": "book"}).status_code == 201
    plain = {"content-type": "text/plain"}
    session = http.post("/v1/sessions/book/append", content=TEXT.encode(), headers=plain).json()
    assert session["tokens"] == int(state.tokens)
    for _ in range(2):
        answer = http.post("/v1/sessions/book/ask", json=ASK)
        assert said(answer) == expected
        assert answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"] == session["tokens"]
    assert http.get("/v1/sessions/book").json() == session
    streamed = http.post("/v1/sessions/book/ask", json=ASK | {"stream": True}).text
    assert streamed.endswith("data: [DONE]\n\n") and streamed.count("data: ") > 3


def test_a_reading_is_told_part_by_part(http: httpx.Client) -> None:
    for name in ("told", "silent"):
        http.post("/v1/sessions", json={"id": name})
    text, plain = (TEXT * 60).encode(), {"content-type": "text/plain"}
    told = http.post("/v1/sessions/told/append?stream=true", content=text, headers=plain)
    *lines, done = told.text.removesuffix("\n\n").split("\n\n")
    *parts, session = [json.loads(line.removeprefix("data: ")) for line in lines]
    assert done == "data: [DONE]"
    silent = http.post("/v1/sessions/silent/append", content=text, headers=plain).json()
    same = {"id": None, "created_at": None}
    assert session | same == silent | same
    assert said(http.post("/v1/sessions/told/ask", json=ASK)) == said(
        http.post("/v1/sessions/silent/ask", json=ASK)
    )
    tokens = [part["tokens"] for part in parts]
    assert len(tokens) > 2 and tokens == sorted(set(tokens))
    assert tokens[-1] <= session["tokens"] and len({part["bytes"] for part in parts}) == 1
    assert all(part["growing_cache_bytes"] % part["tokens"] == 0 for part in parts)
    wrong = http.post("/v1/sessions/told/append?stream=true", content=b"\xff", headers=plain)
    assert "not UTF-8" in wrong.text


def test_a_note_is_planted_and_known(http: httpx.Client, fledgling: LanguageModel) -> None:
    http.post("/v1/sessions", json={"id": "s"})
    note = {"text": f" {NOTE}\n", "note": True}
    first = http.post("/v1/sessions/s/append", json=note).json()
    template = fledgling.tokenizer.turn
    assert template is not None and not first["in_turn"]
    turns = [Turn(role="note", text=NOTE)]
    ids = encode_turns(fledgling.tokenizer, template, turns, open_model=False)
    assert first["tokens"] == len(ids)
    http.post("/v1/sessions/s/append", json={"text": TEXT})
    place = ASK | {"input": "What is the place?"}
    assert said(http.post("/v1/sessions/s/ask", json=place)).strip() == "Bath"
    for text in ("", " \n"):
        empty = http.post("/v1/sessions/s/append", json={"text": text, "note": True})
        assert empty.status_code == 400


def test_it_forks_and_comes_back(http: httpx.Client) -> None:
    http.post("/v1/sessions", json={"id": "s"})
    first = http.post("/v1/sessions/s/append", json={"text": TEXT}).json()
    before = said(http.post("/v1/sessions/s/ask", json=ASK))
    assert http.post("/v1/sessions/s/fork", json={"id": "t"}).json()["tokens"] == first["tokens"]
    http.post("/v1/sessions/s/append", json={"text": " And the end."})
    assert said(http.post("/v1/sessions/t/ask", json=ASK)) == before
    wrong = http.post("/v1/sessions/s/rewind", json={"tokens": first["tokens"] - 1})
    assert wrong.status_code == 400 and str(first["tokens"]) in wrong.json()["error"]["message"]
    back = http.post("/v1/sessions/s/rewind", json={"tokens": first["tokens"]}).json()
    assert back["tokens"] == first["tokens"]
    assert said(http.post("/v1/sessions/s/ask", json=ASK)) == before


def test_it_goes_out_and_in_as_a_file(
    http: httpx.Client, live: Live, fledgling: LanguageModel, tmp_path: Path
) -> None:
    http.post("/v1/sessions", json={"id": "s"})
    http.post("/v1/sessions/s/append", json={"text": TEXT})
    data = http.get("/v1/sessions/s/state").content
    (tmp_path / "s.state").write_bytes(data)
    assert State.load(tmp_path / "s.state", fledgling).batch_size == 1
    with live.http(OTHER) as other:
        assert other.get("/v1/sessions/s").status_code == 404
        assert other.put("/v1/sessions/mine/state", content=data).status_code == 201
        assert said(other.post("/v1/sessions/mine/ask", json=ASK)) == said(
            http.post("/v1/sessions/s/ask", json=ASK)
        )
        other.delete("/v1/sessions/mine").raise_for_status()
    for content in (b"", b"nonsense", data[:-5]):
        assert http.put("/v1/sessions/u/state", content=content).status_code == 400
    assert http.put("/v1/sessions/u/state", content=bytes(10**7)).status_code == 413
    assert http.get("/v1/sessions/u").status_code == 404


def test_what_is_not_there_or_there_already_is_said(http: httpx.Client) -> None:
    assert http.post("/v1/sessions/none/ask", json=ASK).status_code == 404
    assert http.post("/v1/sessions/none/append", json={"text": "x"}).status_code == 404
    http.post("/v1/sessions", json={"id": "s"})
    assert http.post("/v1/sessions", json={"id": "s"}).status_code == 409
    for content in (b"\xff\xfe", b""):
        plain = {"content-type": "text/plain"}
        wrong = http.post("/v1/sessions/s/append", content=content, headers=plain)
        assert wrong.status_code == 400


@pytest.mark.parametrize("name", ["..", "%2e%2e", "..%2f..%2fetc", "a%00b", "%2fetc%2fpasswd", "-"])
def test_a_name_leads_nowhere_else(http: httpx.Client, name: str) -> None:
    for method, rest in (("GET", ""), ("GET", "/state"), ("PUT", "/state"), ("DELETE", "")):
        answer = http.request(method, f"/v1/sessions/{name}{rest}")
        assert answer.status_code in (400, 404, 405), (method, rest, answer.status_code)
    assert http.post("/v1/sessions", json={"id": "../x"}).status_code == 400


def test_a_session_outlives_the_server(another, fledgling: LanguageModel) -> None:
    with another() as first, first.http(None) as http:
        http.post("/v1/sessions", json={"id": "s"})
        http.post("/v1/sessions/s/append", json={"text": TEXT})
        before = said(http.post("/v1/sessions/s/ask", json=ASK))
    with another() as second, second.http(None) as http:
        assert said(http.post("/v1/sessions/s/ask", json=ASK)) == before
