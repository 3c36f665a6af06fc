"""The study of servers under load finds what is wrong with one; a wrong one is planted."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from random import Random

import pytest

from griffin_lm.bench.reliability import alone, nonsense
from griffin_lm.bench.reliability.clients import Crowd, streamed_text
from griffin_lm.bench.reliability.crowds import flat
from griffin_lm.bench.serving.http import parsed
from griffin_lm.errors import GriffinError

MIB = 1 << 20
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def among_clients(serve: Serve) -> list[str]:
    """The failures that clients see at a server of ours."""

    async def run() -> list[str]:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            crowd = Crowd(server.sockets[0].getsockname()[1], seed=0)
            await crowd.run(4, 1.0)
            return crowd.seen.failures

    return asyncio.run(run())


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is known of answers alone, without a model."""
    one = alone.Alone({"prompt": "a", "max_tokens": 3}, "right")
    monkeypatch.setattr(alone, "completions", lambda *_, **__: (one,))
    monkeypatch.setattr(alone, "session", lambda _: alone.Read(1, "right"))


def answers(status: str, body: bytes) -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1 << 16)
        writer.write(b"HTTP/1.1 " + status.encode() + b"\r\n\r\n" + body)
        writer.close()

    return serve


def test_a_wrong_answer_is_told_from_the_right_one() -> None:
    for text in ("right", "wrong"):
        body = json.dumps({"id": "s", "tokens": 1, "choices": [{"text": text}]}).encode()
        failures = among_clients(answers("200 OK", body))
        assert any(each.startswith("completion: ") for each in failures) == (text == "wrong")
        assert any(each.startswith("streamed: ") for each in failures), "no stream ends so"
        assert any(each.startswith("nonsense got 200") for each in failures)


def test_a_fault_of_the_server_and_a_429_without_a_time_are_seen() -> None:
    assert any("status 500" in each for each in among_clients(answers("500 Oh", b"{}")))
    failures = among_clients(answers("429 Wait", b"{}"))
    assert any("does not say when" in each for each in failures)


def test_a_stream_without_its_end_or_with_an_error_is_no_answer() -> None:
    head, end = b"HTTP/1.1 200 OK\r\n\r\n", b"data: [DONE]\n\n"
    piece = b'data: {"choices": [{"text": "a"}]}\n\n'
    assert streamed_text(parsed(head + piece + piece + end)) == "aa"
    for wrong in (piece, b'data: {"error": {"message": "no"}}\n\n' + end):
        with pytest.raises(GriffinError):
            streamed_text(parsed(head + wrong))


def test_chunks_are_joined_as_far_as_they_came() -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    whole = head + b"2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n"
    assert parsed(whole).body == b"abcde"
    for end in range(len(head), len(whole)):
        assert b"abcde".startswith(parsed(whole[:end]).body.rstrip(b"\r")), end


def test_memory_that_grows_is_told_from_memory_that_settles_or_breathes() -> None:
    failures: list[str] = []
    warm = [(300 + min(n, 20)) * MIB + n % 3 * MIB for n in range(200)]
    assert flat(warm, failures)["most"] == max(warm) and not failures
    flat([(300 + n) * MIB for n in range(200)], failures)
    assert len(failures) == 1 and "grows" in failures[0]


def test_nonsense_repeats_by_its_seed_and_only_a_refusal_is_right() -> None:
    for kind in nonsense.KINDS:
        assert kind(Random(5)) == kind(Random(5))
    assert [status for status in (0, 200, 302, 400, 429, 500) if nonsense.wrong(status)] == [
        *(200, 302, 500)
    ]
