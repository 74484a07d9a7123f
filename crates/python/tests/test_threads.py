"""Threads: others run while one waits, and handles that are shared do no harm."""

from __future__ import annotations

import threading

import librpc
import pytest
from conftest import LIMIT, until

Pair = tuple[librpc.Node, librpc.Node]


def test_other_threads_run_while_one_waits(pair: Pair) -> None:
    a, b = pair
    inbox = b.inbox()
    to_b = a.connect("b", timeout=LIMIT)
    counted = 0
    is_over = threading.Event()

    def count() -> None:
        nonlocal counted
        while counted < 10_000:
            counted += 1
        to_b.send(b"counted")
        is_over.set()

    threading.Thread(target=count).start()
    message = inbox.recv(timeout=LIMIT)  # if it kept the GIL, nobody would count
    assert message is not None and is_over.wait(LIMIT) and counted == 10_000


def test_an_inbox_belongs_to_one_thread_at_a_time(pair: Pair) -> None:
    inbox = pair[1].inbox()
    results: list[object] = []
    thread = threading.Thread(target=lambda: results.append(inbox.recv()))
    thread.start()

    def is_in_use() -> bool:
        try:
            inbox.try_recv()
        except librpc.InUse as error:
            assert "another thread uses this inbox" in str(error)
            return True
        return False

    until(is_in_use, "the thread never waits")
    with pytest.raises(librpc.InUse):
        inbox.recv(timeout=0)
    inbox.stop()
    thread.join()
    assert results == [None]
    assert inbox.try_recv() is None


def test_closing_an_inbox_ends_the_receive_of_another_thread(pair: Pair) -> None:
    inbox = pair[1].inbox()
    results: list[object] = []
    thread = threading.Thread(target=lambda: results.extend(inbox))
    thread.start()
    inbox.close()
    thread.join()
    assert results == [] and inbox.is_closed
    pair[1].inbox().close()  # its place is free again


def test_threads_share_a_sender(pair: Pair) -> None:
    a, b = pair
    inbox = b.inbox(capacity=4096)
    to_b = a.connect("b", timeout=LIMIT)
    publisher = a.publisher("x")
    subscribed = b.subscribe("x", capacity=4096)

    def send(name: int) -> None:
        for n in range(500):
            to_b.send(b"%d %d" % (name, n), timeout=LIMIT)
            publisher.publish(b"%d %d" % (name, n), timeout=LIMIT)

    threads = [threading.Thread(target=send, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()

    def receive(box: librpc.Inbox, into: dict[int, list[int]]) -> None:
        for _ in range(2000):
            message = box.recv(timeout=LIMIT)
            assert message is not None
            name, n = message.payload.split()
            into.setdefault(int(name), []).append(int(n))

    sent: dict[int, list[int]] = {}
    published: dict[int, list[int]] = {}
    receiver = threading.Thread(target=receive, args=(subscribed, published))
    receiver.start()
    receive(inbox, sent)
    receiver.join()
    for thread in threads:
        thread.join()
    assert sent == published == {name: list(range(500)) for name in range(4)}


def test_closing_a_sender_that_waits(pair: Pair) -> None:
    a, b = pair
    inbox = b.inbox(capacity=4096)
    to_b = a.connect("b", timeout=LIMIT)
    with pytest.raises(librpc.Full):
        while True:
            to_b.try_send(bytes(100))
    ended: list[BaseException] = []

    def send() -> None:
        try:
            to_b.send(bytes(100), timeout=0.3)
            to_b.send(bytes(100), timeout=0.3)
        except librpc.Error as error:
            ended.append(error)

    thread = threading.Thread(target=send)
    thread.start()
    to_b.close()
    thread.join()
    assert len(ended) == 1 and isinstance(ended[0], (librpc.Full, librpc.Closed))
    del inbox


def test_closing_a_node_while_others_wait(pair: Pair) -> None:
    a, b = pair
    ended: list[str] = []

    def wait(what: object) -> None:
        try:
            what()  # type: ignore[operator]
        except librpc.Closed as error:
            ended.append(str(error))

    inbox, server = a.inbox(), a.serve("s")
    waits = [inbox.recv, server.recv, lambda: a.connect("nobody")]
    threads = [threading.Thread(target=wait, args=(what,)) for what in waits]
    for thread in threads:
        thread.start()
    a.close()
    for thread in threads:
        thread.join()
    assert len(ended) == 3, ended
    del b


def test_everything_at_once(pair: Pair) -> None:
    """Handles that are used and closed by many threads: errors, but nothing worse."""
    a, b = pair

    def worker(box: librpc.Inbox, to_b: librpc.Sender, publisher: librpc.Publisher) -> None:
        for n in range(200):
            for act in (
                lambda: to_b.send(b"x" * n, timeout=0.01),
                box.try_recv,
                lambda: box.recv(timeout=0.001),
                lambda: publisher.publish(bytes(n), timeout=0),
                box.ack,
                to_b.account,
                lambda: publisher.loan(n).publish(),
                box.fileno,
            ):
                try:
                    act()
                except librpc.Error:
                    pass

    for _ in range(3):
        box, publisher = b.inbox(), a.publisher("x")
        to_b = a.connect("b", timeout=LIMIT)
        threads = [threading.Thread(target=worker, args=(box, to_b, publisher)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(50):
            b.subscribe("x").close()
        box.close()
        to_b.close()
        publisher.close()
        for thread in threads:
            thread.join()
