"""Errors carry their numbers, and wrong arguments do no harm."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable

import librpc
import pytest
from conftest import LIMIT, Child

Pair = tuple[librpc.Node, librpc.Node]


def test_every_error_is_one(pair: Pair) -> None:
    for name in librpc.errors.__all__:
        kind = getattr(librpc, name)
        assert issubclass(kind, librpc.Error) and kind.__doc__
    assert issubclass(librpc.Deadline, TimeoutError) and issubclass(librpc.InvalidName, ValueError)


def test_names(domain: str) -> None:
    for wrong in ("", ".a", "x" * 64, "a/b", "\0"):
        with pytest.raises(librpc.InvalidName):
            librpc.Node(wrong, domain=domain)
    with pytest.raises(UnicodeEncodeError):
        librpc.Node("\ud800", domain=domain)
    with librpc.Node("a", domain=domain) as node:
        for topic in ("", "a//b", "a/*x"):
            with pytest.raises(librpc.InvalidTopic):
                node.publisher(topic)
        with pytest.raises(UnicodeEncodeError):
            node.subscribe("\udfff")
        with pytest.raises(UnicodeEncodeError):
            node.connect("\ud800", timeout=0)
        with pytest.raises(librpc.InvalidTopic):
            node.subscribe()
        with pytest.raises(TypeError):
            node.subscribe(7)  # type: ignore[arg-type]
        with pytest.raises(librpc.InvalidTopic):
            node.serve("a b//")
        with pytest.raises(librpc.InvalidCapacity) as capacity:
            node.inbox(capacity=5000)
        assert capacity.value.bytes == 5000
        with pytest.raises(OverflowError):
            node.inbox(capacity=-1)
        with pytest.raises(librpc.InvalidName):
            node.subscribe("x", durable="a/b")
        kept = node.inbox()
        with pytest.raises(librpc.Taken) as taken:
            node.inbox()
        assert taken.value.node == "a"
        del kept


def test_an_id_that_is_in_use(domain: str, pair: Pair) -> None:
    with pytest.raises(librpc.IdInUse) as error:
        librpc.Node("a", domain=domain)
    assert (error.value.node, error.value.pid, error.value.uid) == ("a", os.getpid(), os.getuid())


def test_who_is_not_there(pair: Pair) -> None:
    a, _ = pair
    with pytest.raises(librpc.NotFound) as error:
        a.try_connect("nobody")
    assert error.value.node == "nobody"
    with pytest.raises(librpc.NotFound):
        a.connect("nobody", timeout=0.06)
    with pytest.raises(librpc.NoInbox) as no_inbox:
        a.try_connect("b")
    assert no_inbox.value.node == "b"


def test_who_is_not_admitted(domain: str) -> None:
    with (
        librpc.Node("a", domain=domain) as a,
        librpc.Node("b", domain=domain, admit=librpc.Admission.nobody().uid(4_000_000)) as b,
    ):
        inbox = b.inbox()
        with pytest.raises(librpc.Refused) as error:
            a.connect("b", timeout=LIMIT).send(b"x")
        assert (error.value.node, error.value.reason) == ("b", "not_admitted")
        del inbox
    me = librpc.Admission.nobody().pid(os.getpid()).gid(os.getgid()).executable("/nothing")
    rules = {"x/**": me}
    with librpc.Node("c", domain=domain, admit=me, readers=rules, callers=rules) as node, node.inbox() as own:
        with librpc.Node("a", domain=domain) as a:
            a.connect("c", timeout=LIMIT).send(b"x")
            assert own.recv(timeout=LIMIT) is not None
    assert "Admission" in repr(librpc.Admission.same_user())


def test_a_receiver_that_dies(domain: str, pair: Pair, child: Callable[[str], Child]) -> None:
    other = child(
        """
        node = librpc.Node("c", domain=domain)
        inbox = node.inbox()
        say("ready")
        sys.stdin.readline()
        """
    )
    assert other.line() == "ready"
    to_c = pair[0].connect("c", timeout=LIMIT)
    to_c.send(b"one")
    other.kill()
    with pytest.raises(librpc.Lost) as lost:
        to_c.flush(timeout=LIMIT)
    assert lost.value.lost == 1 and lost.value.causes
    cause = lost.value.causes[0]
    assert isinstance(cause, librpc.ReceiverGone) and (cause.node, cause.unprocessed) == ("c", 1)


def test_errors_can_be_pickled(pair: Pair) -> None:
    with pytest.raises(librpc.NotFound) as error:
        pair[0].try_connect("nobody")
    copy = pickle.loads(pickle.dumps(error.value))
    assert type(copy) is librpc.NotFound and (copy.node, str(copy)) == ("nobody", str(error.value))


def test_domains(domain: str, pair: Pair, child: Callable[[str], Child]) -> None:
    _a, b = pair
    inbox = b.subscribe("x/*")
    publisher = pair[0].publisher("x/1")
    publisher.publish(b"1")
    listed = {node.id: node for node in librpc.nodes(domain)}
    assert set(listed) == {"a", "b"}
    assert (listed["b"].pid, listed["b"].alive) == (os.getpid(), True)
    assert [one.addresses for one in listed["b"].inboxes] == [["x/*"]]
    seen = {observed.node.id: observed for observed in librpc.observe(domain, timeout=LIMIT)}
    stats = seen["b"].stats
    assert stats is not None and stats.node == "b" and stats.version == librpc.__version__
    assert [channel.peer for one in stats.inboxes for channel in one.channels] == ["a"]
    own = pair[0].stats()
    assert own.outgoing[0].sent == 1 and own.published[0].topic == "x/1"
    other = child(
        """
        node = librpc.Node("c", domain=domain)
        say("ready")
        sys.stdin.readline()
        """
    )
    assert other.line() == "ready"
    other.kill()
    dead = [observed for observed in librpc.observe(domain, timeout=LIMIT) if observed.node.id == "c"]
    assert not dead or isinstance(dead[0].error, librpc.NotObserved) and dead[0].error.reason == "dead"
    assert librpc.clean(domain) == ["c"] and librpc.clean(domain) == []
    with pytest.raises(librpc.DomainError):
        librpc.Node("x", domain="/proc/librpc")
    del inbox


def test_a_crowd_of_closed_things(pair: Pair) -> None:
    a, b = pair
    for _ in range(50):
        with b.subscribe("x"), a.publisher("x") as publisher, b.serve("s"), a.client("s"):
            assert publisher.publish(b"x", timeout=LIMIT).inboxes == 1
