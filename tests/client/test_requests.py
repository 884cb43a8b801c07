"""Questions about the session as a whole: each is answered once, or its connection ends before."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ibfast.client.protocol import Reply, StreamClient
from ibfast.errors import ProtocolError


@pytest.fixture
def client() -> StreamClient:
    return StreamClient("json")


def begin(client: StreamClient) -> list[dict[str, Any]]:
    """Begin a session; return what the client asks at once."""
    client.connected()
    say(client, "welcome", protocol=1, heartbeat_s=10.0)
    return asked(client)


def say(client: StreamClient, op: str, **values: Any) -> list[Reply]:
    output = client.receive(json.dumps({"op": op, **values}))
    assert all(isinstance(item, Reply) for item in output)
    return output  # type: ignore[return-value]


def asked(client: StreamClient) -> list[dict[str, Any]]:
    return [json.loads(text) for text in client.take_messages()]


ANSWERS: dict[str, dict[str, Any]] = {
    "list": {"op": "subscriptions", "subscriptions": []},
    "ping": {"op": "pong", "data": None, "time_ns": 1, "positions": []},
    "limit": {"op": "limited", "max_bytes_per_s": 9},
}


@pytest.mark.parametrize("op", ANSWERS)
def test_a_question_has_one_reply(client: StreamClient, op: str) -> None:
    assert begin(client) == []
    fields = {"max_bytes_per_s": 10} if op == "limit" else {}
    first, second = client.ask(op, **fields), client.ask(op, **fields)
    requests = asked(client)
    assert [{name: value for name, value in request.items() if name != "id"} for request in requests] == [
        {"op": op, **fields}
    ] * 2
    for question, request in ((second, requests[1]), (first, requests[0])):
        answer = {**ANSWERS[op], "id": request["id"]}
        (reply,) = say(client, **answer)
        assert (reply.question, reply.said, reply.error) == (question, answer, None)
    assert asked(client) == []


@pytest.mark.parametrize("op", ANSWERS)
def test_a_refusal_is_a_reply(client: StreamClient, op: str) -> None:
    begin(client)
    question = client.ask(op, max_bytes_per_s=10)
    ((reply),) = say(client, "error", id=asked(client)[0]["id"], code="TOO_FAST", message="at most 1 a second")
    assert (reply.question, reply.said) == (question, None)
    assert reply.error is not None
    assert reply.error.code == "TOO_FAST"


@pytest.mark.parametrize("op", ANSWERS)
@pytest.mark.parametrize("number", [99, None, "1", [], 1.5])
def test_an_answer_to_nothing_is_a_lie(client: StreamClient, op: str, number: Any) -> None:
    begin(client)
    client.ask(op, max_bytes_per_s=10)
    asked(client)
    with pytest.raises(ProtocolError):
        say(client, **{**ANSWERS[op], "id": number})


def test_an_answer_to_another_question_is_a_lie(client: StreamClient) -> None:
    begin(client)
    client.ask("ping")
    with pytest.raises(ProtocolError, match="'list', which was not asked"):
        say(client, **{**ANSWERS["list"], "id": asked(client)[0]["id"]})


def test_what_is_not_answered_ends_with_the_session(client: StreamClient) -> None:
    before = client.ask("ping")
    assert client.take_output() == [Reply(before)]
    begin(client)
    sent = client.ask("ping")
    asked(client)
    waiting = client.ask("list")
    client.disconnected()
    assert client.take_output() == [Reply(sent), Reply(waiting)]
    after = client.ask("list")
    assert client.take_output() == [Reply(after)]
    assert begin(client) == []


def test_a_limit_holds_for_every_session_to_come(client: StreamClient) -> None:
    client.ask("limit", max_bytes_per_s=500)
    client.take_output()
    for _ in range(2):
        (request,) = begin(client)
        assert (request["op"], request["max_bytes_per_s"]) == ("limit", 500)
        client.subscribe("AAPL")
        client.disconnected()
        client.take_output()
        for wish in client.wishes:
            client.unsubscribe(wish)
    begin(client)
    client.ask("limit", max_bytes_per_s=0)
    assert asked(client)[-1]["max_bytes_per_s"] == 0
    client.disconnected()
    assert begin(client) == []


def test_a_limit_is_asked_for_before_anything_flows(client: StreamClient) -> None:
    client.ask("limit", max_bytes_per_s=500)
    client.subscribe("AAPL")
    client.take_output()
    assert [request["op"] for request in begin(client)] == ["limit", "subscribe"]
