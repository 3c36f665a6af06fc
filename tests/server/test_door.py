"""Who may come in, what is refused, and that nobody who leaves keeps a place."""

import time

import httpx
import pytest

from griffin_lm.errors import ConfigError
from griffin_lm.inference.engine import Request, RowOptions
from griffin_lm.server.settings import Settings, read_keys
from tests.server.conftest import KEY, Live

OPEN = {"/health", "/ready"}


def routes(live: Live) -> list[tuple[str, str]]:
    with live.http() as http:
        paths = http.get("/openapi.json").json()["paths"]
    return [
        (method.upper(), path.replace("{name}", "x"))
        for path, methods in paths.items()
        for method in methods
    ] + [("GET", "/openapi.json"), ("GET", "/no/such/route")]


def test_every_route_wants_a_key(live: Live) -> None:
    found = routes(live)
    assert len(found) > 15
    for key in (None, "wrong", KEY[:-1], f"{KEY}x"):
        with live.http(key) as http:
            for method, path in found:
                status = http.request(method, path).status_code
                assert (status == 401) == (path not in OPEN), (method, path, status)
    with live.http(None) as http:
        basic = http.get("/v1/models", headers={"Authorization": f"Basic {KEY}"})
        assert basic.status_code == 401


def test_a_server_without_a_key_listens_to_this_machine_only() -> None:
    for host in ("0.0.0.0", "::", "192.168.0.1", "example.org"):
        with pytest.raises(ConfigError, match="no key"):
            Settings(host=host)
        assert Settings(host=host, api_keys=("k",)).host == host
    for host in ("127.0.0.1", "::1", "localhost"):
        assert Settings(host=host).host == host


def test_keys_come_from_a_file(tmp_path) -> None:
    (tmp_path / "keys").write_text("# mine\none\n\n two \n")
    assert read_keys(tmp_path / "keys") == ("one", "two")
    (tmp_path / "none").write_text("# no key\n")
    for name in ("none", "missing"):
        with pytest.raises(ConfigError):
            read_keys(tmp_path / name)


def test_pages_of_other_origins_are_not_answered(live: Live, another) -> None:
    with live.http() as http:
        own = {"Origin": live.url}
        assert http.get("/v1/models", headers=own).status_code == 200
        assert http.get("/v1/models", headers={"Origin": "http://evil.test"}).status_code == 403
        assert "access-control-allow-origin" not in http.get("/health").headers
    with another() as local, local.http(None) as http:
        assert http.get("/v1/models").status_code == 200
        assert http.get("/v1/models", headers={"Host": "evil.test"}).status_code == 421


BODIES = [
    ("/v1/completions", {"prompt": ""}, 200),
    ("/v1/completions", {"prompt": []}, 400),
    ("/v1/completions", {"prompt": [[]]}, 400),
    ("/v1/completions", {"prompt": [10**6]}, 400),
    ("/v1/completions", {"prompt": "a", "max_tokens": 10**9}, 400),
    ("/v1/completions", {"prompt": "a", "temperature": -1}, 400),
    ("/v1/completions", {"prompt": "a", "logit_bias": {"x": 1}}, 400),
    ("/v1/completions", {"prompt": "a", "stop": [""]}, 400),
    ("/v1/completions", {"prompt": "a", "no_such_field": 1}, 400),
    ("/v1/completions", {"prompt": "\ud800"}, 400),
    ("/v1/chat/completions", {"messages": []}, 400),
    ("/v1/chat/completions", {"messages": [{"role": "tool", "content": "x"}]}, 400),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}], "tools": []}, 400),
    ("/v1/responses", {"input": []}, 400),
    ("/v1/responses", {"input": "x", "previous_response_id": "../../x"}, 400),
    ("/v1/responses", {"model": "other", "input": "x"}, 400),
]


@pytest.mark.parametrize(("path", "body", "status"), BODIES, ids=str)
def test_a_wrong_body_is_refused_with_the_reason(
    live: Live, path: str, body: dict, status: int
) -> None:
    import json

    content = json.dumps({"max_tokens": 1} | body if "completions" in path else body)
    with live.http() as http:
        headers = {"content-type": "application/json"}
        answer = http.post(path, content=content, headers=headers)
    assert answer.status_code == status, answer.text
    if status != 200:
        error = answer.json()["error"]
        assert error["message"] and error["type"] == "invalid_request_error"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff", b"{}" * 5_000_000])
def test_what_is_no_json_is_refused(live: Live, content: bytes) -> None:
    with live.http() as http:
        headers = {"content-type": "application/json"}
        answer = http.post("/v1/chat/completions", content=content, headers=headers)
    assert answer.status_code == (413 if len(content) > 10**6 else 400)


def test_a_body_in_pieces_is_limited_too(live: Live) -> None:
    with live.http() as http:
        pieces = (b" " * 10**6 for _ in range(20))
        headers = {"content-type": "application/json"}
        answer = http.post("/v1/chat/completions", content=pieces, headers=headers)
    assert answer.status_code == 413


def test_what_is_more_than_the_queue_takes_is_told_to_come_again(another) -> None:
    with another(max_sessions=1, max_queue=1) as live, live.http(None) as http:
        engine = live.service.engine
        options = RowOptions(max_new_tokens=100_000)
        busy = [engine.submit(Request(ids=[1, 5], options=options), lambda _: None)]
        while not engine.running:
            time.sleep(0.01)
        busy.append(engine.submit(Request(ids=[1, 5], options=options), lambda _: None))
        refused = http.post("/v1/completions", json={"prompt": "a"})
        assert refused.status_code == 429 and int(refused.headers["retry-after"]) >= 1
        for job in busy:
            job.cancel()
        while engine.busy:
            time.sleep(0.01)
        assert http.post("/v1/completions", json={"prompt": "a"}).status_code == 200
        assert "griffin_refused_total 1.0" in http.get("/metrics").text


@pytest.mark.parametrize("stream", [True, False])
def test_who_leaves_gives_the_place_back(another, fledgling, stream: bool) -> None:
    token = fledgling.encode(" the", bos=False)[-1]
    body = {"prompt": "a", "max_tokens": 100_000, "logit_bias": {token: 100}, "stream": stream}
    with another(max_sessions=1, max_tokens=100_000) as live, live.http(None) as http:
        engine = live.service.engine
        try:
            with http.stream(
                "POST", "/v1/completions", json=body, timeout=3 if stream else 0.5
            ) as answer:
                next(answer.iter_lines())
        except httpx.ReadTimeout:
            assert not stream
        until = time.monotonic() + 20
        while engine.busy and time.monotonic() < until:
            time.sleep(0.02)
        assert not engine.busy
        assert http.post("/v1/completions", json={"prompt": "a"}).status_code == 200


def test_metrics_say_what_was_done(live: Live) -> None:
    with live.http() as http:
        http.post("/v1/completions", json={"prompt": "a", "max_tokens": 2})
        text = http.get("/metrics").text
    for name in ("griffin_slots 4.0", "griffin_generated_tokens_total", "griffin_waiting 0.0"):
        assert name in text
    for reason in ("short", "new", "unmarked", "evicted"):
        assert f'griffin_prefix_cache_misses_total{{reason="{reason}"}}' in text
    assert 'griffin_http_requests_total{method="POST",route="/v1/completions",status="200"}' in text


def test_the_delay_of_every_streamed_token_is_counted_and_of_no_other(another) -> None:
    count = "griffin_token_delay_seconds_count"
    body = {"prompt": "The wind", "max_tokens": 5, "temperature": 0}
    with another() as live, live.http(None) as http:
        http.post("/v1/completions", json=body).raise_for_status()
        assert f"{count} 0.0" in http.get("/metrics").text
        streamed = http.post("/v1/completions", json=body | {"stream": True}).text
        pieces = sum('"finish_reason": null' in line for line in streamed.splitlines())
        assert pieces > 1 and f"{count} {pieces}.0" in http.get("/metrics").text
