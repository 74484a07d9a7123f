"""Ctrl-C ends whatever waits, and nothing is lost by it."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import librpc
import pytest
from conftest import LIMIT, Child

WAITS = {
    "recv": "b.inbox().recv()",
    "recv with a limit": "b.inbox().recv(timeout=1000)",
    "iteration": "next(b.inbox())",
    "recv_event": "b.inbox().recv_event()",
    "recv_sample": "b.inbox().recv_sample()",
    "recv_latest": "b.inbox().recv_latest()",
    "recv_many": "b.inbox().recv_many(10)",
    "a spinning recv": "b.inbox(wait='spin').recv()",
    "connect": "a.connect('nobody')",
    "send": "full().send(bytes(100), timeout=None)",
    "send_many": "full().send_many([bytes(100)] * 1000, timeout=None)",
    "flush": "unread().flush()",
    "publish": "[p.publish(bytes(100), timeout=None) for _ in range(1000)]",
    "a loan's publish": "[p.loan(100).publish(timeout=None) for _ in range(1000)]",
    "a loan": "loans()",
    "wait_for_subscriber": "a.publisher('nothing').wait_for_subscriber()",
    "wait_for_event": "a.publisher('nothing').wait_for_event()",
    "call": "a.client('s').call(b'x')",
    "wait": "a.client('s').start(b'x').wait()",
    "call_stream": "next(a.client('s').call_stream(b'x'))",
    "wait_for_server": "a.client('nothing').wait_for_server()",
    "server": "server.recv()",
    "server.run": "server.run(print)",
    "close": "(unread(), a.close(timeout=None))",
    "another thread's lock": "locked()",
}

SCRIPT = """
import threading
a = librpc.Node("a", domain=domain, limits={"payload_bytes": 8 << 20})
b = librpc.Node("b", domain=domain)
server = b.serve("s")
sub = b.subscribe("p", capacity=4096)
p = a.publisher("p")
q = a.publisher("q")
kept = []
def unread():
    kept.append(b.inbox(capacity=4096))
    kept.append(a.connect("b", timeout=10))
    kept[-1].send(b"x")
    return kept[-1]
def full():
    to_b = unread()
    try:
        while True:
            to_b.try_send(bytes(100))
    except librpc.Full:
        return to_b
def loans():
    while True:
        try:
            kept.append(q.loan(1 << 20))
        except librpc.Exhausted:
            pass
def locked():
    to_b = full()
    threading.Thread(target=to_b.send, args=(bytes(100), None), daemon=True).start()
    while True:
        to_b.send(bytes(100), timeout=None)
try:
    say("ready")
    WAIT
    say("it has ended by itself")
except KeyboardInterrupt:
    say("KeyboardInterrupt")
os._exit(0)
"""


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS.keys())
@pytest.mark.parametrize("late", [False, True], ids=["at once", "asleep"])
def test_a_signal_ends_what_waits(child: Callable[[str], Child], wait: str, late: bool) -> None:
    other = child(SCRIPT.replace("WAIT", wait))
    assert other.line() == "ready"
    if late and "spin" not in wait and "latest" not in wait:
        other.wait_until_it_sleeps()
    other.interrupt()
    assert other.line() == "KeyboardInterrupt"


def test_a_handler_that_needs_what_its_thread_uses(child: Callable[[str], Child]) -> None:
    script = SCRIPT.replace(
        "WAIT",
        """to_b = full()
    def handler(*_):
        try:
            to_b.send(b"goodbye")
        except librpc.InUse as error:
            say(str(error))
        raise KeyboardInterrupt
    import signal
    signal.signal(signal.SIGINT, handler)
    say("waits")
    to_b.send(bytes(100), timeout=None)""",
    )
    other = child(script)
    assert (other.line(), other.line()) == ("ready", "waits")
    other.wait_until_it_sleeps()
    other.interrupt()
    assert other.line() == "this thread uses this sender just now: a signal handler cannot"
    assert other.line() == "KeyboardInterrupt"


def test_nothing_is_lost(domain: str, child: Callable[[str], Child]) -> None:
    other = child(
        """
        import signal
        def handler(number, frame):
            raise InterruptedError
        signal.signal(signal.SIGUSR1, handler)
        with librpc.Node("b", domain=domain) as node, node.inbox() as inbox:
            say("ready")
            while True:
                try:
                    say(inbox.recv().payload)
                except InterruptedError:
                    say("interrupted")
        """
    )
    assert other.line() == "ready"
    with librpc.Node("a", domain=domain) as node:
        to_b = node.connect("b", timeout=LIMIT)
        for n in range(5):
            other.wait_until_it_sleeps()
            other.process.send_signal(signal.SIGUSR1)
            assert other.line() == "interrupted"
            to_b.send(b"%d" % n)
            assert other.line() == f"b'{n}'"


def test_handlers_run_while_it_waits_and_the_wait_goes_on(domain: str, child: Callable[[str], Child]) -> None:
    other = child(
        """
        import signal
        signal.signal(signal.SIGUSR1, lambda number, frame: say("handled"))
        with librpc.Node("b", domain=domain) as node, node.inbox() as inbox:
            say("ready")
            say(inbox.recv().payload)
            say(signal.set_wakeup_fd(-1))
        """
    )
    assert other.line() == "ready"
    other.wait_until_it_sleeps()
    for _ in range(5):
        other.process.send_signal(signal.SIGUSR1)
        assert other.line() == "handled"
    with librpc.Node("a", domain=domain) as node:
        to_b = node.connect("b", timeout=LIMIT)
        to_b.send(b"x")
        assert other.line() == "b'x'"
        assert other.line() == "-1"  # the descriptor was put back
    other.end()


def test_a_main_thread_that_waits_long_uses_no_time(domain: str, child: Callable[[str], Child]) -> None:
    other = child(
        """
        with librpc.Node("b", domain=domain) as node, node.inbox() as inbox:
            say("ready")
            inbox.recv()
        """
    )
    assert other.line() == "ready"
    other.wait_until_it_sleeps()

    def slept() -> int:
        status = Path(f"/proc/{other.pid}/status").read_text()
        return int(status.split("\nvoluntary_ctxt_switches:")[1].split()[0])

    other.wait_until_it_sleeps()  # past its first wait
    before = slept()
    other.wait_until_it_sleeps()  # what is measured
    assert slept() - before == 0
