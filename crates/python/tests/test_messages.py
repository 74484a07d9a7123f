"""Sending to a node, and receiving."""

from __future__ import annotations

import array
import os
import select
import threading
import time
from collections.abc import Callable

import librpc
import numpy as np
import pytest
from conftest import LIMIT, Child, until
from librpc import events

Pair = tuple[librpc.Node, librpc.Node]


def test_a_message_between_two_processes(domain: str, child: Callable[[str], Child]) -> None:
    other = child(
        """
        with librpc.Node("display", domain=domain) as node, node.inbox() as inbox:
            for message in inbox:
                say(message.sender, message.payload.decode(), message.peer.pid)
                break
        """
    )
    with librpc.Node("camera", domain=domain) as node:
        to_display = node.connect("display", timeout=LIMIT)
        to_display.send(b"hello")
        to_display.flush(timeout=LIMIT)
        assert other.line() == f"camera hello {os.getpid()}"
    other.end()


def test_what_a_message_says(pair: Pair) -> None:
    a, b = pair
    inbox = b.inbox()
    to_b = a.connect("b", timeout=LIMIT, stamp_all=True)
    before = time.monotonic()
    to_b.send(b"one")
    to_b.send(b"")
    one, two = inbox.recv(), inbox.recv()
    assert one is not None and two is not None
    assert (one.payload, bytes(one), len(one), one.sender, one.topic) == (b"one", b"one", 3, "a", None)
    assert (one.sequence, two.sequence, one.missed, one.redelivered, one.past) == (0, 1, 0, False, False)
    assert (one.peer.node, one.peer.pid, one.peer.uid) == ("a", os.getpid(), os.getuid())
    assert one.peer == two.peer and hash(one.peer) == hash(two.peer)
    assert one.peer.incarnation == a.incarnation
    assert one.sent_at is not None and before <= one.sent_at <= time.monotonic()
    assert one.age is not None and one.age >= 0
    assert two and two.payload == b""  # a message without bytes is a message
    assert "b'one'" in repr(one)


@pytest.mark.parametrize(
    "payload",
    [
        b"bytes",
        bytearray(b"bytearray"),
        memoryview(b"memoryview")[2:5],
        array.array("d", [1.0, 2.0]),
        np.arange(6, dtype="f4").reshape(2, 3),
        np.float64(3.0),
        b"",
        bytearray(),
        bytes(1_000_000),
        np.zeros(1_000_000, dtype="u1"),
    ],
    ids=lambda payload: f"{type(payload).__name__}-{memoryview(payload).nbytes}",
)
def test_whatever_has_a_contiguous_buffer_is_sent(pair: Pair, payload: bytes) -> None:
    a, b = pair
    inbox = b.inbox()
    a.connect("b", timeout=LIMIT).send(payload)
    message = inbox.recv(timeout=LIMIT)
    assert message is not None and message.payload == memoryview(payload).tobytes()


def test_a_buffer_is_let_go_after_it_was_sent(pair: Pair) -> None:
    a, b = pair
    inbox = b.inbox()
    payload = bytearray(b"abc")
    a.connect("b", timeout=LIMIT).send(payload)
    payload.append(1)  # a bytearray that is exported cannot grow
    assert inbox.recv() is not None


def test_what_has_no_contiguous_buffer_is_not_sent(pair: Pair) -> None:
    a, b = pair
    inbox = b.inbox()
    to_b = a.connect("b", timeout=LIMIT)
    for strided in (memoryview(b"abcdef")[::2], np.zeros((4, 4))[:, ::2], np.asfortranarray(np.ones((3, 2)))[::-1]):
        with pytest.raises((BufferError, ValueError)):
            to_b.send(strided)
    for other in ("text", 7, None, ["a"]):
        with pytest.raises(TypeError):
            to_b.send(other)  # type: ignore[arg-type]
    assert inbox.try_recv() is None


def test_json(pair: Pair) -> None:
    a, b = pair
    inbox = b.inbox()
    to_b = a.connect("b", timeout=LIMIT)
    value = {"x": [1, 2.5, None, True], "ö": "ü"}
    to_b.send_json(value)
    message = inbox.recv()
    assert message is not None and message.json() == value
    assert message.payload == '{"x":[1,2.5,null,true],"ö":"ü"}'.encode()
    to_b.send(b"{")
    message = inbox.recv()
    assert message is not None
    with pytest.raises(ValueError):
        message.json()


def test_time_limits_of_a_receive(pair: Pair) -> None:
    inbox = pair[1].inbox()
    assert inbox.recv(timeout=0) is None
    assert inbox.recv(0.001) is None
    assert inbox.recv(timeout=0.12) is None  # longer than the main thread's first wait
    assert inbox.try_recv() is None
    assert inbox.recv_event(timeout=0.001) is None
    assert inbox.recv_sample(timeout=0.001) is None
    assert inbox.recv_latest(timeout=0.12) is None
    assert inbox.recv_many(5, timeout=0.001) == []
    for wrong in (-1, -0.001, float("nan")):
        with pytest.raises(ValueError, match="0 or more seconds"):
            inbox.recv(timeout=wrong)
    with pytest.raises(TypeError, match="number of seconds"):
        inbox.recv(timeout="1")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        inbox.recv(timeout=-(10**400))
    inbox.stop()
    for huge in (1e300, float("inf"), 10**30, 10**400, None):
        assert inbox.recv(timeout=huge) is None


def test_a_receive_that_waits_long_gets_what_comes(pair: Pair) -> None:
    """After its first wait, the main thread waits in another way."""
    a, b = pair
    inbox = b.inbox()
    to_b = a.connect("b", timeout=LIMIT)
    assert inbox.recv(timeout=0.06) is None
    results: list[object] = []
    for receive in (inbox.recv, inbox.recv_event, inbox.recv_sample, inbox.recv_latest):
        timer = threading.Timer(0.15, to_b.send, [b"late"])
        timer.start()
        found = receive(timeout=LIMIT)
        timer.join()
        while isinstance(found, (events.SenderJoined, events.SenderLeft)):
            found = receive(timeout=LIMIT)
        results.append(bytes(found))  # type: ignore[arg-type]
    assert results == [b"late"] * 4


def test_many_at_once(pair: Pair) -> None:
    a, b = pair
    inbox = b.inbox()
    to_b = a.connect("b", timeout=LIMIT)
    assert to_b.send_many([b"%d" % n for n in range(10)]) == 10
    assert [message.payload for message in inbox.recv_many(4)] == [b"0", b"1", b"2", b"3"]
    assert [message.payload for message in inbox.recv_many(100)] == [b"4", b"5", b"6", b"7", b"8", b"9"]
    assert inbox.recv_many(0) == []


def test_send_many_says_how_many_were_sent(domain: str, pair: Pair) -> None:
    a, b = pair
    inbox = b.inbox(capacity=4096)
    to_b = a.connect("b", timeout=LIMIT)
    with pytest.raises(librpc.Full) as full:
        to_b.send_many([bytes(500)] * 100, timeout=0)
    assert full.value.sent and full.value.sent == to_b.account().accepted
    del inbox


def test_a_full_inbox(pair: Pair) -> None:
    a, b = pair
    inbox = b.inbox(capacity=4096)
    to_b = a.connect("b", timeout=LIMIT)
    with pytest.raises(librpc.Full) as full:
        while True:
            to_b.send(bytes(100), timeout=0.01)
    assert (full.value.node, full.value.limit) == ("b", 0.01)
    assert "0.01" in str(full.value) or "10ms" in str(full.value)
    with pytest.raises(librpc.Full):
        to_b.try_send(bytes(100))
    to_b.timeout = 0.02
    assert to_b.timeout == 0.02
    with pytest.raises(librpc.Full) as full:
        to_b.send(bytes(100))
    assert full.value.limit == 0.02
    to_b.timeout = None
    assert to_b.timeout is None
    receiver = threading.Thread(target=lambda: list(iter(lambda: inbox.recv(timeout=0.5), None)))
    receiver.start()
    to_b.send(bytes(100))  # waits as long as it takes
    to_b.flush(timeout=LIMIT)
    receiver.join()
    account = to_b.account()
    assert account.accepted == account.processed


def test_policies(pair: Pair) -> None:
    a, b = pair
    inbox = b.inbox(policy=librpc.Policy.DROP_OLDEST, capacity=4096)
    to_b = a.connect("b", timeout=LIMIT)
    for n in range(1000):
        to_b.send(b"%d" % n)
    first = inbox.recv()
    assert first is not None and first.missed > 0
    with pytest.raises(ValueError, match="drop_newest"):
        b.subscribe("x", policy="drop_all")
    dropping = b.subscribe("x", policy="drop_newest", capacity=4096)
    publisher = a.publisher("x")
    receipts = [publisher.publish(bytes(100)) for _ in range(100)]
    assert receipts[-1].inboxes == 0
    assert isinstance(receipts[-1].undelivered[0], librpc.Dropped)
    del dropping


def test_only_the_newest(pair: Pair) -> None:
    a, b = pair
    inbox = b.inbox(keep_last=1)
    to_b = a.connect("b", timeout=LIMIT)
    for n in range(5):
        to_b.send(b"%d" % n)
    newest = inbox.recv_latest()
    assert newest is not None and (newest.payload, newest.missed) == (b"4", 4)


def test_a_message_is_processed_when_it_is_acknowledged(pair: Pair) -> None:
    a, b = pair
    inbox = b.inbox(acknowledge=librpc.Acknowledge.EXPLICIT)
    to_b = a.connect("b", timeout=LIMIT)
    to_b.send(b"one")
    assert inbox.recv() is not None
    assert inbox.try_recv() is None
    with pytest.raises(librpc.Unprocessed) as unprocessed:
        to_b.flush(timeout=0)
    assert unprocessed.value.unprocessed == 1
    assert isinstance(unprocessed.value, TimeoutError)
    inbox.ack()
    to_b.flush(timeout=LIMIT)


def test_an_exception_leaves_the_last_message_unprocessed(pair: Pair) -> None:
    a, b = pair
    to_b = None
    with pytest.raises(ZeroDivisionError), b.inbox() as inbox:
        to_b = a.connect("b", timeout=LIMIT)
        to_b.set_redelivery(LIMIT)
        to_b.send(b"one")
        to_b.send(b"two")
        for _message in inbox:
            raise ZeroDivisionError
    assert to_b is not None
    again = b.inbox()
    with pytest.raises(librpc.Unprocessed):
        to_b.flush(timeout=0.2)  # has it sent again
    one, two = again.recv(timeout=LIMIT), again.recv(timeout=LIMIT)
    assert one is not None and two is not None
    assert (one.payload, one.redelivered) == (b"one", True)
    assert two.payload == b"two"


def test_a_block_that_ends_well_processes_the_last_message(pair: Pair) -> None:
    a, b = pair
    with b.inbox() as inbox:
        to_b = a.connect("b", timeout=LIMIT)
        to_b.send(b"one")
        assert inbox.recv() is not None
    to_b.flush(timeout=LIMIT)


def test_what_did_not_arrive_comes_back(pair: Pair) -> None:
    a, b = pair
    inbox = b.inbox()
    to_b = a.connect("b", timeout=LIMIT)
    to_b.set_redelivery(0)
    to_b.send(b"one")
    assert to_b.is_connected
    inbox.close()
    until(lambda: not to_b.is_connected, "the inbox is still there")
    with pytest.raises(librpc.Lost) as lost:
        to_b.flush(timeout=LIMIT)
    assert lost.value.lost == 1 and lost.value.causes and isinstance(lost.value.causes[0], librpc.ReceiverGone)
    returned = to_b.take_returned()
    assert [(one.node, one.payload, one.topic) for one in returned] == [("b", b"one", None)]


def test_events(domain: str, pair: Pair, child: Callable[[str], Child]) -> None:
    _, b = pair
    inbox = b.inbox()
    other = child(
        """
        node = librpc.Node("c", domain=domain)
        to_b = node.connect("b", timeout=60)
        to_b.send(b"one")
        say("sent")
        sys.stdin.readline()
        """
    )
    assert other.line() == "sent"
    other.kill()
    seen: list[tuple[str, str]] = []
    while len(seen) < 3:
        match inbox.recv_event(timeout=LIMIT):
            case events.SenderJoined(peer):
                seen.append(("joined", peer.node))
            case librpc.Message() as message:
                seen.append(("message", message.payload.decode()))
            case events.SenderLeft(peer, how="died"):
                seen.append(("died", peer.node))
            case event:
                pytest.fail(f"{event}")
    assert seen == [("joined", "c"), ("message", "one"), ("died", "c")]


def test_what_is_too_large_is_told_to_both(pair: Pair) -> None:
    a, b = pair
    inbox = b.inbox(max_message=100)
    to_b = a.connect("b", timeout=LIMIT)
    assert to_b.max_message == 100
    with pytest.raises(librpc.TooLarge) as error:
        to_b.send(bytes(101))
    assert (error.value.node, error.value.bytes, error.value.max) == ("b", 101, 100)
    while not isinstance(event := inbox.recv_event(timeout=LIMIT), events.TurnedAway):
        assert event is not None
    assert (event.messages, event.too_large, event.peer.node) == (1, 1, "a")


def test_an_inbox_is_a_descriptor(pair: Pair) -> None:
    a, b = pair
    inbox = b.inbox()
    to_b = a.connect("b", timeout=LIMIT)
    while inbox.try_recv() is not None or select.select([inbox], [], [], 0)[0]:
        pass
    to_b.send(b"one")
    assert select.select([inbox], [], [], LIMIT)[0] == [inbox]
    assert inbox.try_recv() is not None


def test_stopping_and_closing(pair: Pair) -> None:
    a, b = pair
    inbox = b.inbox()
    stopper = threading.Timer(0.1, inbox.stop)
    stopper.start()
    assert list(inbox) == []
    assert inbox.recv() is None and not inbox.is_closed
    inbox.close()
    inbox.close()
    assert inbox.is_closed
    for use in (inbox.recv, inbox.try_recv, inbox.ack, inbox.fileno, inbox.recv_event, lambda: next(inbox)):
        with pytest.raises(librpc.Closed, match="this inbox is closed"):
            use()
    inbox.stop()
    reopened = b.inbox()
    to_b = a.connect("b", timeout=LIMIT)
    to_b.close()
    to_b.close()
    with pytest.raises(librpc.Closed):
        to_b.send(b"x")
    a.close()
    a.close(timeout=1)
    assert a.is_closed
    for act in (a.inbox, a.stats, lambda: a.connect("b"), lambda: a.publisher("x"), lambda: a.serve("x")):
        with pytest.raises(librpc.Closed):
            act()
    del reopened


def test_a_node_that_closes_waits_until_its_messages_are_processed(pair: Pair) -> None:
    a, b = pair
    inbox = b.inbox()
    to_b = a.connect("b", timeout=LIMIT)
    to_b.send(b"one")
    with pytest.raises(librpc.Unprocessed) as error:
        a.close(timeout=0.2)
    assert (error.value.node, error.value.unprocessed) == ("a", 1)
    message = inbox.recv()  # it has left, and its message is there
    assert message is not None and message.payload == b"one"


def test_inboxes_of_a_closed_node(pair: Pair) -> None:
    inbox = pair[1].inbox()
    pair[1].close()
    with pytest.raises(librpc.Closed) as error:
        inbox.recv()
    assert error.value.node == "b"


def test_high_water(pair: Pair) -> None:
    a, b = pair
    inbox = b.inbox(capacity=4096)
    to_b = a.connect("b", timeout=LIMIT)
    to_b.set_high_water(0.5)
    while (change := to_b.next_high_water_change()) is None:
        to_b.send(bytes(64))
    assert (change.node, change.is_high, change.address.kind) == ("b", True, "node")
    with pytest.raises(ValueError):
        to_b.set_high_water(float("nan"))
    with pytest.raises(ValueError):
        to_b.set_high_water(2)
    del inbox


def test_rates(pair: Pair) -> None:
    a, b = pair
    inbox = b.inbox()
    to_b = a.connect("b", timeout=LIMIT)
    to_b.limit_rate(1, burst=1, fail=True)
    with pytest.raises(librpc.RateLimited) as limited:
        for _ in range(100):
            to_b.send(b"x")
    assert limited.value.wait is not None and limited.value.wait > 0
    to_b.limit_rate()
    for _ in range(100):
        to_b.send(b"x")
    for wrong in (0, -1, float("nan"), 1e30):
        with pytest.raises(ValueError):
            to_b.limit_rate(wrong)
    to_b.limit_rate(bytes=1e9)
    to_b.limit_rate(1e6, bytes=1e9, burst=10)
    to_b.send(b"x")
    del inbox
