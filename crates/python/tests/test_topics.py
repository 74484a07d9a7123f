"""Publishing and subscribing."""

from __future__ import annotations

import threading
from collections.abc import Callable

import librpc
import pytest
from conftest import LIMIT, Child
from librpc import Schema, events

Pair = tuple[librpc.Node, librpc.Node]


def test_a_message_on_a_topic(pair: Pair) -> None:
    a, b = pair
    inbox = b.subscribe("sensor/*/temperature", "map/**")
    publisher = a.publisher("sensor/kitchen/temperature")
    receipt = publisher.publish(b"21.5")
    assert (receipt.inboxes, receipt.pending, receipt.undelivered) == (1, 0, [])
    message = inbox.recv()
    assert message is not None and (message.topic, message.payload) == ("sensor/kitchen/temperature", b"21.5")
    a.publisher("map/a/b").publish_json({"x": 1})
    message = inbox.recv()
    assert message is not None and (message.topic, message.json()) == ("map/a/b", {"x": 1})
    assert a.publisher("nobody").publish(b"x").inboxes == 0
    assert publisher.subscribers() == 1 and publisher.topic == "sensor/kitchen/temperature"
    assert [inbox.node for inbox in publisher.inboxes()] == ["b"]
    assert publisher.account().accepted == 1
    publisher.flush(timeout=LIMIT)


def test_late_subscribers_get_what_was_kept(pair: Pair) -> None:
    a, b = pair
    publisher = a.publisher("map", history=2)
    for n in range(3):
        publisher.publish(b"%d" % n)
    inbox = b.subscribe("map")
    got = [inbox.recv(timeout=LIMIT), inbox.recv(timeout=LIMIT)]
    assert [(one.payload, one.past) for one in got if one] == [(b"1", True), (b"2", True)]
    inbox.close()
    with b.subscribe("map", history=1) as other:
        one = other.recv(timeout=LIMIT)
        assert one is not None and one.payload == b"2"
    publisher.flush(timeout=LIMIT)


def test_a_publisher_that_never_waits(pair: Pair) -> None:
    a, b = pair
    inbox = b.subscribe("camera", capacity=4096)
    publisher = a.publisher("camera", never_waits=True)
    assert publisher.timeout == 0
    receipts = [publisher.publish(bytes(64)) for _ in range(200)]
    full = receipts[-1].undelivered[0]
    assert isinstance(full, librpc.Full) and full.node == "b"
    del inbox


def test_a_publish_waits_for_room(pair: Pair) -> None:
    a, b = pair
    inbox = b.subscribe("x", capacity=4096)
    publisher = a.publisher("x")
    assert publisher.timeout == 1.0
    got: list[bytes] = []

    def receive() -> None:
        while len(got) < 1000:
            message = inbox.recv(timeout=LIMIT)
            assert message is not None
            got.append(message.payload)

    receiver = threading.Thread(target=receive)
    receiver.start()
    for n in range(1000):
        assert publisher.publish(b"%064d" % n, timeout=LIMIT).inboxes == 1
    receiver.join()
    assert got == [b"%064d" % n for n in range(1000)]


def test_events_of_a_publisher(pair: Pair) -> None:
    a, b = pair
    publisher = a.publisher("x")
    assert publisher.wait_for_subscriber(timeout=0) is False
    inbox = b.subscribe("x", durable="mine")
    assert publisher.wait_for_subscriber(timeout=LIMIT)
    match publisher.wait_for_event(timeout=LIMIT):
        case events.SubscriptionCame(came):
            assert (came.node, came.patterns, came.durable) == ("b", ["x"], "mine")
        case event:
            pytest.fail(f"{event}")
    assert publisher.wait_for_event(timeout=0.01) is None
    inbox.close()
    match publisher.wait_for_event(timeout=LIMIT):
        case events.SubscriptionGone(gone, how, why):
            assert (gone.node, how, why) == ("b", "closed", None)
        case event:
            pytest.fail(f"{event}")
    assert publisher.try_event() is None


def test_a_subscriber_that_dies(domain: str, pair: Pair, child: Callable[[str], Child]) -> None:
    publisher = pair[0].publisher("x")
    other = child(
        """
        node = librpc.Node("c", domain=domain)
        inbox = node.subscribe("x")
        say(inbox.recv(timeout=60).payload)
        sys.stdin.readline()
        """
    )
    assert isinstance(publisher.wait_for_event(timeout=LIMIT), events.SubscriptionCame)
    publisher.publish(b"one")
    assert other.line() == "b'one'"
    other.kill()
    while not isinstance(event := publisher.wait_for_event(timeout=LIMIT), events.SubscriptionGone):
        assert event is not None
    assert event.how == "died"


def test_types(pair: Pair) -> None:
    a, b = pair
    pose = Schema("Pose", "json", hash=7)
    assert (pose.name, pose.encoding, pose.hash, pose.definition) == ("Pose", "json", 7, None)
    assert pose == Schema("Pose", "json", hash=7) and pose != Schema("Pose", "cdr", hash=7)
    assert hash(pose) == hash(Schema("Pose", "json", hash=7))
    assert pose.matches(Schema("Pose", "json", hash=7)) and not pose.matches(Schema("Pose", "json", hash=8))
    assert Schema("X", 77, definition=b"def").encoding == 77 and Schema("X", 77, definition=b"def").definition == b"def"
    inbox = b.subscribe("pose", schema=pose)
    right = a.publisher("pose", schema=pose)
    assert right.publish_json({"x": 1}).inboxes == 1
    assert inbox.recv(timeout=LIMIT) is not None
    wrong = a.publisher("pose", schema=Schema("Pose", "json", hash=8))
    receipt = wrong.publish(b"{}")
    assert receipt.inboxes == 0
    error = receipt.undelivered[0]
    assert isinstance(error, librpc.Mismatch) and error.node == "b"
    assert error.mismatch.ours.hash == 8 and error.mismatch.theirs.hash == 7
    assert [one.node for one in wrong.mismatches()] == ["b"]
    with pytest.raises(librpc.Mismatch):
        inbox.recv(timeout=LIMIT)
    typed = b.inbox(schema=pose)
    with pytest.raises(librpc.Mismatch):
        a.connect("b", timeout=LIMIT)
    with pytest.raises(librpc.Mismatch):
        typed.recv(timeout=LIMIT)  # says so once, and goes on
    a.connect("b", timeout=LIMIT, schema=pose).send_json({})
    assert typed.recv(timeout=LIMIT) is not None
    with pytest.raises(ValueError, match="raw, plain"):
        Schema("X", "xml")
    with pytest.raises(librpc.InvalidSchema):
        Schema("", "json")
