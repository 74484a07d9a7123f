"""Calls and services."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator

import librpc
import numpy as np
import pytest
from conftest import LIMIT, Child, until

Pair = tuple[librpc.Node, librpc.Node]


@pytest.fixture
def service(pair: Pair) -> Iterator[tuple[librpc.Client, librpc.Server]]:
    a, b = pair
    with b.serve("text") as server, a.client("text") as client:
        yield client, server


def test_a_call(pair: Pair) -> None:
    a, b = pair
    server = b.serve("text/upper", lambda request: request.payload.upper())
    client = a.client("text/upper")
    assert (client.service, server.service) == ("text/upper", "text/upper")
    assert client.wait_for_server(timeout=LIMIT) and client.servers() == ["b"]
    reply = client.call(b"hello", timeout=LIMIT)
    assert (reply.payload, bytes(reply), len(reply), reply.server) == (b"HELLO", b"HELLO", 5, "b")
    assert memoryview(reply).readonly and memoryview(reply).tobytes() == b"HELLO"
    assert [(answer.node, answer.reply and answer.reply.payload) for answer in client.call_all(b"x", timeout=LIMIT)] == [("b", b"X")]
    server.close()
    server.close()
    assert server.is_closed


class Mute(Exception):
    def __str__(self) -> str:
        raise ValueError("it cannot say why")


@pytest.mark.parametrize(
    ("failure", "text"),
    [
        (SystemExit(3), "SystemExit: 3"),
        (KeyboardInterrupt(), "KeyboardInterrupt: "),
        (ValueError("file \udcff"), "ValueError: file \\udcff"),
        (librpc.Failed("\ud800"), "\\ud800"),
        (librpc.Failed("too large a code", code=1 << 40), "too large a code"),
        (Mute(), "Mute: (it cannot say why)"),
    ],
    ids=["exit", "interrupt", "a name of a file", "half a character", "code", "mute"],
)
def test_a_service_goes_on_whatever_its_handler_raises(pair: Pair, failure: BaseException, text: str) -> None:
    a, b = pair

    def handler(request: librpc.Request) -> bytes:
        if request.payload == b"fail":
            raise failure
        return request.payload

    async def waits(request: librpc.Request) -> bytes:
        return handler(request)

    async def main() -> None:
        with b.serve("async", waits), a.client("async") as client:
            with pytest.raises(librpc.Failed) as caught:
                await client.call_async(b"fail", timeout=LIMIT)
            assert (caught.value.code, caught.value.text) == (1, text)
            assert (await client.call_async(b"x", timeout=LIMIT)).payload == b"x"

    with b.serve("threads", handler), a.client("threads") as client:
        with pytest.raises(librpc.Failed) as caught:
            client.call(b"fail", timeout=LIMIT)
        assert (caught.value.code, caught.value.text) == (1, text)
        assert client.call(b"x", timeout=LIMIT).payload == b"x"
    if isinstance(failure, Exception):  # others end the loop itself
        asyncio.run(main())


def test_requests_are_answered_in_any_order(service: tuple[librpc.Client, librpc.Server]) -> None:
    client, server = service
    calls = [client.start(b"%d" % n, timeout=LIMIT) for n in range(3)]
    requests = [server.recv(timeout=LIMIT) for _ in calls]
    assert server.in_flight == 3
    for request in reversed(requests):
        assert request is not None
        assert (request.client, request.peer.node, request.is_cancelled, request.is_answered) == ("a", "a", False, False)
        assert request.time_left is not None and 0 < request.time_left <= LIMIT
        request.reply(request.payload * 2)
        assert request.is_answered
        with pytest.raises(librpc.Closed, match="this request is closed"):
            request.reply(b"again")
    replies = [call.wait() for call in calls]
    assert [reply and reply.payload for reply in replies] == [b"00", b"11", b"22"]
    with pytest.raises(librpc.Closed):
        calls[0].wait()


def test_failures(service: tuple[librpc.Client, librpc.Server]) -> None:
    client, server = service

    def handler(request: librpc.Request) -> bytes | None:
        match request.payload:
            case b"fail":
                raise librpc.Failed("no such thing", code=7)
            case b"crash":
                raise KeyError("x")
            case b"unknown":
                request.unimplemented("what?")
            case b"own":
                request.fail(9, "mine")
            case b"wrong":
                return "text"  # type: ignore[return-value]
            case b"silent":
                pass  # dropped unanswered
            case payload:
                return payload
        return None

    thread = threading.Thread(target=server.run, args=(handler,))
    thread.start()
    with pytest.raises(librpc.Failed) as failed:
        client.call(b"fail", timeout=LIMIT)
    assert (failed.value.code, failed.value.text, failed.value.node, failed.value.service) == (7, "no such thing", "b", "text")
    with pytest.raises(librpc.Failed) as failed:
        client.call(b"crash", timeout=LIMIT)
    assert (failed.value.code, failed.value.text) == (1, "KeyError: 'x'")
    with pytest.raises(librpc.Unimplemented) as unimplemented:
        client.call(b"unknown", timeout=LIMIT)
    assert unimplemented.value.text == "what?"
    with pytest.raises(librpc.Failed) as failed:
        client.call(b"own", timeout=LIMIT)
    assert failed.value.code == 9
    with pytest.raises(librpc.Failed, match="TypeError"):
        client.call(b"wrong", timeout=LIMIT)
    with pytest.raises(librpc.Failed, match="unanswered"):
        client.call(b"silent", timeout=LIMIT)
    assert client.call(b"ok", timeout=LIMIT).payload == b"ok"  # the server goes on
    server.stop()
    thread.join()


def test_json(pair: Pair) -> None:
    a, b = pair
    server = b.serve("add", lambda request: request.reply_json(sum(request.json())))
    assert a.client("add").call_json([1, 2, 3], timeout=LIMIT) == 6
    server.close()


def test_time_limits(service: tuple[librpc.Client, librpc.Server]) -> None:
    client, server = service
    with pytest.raises(librpc.Deadline) as deadline:
        client.call(b"x", timeout=0.06)
    assert (deadline.value.limit, deadline.value.service) == (0.06, "text") and isinstance(deadline.value, TimeoutError)
    assert server.try_recv() is None and server.recv(timeout=0.06) is None  # it is no longer of use
    call = client.start(b"y", timeout=LIMIT)
    assert call.wait(timeout=0) is None and call.wait(timeout=0.06) is None
    request = server.recv(timeout=LIMIT)
    assert request is not None
    request.reply(b"z")
    reply = call.wait()
    assert reply is not None and reply.payload == b"z"
    with pytest.raises(ValueError):
        client.call(b"x", timeout=-1)


def test_cancelling(service: tuple[librpc.Client, librpc.Server]) -> None:
    client, server = service
    call = client.start(b"x")
    request = server.recv(timeout=LIMIT)
    assert request is not None and request.time_left is None
    call.cancel()
    with pytest.raises(librpc.Cancelled):
        call.wait()
    cancelled = request
    until(lambda: cancelled.is_cancelled, "the server does not learn of it")
    request.reply(b"too late")  # no error
    dropped = client.start(b"y")
    request = server.recv(timeout=LIMIT)
    assert request is not None
    del dropped
    request_of_dropped = request
    until(lambda: request_of_dropped.is_cancelled, "a call that was dropped goes on")
    request.fail()


def test_nobody_serves(pair: Pair) -> None:
    client = pair[0].client("nothing")
    with pytest.raises(librpc.NoServer) as error:
        client.call(b"x", timeout=LIMIT)
    assert error.value.service == "nothing"
    assert client.wait_for_server(timeout=0) is False
    with pytest.raises(librpc.NoServer) as error:
        client.call(b"x", timeout=LIMIT, to="b")
    assert error.value.node == "b"
    assert client.call_all(b"x") == []


def test_a_server_that_dies(domain: str, pair: Pair, child: Callable[[str], Child]) -> None:
    client = pair[0].client("work")
    other = child(
        """
        node = librpc.Node("c", domain=domain)
        server = node.serve("work")
        request = server.recv()
        say("taken")
        sys.stdin.readline()
        """
    )
    assert client.wait_for_server(timeout=LIMIT)
    call = client.start(b"x", timeout=LIMIT)
    assert other.line() == "taken"
    other.kill()
    with pytest.raises(librpc.ServerDied) as error:
        call.wait()
    assert error.value.node == "c" and isinstance(error.value.taken, bool)


def test_a_reply_in_parts(service: tuple[librpc.Client, librpc.Server]) -> None:
    client, server = service

    def handler(request: librpc.Request) -> None:
        with request.stream() as stream:
            for n in range(int(request.payload)):
                stream.send(b"%d" % n)
            if stream.time_left is None and not stream.is_cancelled:
                raise ValueError("at the end")

    thread = threading.Thread(target=server.run, args=(handler,))
    thread.start()
    parts = client.call_stream(b"100", timeout=LIMIT)
    assert [part.payload for part in parts] == [b"%d" % n for n in range(100)]
    assert list(parts) == []
    got = []
    with pytest.raises(librpc.Failed, match="ValueError: at the end"):
        for part in client.call_stream(b"3"):
            got.append(part.payload)
    assert got == [b"0", b"1", b"2"]
    endless = client.call_stream(b"1000000", timeout=LIMIT)
    assert next(endless).payload == b"0"
    endless.cancel()
    with pytest.raises(librpc.Cancelled):
        list(endless)
    server.stop()
    thread.join()


def test_large_requests_and_replies(service: tuple[librpc.Client, librpc.Server]) -> None:
    client, server = service
    thread = threading.Thread(target=server.run, args=(lambda request: np.frombuffer(request.payload, "u1") + 1,))
    thread.start()
    reply = client.call(np.full(4 << 20, 6, dtype="u1"), timeout=LIMIT)
    assert np.array_equal(np.frombuffer(reply, "u1"), np.full(4 << 20, 7, dtype="u1"))
    server.stop()
    thread.join()


def test_several_threads_serve_and_call(pair: Pair) -> None:
    a, b = pair
    gate = threading.Barrier(4)

    def handler(request: librpc.Request) -> bytes:
        gate.wait(LIMIT)  # four at once
        return request.payload

    server = b.serve("echo", handler, threads=4)
    client = a.client("echo")
    results: list[bytes] = []
    threads = [
        threading.Thread(target=lambda n=n: results.append(client.call(b"%d" % n, timeout=LIMIT).payload)) for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [b"0", b"1", b"2", b"3"]
    server.close()
    with pytest.raises(ValueError):
        b.serve("other", handler, threads=0)
    with pytest.raises(TypeError, match="a handler is a function"):
        b.serve("other", 5)  # type: ignore[arg-type]

    async def task(request: librpc.Request) -> bytes:
        return request.payload

    with pytest.raises(RuntimeError, match="no running event loop"):
        b.serve("other", task)
    assert a.client("other").servers() == []


def test_in_tasks(pair: Pair) -> None:
    a, b = pair

    async def main() -> None:
        running = 0
        everybody = asyncio.Event()

        async def handler(request: librpc.Request) -> bytes:
            nonlocal running
            running += 1
            if running == 3:
                everybody.set()
            await everybody.wait()  # three at once
            if request.payload == b"crash":
                raise librpc.Failed("no", code=3)
            return request.payload.upper()

        server = b.serve("upper", handler)
        client = a.client("upper")
        assert await client.wait_for_server_async(timeout=LIMIT)
        calls = [client.call_async(payload, timeout=LIMIT) for payload in (b"one", b"two", b"crash")]
        one, two, three = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(one, librpc.Reply) and isinstance(two, librpc.Reply) and isinstance(three, librpc.Failed)
        assert (one.payload, two.payload, three.code) == (b"ONE", b"TWO", 3)
        pending = client.start(b"three", timeout=LIMIT)
        assert (await pending).payload == b"THREE"
        server.close()

        async def parts(request: librpc.Request) -> None:
            stream = request.stream()
            for n in range(100):
                await stream.send_async(b"%d" % n)
            stream.finish()

        async with asyncio.timeout(LIMIT):
            server = b.serve("parts", parts)
            client = a.client("parts")
            got = [part.payload async for part in client.call_stream(b"", timeout=LIMIT)]
            assert got == [b"%d" % n for n in range(100)]
            server.close()
            requests = b.serve("raw")
            call = asyncio.ensure_future(a.client("raw").call_async(b"x", timeout=LIMIT))
            async for request in requests:
                request.reply(b"y")
                requests.stop()
            assert (await call).payload == b"y"

    asyncio.run(main())


def test_handlers_that_only_look_like_functions(pair: Pair) -> None:
    a, b = pair

    class Upper:
        async def __call__(self, request: librpc.Request) -> bytes:
            await asyncio.sleep(0)
            return request.payload.upper()

    upper = Upper()

    async def main() -> None:
        with b.serve("object", upper), a.client("object") as client:
            assert (await client.call_async(b"x", timeout=LIMIT)).payload == b"X"
        with b.serve("lambda", lambda request: upper(request)), a.client("lambda") as client:
            with pytest.raises(librpc.Failed, match="returned a coroutine"):
                await client.call_async(b"x", timeout=LIMIT)

    asyncio.run(main())


def test_a_cancelled_task_cancels_its_call(service: tuple[librpc.Client, librpc.Server]) -> None:
    client, server = service

    async def main() -> None:
        call = asyncio.ensure_future(client.call_async(b"x"))
        request = await server.recv_async()
        assert request is not None
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        until(lambda: request.is_cancelled, "the server does not learn of it")
        request.fail()

    asyncio.run(main())


def test_types_of_a_service(pair: Pair) -> None:
    a, b = pair
    of = (librpc.Schema("Q", "json", hash=1), librpc.Schema("A", "json", hash=2))
    server = b.serve("typed", lambda request: b"1", schemas=of)
    assert a.client("typed", schemas=of).call(b"0", timeout=LIMIT).payload == b"1"
    assert a.client("typed", any_types=True).call(b"0", timeout=LIMIT).payload == b"1"
    with pytest.raises(librpc.Mismatch) as error:
        a.client("typed").call(b"0", timeout=LIMIT)
    assert error.value.service == "typed" and error.value.node == "b"
    server.close()


def test_a_client_has_a_limit_of_calls(pair: Pair) -> None:
    a, b = pair
    server = b.serve("slow")
    client = a.client("slow", max_in_flight=2)
    calls = [client.start(b"x"), client.start(b"x")]
    with pytest.raises(librpc.Busy):
        client.start(b"x")
    client.close()
    client.close()
    with pytest.raises(librpc.Closed):
        client.call(b"x")
    del calls
    server.close()
