"""What a process does as a whole: its log, its memory, and its end."""

from __future__ import annotations

import gc
import logging
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import librpc
import pytest
from conftest import LIMIT, Child, until

Pair = tuple[librpc.Node, librpc.Node]


def test_what_the_library_logs(domain: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="librpc")
    with librpc.Node("logged", domain=domain):
        pass

    def wanted() -> set[str]:
        return {record.name for record in caplog.records if "logged" in record.getMessage()}

    until(lambda: {"librpc.node", "librpc.node_shared"} <= wanted(), f"only {wanted()}")
    joined = next(record for record in caplog.records if record.name == "librpc.node")
    assert joined.levelno == logging.INFO and joined.getMessage().startswith("a node has joined node=logged domain=")


def test_the_level_is_heeded(domain: str, child: Callable[[str], Child]) -> None:
    script = """
        import logging
        logging.basicConfig(level=LEVEL, stream=sys.stdout, format="%(levelname)s %(name)s %(message)s")
        with librpc.Node("a", domain=domain) as a, librpc.Node("b", domain=domain) as b:
            inbox = b.inbox()
            a.connect("b", timeout=10).send(b"x")
            inbox.recv()
        """
    for level, has, has_not in [("WARNING", "", "INFO"), ("INFO", "INFO librpc.node ", "DEBUG"), ("DEBUG", "DEBUG librpc.", "-")]:
        other = child(script.replace("LEVEL", repr(level)))
        output, _ = other.process.communicate(timeout=LIMIT)
        assert has in output and has_not not in output, output


def test_nothing_is_printed_by_itself(domain: str) -> None:
    code = """
import sys, librpc
with librpc.Node("a", domain=sys.argv[1]) as a, librpc.Node("b", domain=sys.argv[1]) as b:
    inbox = b.inbox(max_message=100)
    try:
        a.connect("b", timeout=10).send(bytes(1000))
    except librpc.TooLarge:
        print("ok")
    inbox.recv(timeout=0.06)
"""
    done = subprocess.run([sys.executable, "-c", code, domain], capture_output=True, text=True, timeout=LIMIT)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ok\n", "")


def test_a_log_that_overflows_is_counted(domain: str, child: Callable[[str], Child]) -> None:
    """While a handler of the program's is slow, the library does not wait: it counts what it cannot keep."""
    other = child(
        """
        import logging, threading
        gate, got = threading.Event(), []
        class Slow(logging.Handler):
            def emit(self, record):
                gate.wait()
                got.append(record.getMessage())
        log = logging.getLogger("librpc")
        log.addHandler(Slow())
        log.setLevel(logging.INFO)
        for n in range(2500):  # two records each
            librpc.Node(f"n{n}", domain=domain).close()
        gate.set()
        node = librpc.Node("last", domain=domain)
        while not any("were lost" in text for text in got):
            pass
        say([text for text in got if "were lost" in text][0])
        node.close()
        """
    )
    assert "records of the library were lost" in other.line()
    other.end()


def test_a_script_that_ends_leaves_nothing(domain: str, child: Callable[[str], Child]) -> None:
    """Also one that closes nothing: its messages are there, and its node has left."""
    inbox_of = librpc.Node("b", domain=domain)
    inbox = inbox_of.inbox()
    other = child(
        """
        node = librpc.Node("a", domain=domain)
        own = node.inbox()
        to_b = node.connect("b", timeout=10)
        to_b.send(b"last words")
        import threading
        threading.Thread(target=own.recv, daemon=True).start()
        """
    )
    other.end()
    assert [node.id for node in librpc.nodes(domain)] == ["b"]
    message = inbox.recv(timeout=LIMIT)
    assert message is not None and message.payload == b"last words"
    inbox_of.close()


@pytest.mark.parametrize("fails", [False, True])
def test_the_last_message_of_a_script(domain: str, child: Callable[[str], Child], fails: bool) -> None:
    """It was processed, unless an exception has ended the script."""
    other = child(
        f"""
        sys.stderr = open(os.devnull, "w")
        node = librpc.Node("b", domain=domain)
        inbox = node.inbox()
        inbox.recv(timeout=60)
        say("received")
        sys.stdin.readline()
        {"raise KeyError" if fails else ""}
        """
    )
    with librpc.Node("a", domain=domain) as node:
        to_b = node.connect("b", timeout=LIMIT)
        to_b.send(b"x")
        assert other.line() == "received"
        other.tell()
        assert other.process.wait(LIMIT) == (1 if fails else 0)
        if fails:
            with pytest.raises(librpc.Lost):
                to_b.flush(timeout=LIMIT)
        else:
            to_b.flush(timeout=LIMIT)


def test_a_hundred_thousand_messages_leave_no_memory_behind(pair: Pair) -> None:
    a, b = pair
    inbox, subscribed = b.inbox(), b.subscribe("x")
    to_b, publisher = a.connect("b", timeout=LIMIT), a.publisher("x")
    server = b.serve("echo", lambda request: request.payload)
    client = a.client("echo")
    payload = b"unshared %d" % os.getpid()
    large = bytearray(100_000)

    def rounds(times: int) -> None:
        for n in range(times):
            to_b.send(payload)
            publisher.publish(payload)
            assert inbox.recv().sender == "a" and subscribed.recv().topic == "x"  # type: ignore[union-attr]
            assert inbox.try_recv() is None
            if n % 100 == 0:
                to_b.send(large)
                view = memoryview(inbox.recv_sample())  # type: ignore[arg-type]
                assert len(view) == len(large)
                with pytest.raises(librpc.NotFound):
                    a.try_connect("nobody")
                assert client.call(payload, timeout=LIMIT).payload == payload
                loan = publisher.loan(10_000)
                memoryview(loan)[0] = 1
                loan.publish()
                assert subscribed.recv_sample() is not None

    rounds(20_000)
    gc.collect()
    references, files, memory = sys.getrefcount(payload), len(os.listdir("/proc/self/fd")), resident()
    rounds(100_000)
    gc.collect()
    assert sys.getrefcount(payload) == references
    # Memory for payloads may have grown. What was closed last is still open for a moment: another thread closes it.
    until(lambda: len(os.listdir("/proc/self/fd")) < files + 10, "as few descriptors as before")
    assert resident() - memory < 8 << 20
    server.close()


def resident() -> int:
    """Bytes of memory of this process, without what is shared."""
    pages = Path("/proc/self/statm").read_text().split()
    return (int(pages[1]) - int(pages[2])) * resource.getpagesize()
