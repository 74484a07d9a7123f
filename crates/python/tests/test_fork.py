"""Forked children: what they inherit is their parent's."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable

import librpc
import pytest
from conftest import LIMIT, Child

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of newer Pythons: fork in a process with threads


def in_child(act: Callable[[], object]) -> str:
    """What comes of it in a forked child, which ends as Python does."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reader)
            try:
                result = repr(act())
            except BaseException as error:  # noqa: BLE001
                result = f"{type(error).__name__}: {error}"
            os.write(writer, result.encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        result = pipe.read()
    assert os.waitpid(pid, 0)[1] == 0
    return result


def test_what_a_child_inherits(domain: str) -> None:
    with librpc.Node("a", domain=domain) as a, librpc.Node("b", domain=domain) as b:
        inbox, subscribed = b.inbox(), b.subscribe("x")
        to_b, publisher = a.connect("b", timeout=LIMIT), a.publisher("x")
        server, client = b.serve("s"), a.client("s")
        call = client.start(b"y")
        request = server.recv(timeout=LIMIT)
        stream = client.call_stream(b"z")
        loan = publisher.loan(1 << 20)
        publisher.publish(bytes(1 << 20))
        sample = subscribed.recv_sample(timeout=LIMIT)
        to_b.send(b"short")
        short = inbox.recv_sample(timeout=LIMIT)
        assert short is not None
        echo = b.serve("echo", lambda request: request.payload)
        reply = a.client("echo").call(bytes(1 << 20), timeout=LIMIT)
        assert request is not None and sample is not None
        uses: dict[str, Callable[[], object]] = {
            "inbox.recv": inbox.recv,
            "inbox.try_recv": inbox.try_recv,
            "inbox.fileno": inbox.fileno,
            "inbox.ack": inbox.ack,
            "next": lambda: next(inbox),
            "sender.send": lambda: to_b.send(b"x"),
            "sender.flush": to_b.flush,
            "sender.loan": lambda: to_b.loan(1 << 20),
            "publisher.publish": lambda: publisher.publish(b"x"),
            "publisher.event": publisher.wait_for_event,
            "loan.publish": loan.publish,
            "a view on a loan": lambda: memoryview(loan),
            "server.recv": server.recv,
            "request.reply": lambda: request.reply(b"x"),
            "client.call": lambda: client.call(b"x"),
            "call.wait": call.wait,
            "stream": lambda: next(stream),
            "sample.payload": lambda: sample.payload,
            "a sample's length": lambda: len(sample),
            "a view on a sample": lambda: memoryview(sample),
            "a short sample": lambda: bytes(short),
            "reply.payload": lambda: reply.payload,
            "a reply's length": lambda: len(reply),
            "a view on a reply": lambda: memoryview(reply),
            "node.inbox": b.inbox,
            "node.connect": lambda: a.connect("b"),
            "node.stats": a.stats,
        }
        for name, use in uses.items():
            found = in_child(use)
            assert found.startswith("Forked: ") and "belongs to the process that forked this one" in found, (name, found)
        for close in (inbox.close, to_b.close, publisher.close, server.close, client.close, a.close, inbox.stop, loan.release):
            assert in_child(close) == "None"
        echo.close()
        to_b.send(b"the parent's still work")
        message = inbox.recv(timeout=LIMIT)
        assert message is not None and message.payload == b"the parent's still work"
        request.reply(b"done")
        answer = call.wait()
        assert answer is not None and answer.payload == b"done"


def test_a_child_has_nodes_of_its_own(domain: str) -> None:
    with librpc.Node("a", domain=domain) as a:
        inbox = a.inbox()

        def act() -> str:
            with librpc.Node("child", domain=domain) as node:
                to_a = node.connect("a", timeout=LIMIT)
                to_a.send(b"hello")
                return "sent"

        assert in_child(act) == "'sent'"
        message = inbox.recv(timeout=LIMIT)
        assert message is not None and (message.sender, message.payload) == ("child", b"hello")


def _use(inbox: librpc.Inbox, queue: multiprocessing.SimpleQueue[str]) -> None:
    try:
        inbox.recv()
    except librpc.Forked as error:
        queue.put(str(error))


def test_multiprocessing(domain: str) -> None:
    """Its children end in their own way."""
    with librpc.Node("a", domain=domain) as a:
        inbox = a.inbox()
        context = multiprocessing.get_context("fork")
        queue: multiprocessing.SimpleQueue[str] = context.SimpleQueue()
        process = context.Process(target=_use, args=(inbox, queue))
        process.start()
        process.join(LIMIT)
        assert process.exitcode == 0 and "belongs to the process that forked" in queue.get()


def test_a_child_that_ends_as_a_script_does(domain: str, child: Callable[[str], Child]) -> None:
    """The interpreter takes everything down, at exit handlers included."""
    other = child(
        """
        a = librpc.Node("a", domain=domain)
        b = librpc.Node("b", domain=domain)
        inbox = b.inbox()
        to_b = a.connect("b", timeout=10)
        to_b.send(b"one")
        if os.fork() == 0:
            try:
                inbox.recv()
            except librpc.Forked:
                say("forked")
            sys.exit(0)
        status = os.wait()[1]
        say(status, inbox.recv(timeout=10).payload)
        """
    )
    assert other.line() == "forked"
    assert other.line() == "0 b'one'"
    other.end()


def test_a_fork_while_threads_use_everything(domain: str) -> None:
    """No lock that a thread of the parent's held stops the child."""
    with librpc.Node("a", domain=domain) as a, librpc.Node("b", domain=domain) as b:
        inbox, idle = b.inbox(), b.subscribe("idle")
        to_b = a.connect("b", timeout=LIMIT)
        server = b.serve("s", lambda request: request.payload)
        client = a.client("s")
        ends = threading.Event()

        def busy() -> None:
            while not ends.is_set():
                to_b.send(b"x", timeout=LIMIT)
                client.call(b"x", timeout=LIMIT)

        def receive() -> None:
            while inbox.recv() is not None:
                pass

        threads = [threading.Thread(target=target) for target in (busy, busy, receive, idle.recv)]
        for thread in threads:
            thread.start()

        def act() -> str:
            for use in (inbox.recv, idle.recv, lambda: to_b.send(b"x"), lambda: client.call(b"x"), server.recv):
                with pytest.raises(librpc.Forked):
                    use()
            with librpc.Node(f"child{os.getpid()}", domain=domain) as node, node.inbox() as own:
                node.connect(node.id, timeout=LIMIT).send(b"own")
                message = own.recv(timeout=LIMIT)
                assert message is not None
                return message.payload.decode()

        for _ in range(10):
            assert in_child(act) == "'own'"
        ends.set()
        threads[0].join()
        threads[1].join()
        inbox.stop()
        idle.stop()
        for thread in threads:
            thread.join()
        server.close()
