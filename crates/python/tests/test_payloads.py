"""Large payloads: samples and loans, without a copy."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import librpc
import numpy as np
import pytest
from conftest import LIMIT

Pair = tuple[librpc.Node, librpc.Node]
MIB = 1 << 20


def mapping_of(address: int) -> str:
    """What is mapped at an address of this process."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        begin, end = (int(part, 16) for part in line.split()[0].split("-"))
        if begin <= address < end:
            return line
    return ""


def test_a_sample_is_read_where_its_sender_has_put_it(pair: Pair) -> None:
    a, b = pair
    inbox = b.subscribe("camera")
    publisher = a.publisher("camera")
    frame = np.random.default_rng(1).integers(0, 256, 8 * MIB, dtype="u1")
    publisher.publish(frame)
    sample = inbox.recv_sample(timeout=LIMIT)
    assert sample is not None and sample.is_lent
    one, two = np.frombuffer(sample, dtype="u1"), np.frombuffer(sample, dtype="u1")
    assert one.ctypes.data == two.ctypes.data  # the same address
    mapped = mapping_of(one.ctypes.data)
    assert "memfd:" in mapped and mapped.split()[1].startswith("r--s"), mapped  # shared memory that this side cannot write
    assert np.array_equal(one, frame)
    assert not one.flags.writeable
    with pytest.raises((TypeError, ValueError)):
        memoryview(sample)[0] = 1
    assert (len(sample), sample.topic, sample.sender) == (8 * MIB, "camera", "a")
    assert sample.payload == frame.tobytes() == bytes(sample)


def test_a_sample_outlives_inbox_and_node(domain: str) -> None:
    a, b = librpc.Node("a", domain=domain), librpc.Node("b", domain=domain)
    inbox = b.inbox()
    a.connect("b", timeout=LIMIT).send(np.full(MIB, 7, dtype="u1"))
    sample = inbox.recv_sample(timeout=LIMIT)
    assert sample is not None
    view = np.frombuffer(sample, dtype="u1")
    address = view.ctypes.data
    del sample
    inbox.close()
    b.close()
    a.close()
    gc.collect()
    assert view.ctypes.data == address and int(view.sum()) == 7 * MIB
    assert "memfd:" in mapping_of(address)
    del view
    gc.collect()


def test_the_memory_is_used_again_once_the_views_are_gone(pair: Pair) -> None:
    a, b = pair
    inbox = b.subscribe("camera")
    publisher = a.publisher("camera")
    for n in range(200):  # 1.6 GiB in all, more than the node may lend
        publisher.publish(np.full(8 * MIB, n, dtype="u1"), timeout=LIMIT)
        sample = inbox.recv_sample(timeout=LIMIT)
        assert sample is not None
        view = memoryview(sample)
        assert view[0] == view[-1] == n % 256
        view.release()
        del sample, view
    assert a.stats().payload_bytes <= a.stats().payload_limit


def test_a_short_sample(pair: Pair) -> None:
    a, b = pair
    inbox = b.inbox()
    to_b = a.connect("b", timeout=LIMIT)
    to_b.send(b"")
    to_b.send_json([1])
    empty, short = inbox.recv_sample(), inbox.recv_sample()
    assert empty is not None and short is not None
    assert memoryview(empty).nbytes == 0 and empty and not empty.is_lent
    assert short.json() == [1] and np.frombuffer(short, dtype="S3")[0] == b"[1]"


def test_a_loan_is_filled_in_place(pair: Pair) -> None:
    a, b = pair
    inbox = b.subscribe("camera")
    publisher = a.publisher("camera")
    loan = publisher.loan(8 * MIB)
    array = np.frombuffer(loan, dtype="f4")
    assert array.flags.writeable and not array.any()
    assert "memfd:" in mapping_of(array.ctypes.data)
    array[:] = 2.5
    del array
    receipt = publisher.publish(loan)
    assert receipt.inboxes == 1 and loan.is_gone and not loan and len(loan) == 0
    sample = inbox.recv_sample(timeout=LIMIT)
    assert sample is not None and sample.is_lent
    assert float(np.frombuffer(sample, dtype="f4").mean()) == 2.5


def test_a_loan_in_view_is_not_published(pair: Pair) -> None:
    """Whoever has a view could go on writing what others read."""
    a, b = pair
    inbox = b.subscribe("camera")
    publisher = a.publisher("camera")
    loan = publisher.loan(MIB)
    view = memoryview(loan)
    for act in (lambda: publisher.publish(loan), loan.publish, loan.release):
        with pytest.raises(BufferError, match="delete the arrays and memoryviews"):
            act()
    view[0] = 9  # it is still a loan
    view.release()
    assert loan.publish().inboxes == 1
    sample = inbox.recv_sample(timeout=LIMIT)
    assert sample is not None and memoryview(sample)[0] == 9


def test_a_loan_that_is_gone_cannot_be_written(pair: Pair) -> None:
    a, b = pair
    inbox = b.inbox()
    to_b = a.connect("b", timeout=LIMIT)
    loan = to_b.loan(MIB, zero=False)
    memoryview(loan)[:3] = b"abc"
    to_b.send(loan)
    for use in (lambda: memoryview(loan), loan.send, lambda: to_b.send(loan)):
        with pytest.raises(BufferError, match="sent or given back"):
            use()
    loan.release()
    with to_b.loan(MIB) as given_back:
        assert len(given_back) == MIB
    assert given_back.is_gone
    sample = inbox.recv_sample(timeout=LIMIT)
    assert sample is not None and bytes(memoryview(sample)[:3]) == b"abc"


def test_a_loan_that_was_not_sent_is_still_there(pair: Pair) -> None:
    a, b = pair
    inbox = b.inbox(max_message=MIB)
    to_b = a.connect("b", timeout=LIMIT)
    loan = to_b.loan(2 * MIB)
    with pytest.raises(librpc.TooLarge):
        loan.send()
    assert len(loan) == 2 * MIB and loan
    memoryview(loan)[0] = 1
    del inbox


def test_memory_that_is_used_up(domain: str) -> None:
    with librpc.Node("a", domain=domain, limits={"payload_bytes": 16 * MIB}) as a, librpc.Node("b", domain=domain) as b:
        inbox = b.subscribe("camera")
        publisher = a.publisher("camera")
        assert publisher.loan(4 * MIB).publish().inboxes == 1
        sample = inbox.recv_sample(timeout=LIMIT)
        loans = []
        with pytest.raises(librpc.Exhausted) as error:
            while True:
                loans.append(publisher.loan(4 * MIB))
        assert loans and error.value.bytes == 4 * MIB and error.value.limit == 16 * MIB
        assert error.value.used is not None and error.value.used <= 16 * MIB
        assert error.value.holders and {holder.node for holder in error.value.holders} == {"b"}
        assert isinstance(error.value, MemoryError)
        del sample
    with pytest.raises(TypeError, match="unknown limit"):
        librpc.Node("a", domain=domain, limits={"no_such": 1})


def test_one_copy_for_many(pair: Pair) -> None:
    a, b = pair
    inboxes = [b.subscribe("camera") for _ in range(3)]
    assert a.publisher("camera").publish(np.full(MIB, 3, dtype="u1")).inboxes == 3
    samples = [inbox.recv_sample(timeout=LIMIT) for inbox in inboxes]
    assert all(sample is not None and memoryview(sample)[MIB - 1] == 3 for sample in samples)


def test_views_keep_a_sample(pair: Pair) -> None:
    a, b = pair
    inbox = b.inbox()
    a.connect("b", timeout=LIMIT).send(np.full(MIB, 5, dtype="u1"))
    sample = inbox.recv_sample(timeout=LIMIT)
    assert sample is not None
    views = [memoryview(sample)[n : n + 10] for n in range(100)]
    del sample
    gc.collect()
    assert all(view[3] == 5 for view in views)
    gone = weakref.ref(inbox)
    del inbox
    gc.collect()
    assert gone() is None and views[0][0] == 5
