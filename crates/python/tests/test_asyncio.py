"""Waiting in asyncio tasks."""

from __future__ import annotations

import asyncio
import gc
import logging
import mmap
import sys
import threading
import time
import weakref
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import librpc
import pytest
from conftest import LIMIT, Child
from librpc import events

Pair = tuple[librpc.Node, librpc.Node]


def run(main: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(3 * LIMIT):
            await main()

    asyncio.run(limited())


def test_receiving(pair: Pair) -> None:
    a, b = pair
    inbox = b.inbox()

    async def main() -> None:
        to_b = await a.connect_async("b", timeout=LIMIT)
        waiting = asyncio.ensure_future(inbox.recv_async())
        await asyncio.sleep(0)
        await to_b.send_async(b"one")
        message = await waiting
        assert message is not None and message.payload == b"one"
        for n in range(100):
            await to_b.send_async(b"%d" % n)
        got = []
        async for message in inbox:
            got.append(message.payload)
            if len(got) == 100:
                inbox.stop()
        assert got == [b"%d" % n for n in range(100)]
        assert await inbox.recv_async() is None
        await to_b.flush_async(timeout=LIMIT)

    run(main)


def test_samples_and_events(pair: Pair) -> None:
    a, b = pair
    inbox = b.subscribe("x")
    publisher = a.publisher("x")

    async def main() -> None:
        assert await publisher.wait_for_subscriber_async(timeout=LIMIT)
        came = await publisher.event_async()
        assert isinstance(came, events.SubscriptionCame)
        receipt = await publisher.publish_async(bytes(1 << 20))
        assert receipt.inboxes == 1
        sample = await inbox.recv_sample_async()
        assert sample is not None and memoryview(sample).nbytes == 1 << 20
        waiting = asyncio.ensure_future(inbox.recv_event_async())
        await asyncio.sleep(0)
        publisher.publish(b"2")
        event = await waiting
        assert isinstance(event, (librpc.Message, events.SenderJoined))
        gone = asyncio.ensure_future(publisher.event_async())
        await asyncio.sleep(0)
        inbox.close()
        assert isinstance(await gone, events.SubscriptionGone)

    run(main)


def test_a_cancelled_receive_loses_nothing(pair: Pair) -> None:
    a, b = pair
    inbox = b.inbox()
    to_b = a.connect("b", timeout=LIMIT)

    async def main() -> None:
        got: list[bytes] = []
        sent = 0
        while len(got) < 500:
            waiting = asyncio.ensure_future(inbox.recv_async())
            await asyncio.sleep(0)
            if sent < 500:
                to_b.send(b"%d" % sent)
                sent += 1
            if sent % 3 and sent < 500:
                waiting.cancel()
            try:
                message = await waiting
            except asyncio.CancelledError:
                continue
            assert message is not None
            got.append(message.payload)
        assert got == [b"%d" % n for n in range(500)]
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(inbox.recv_async(), 0.01)
        to_b.send(b"last")
        message = inbox.recv(timeout=LIMIT)  # the inbox is free again
        assert message is not None and message.payload == b"last"

    run(main)


def test_a_send_waits_for_room_without_holding_up_the_loop(pair: Pair) -> None:
    a, b = pair
    inbox = b.inbox(capacity=4096)
    to_b = a.connect("b", timeout=LIMIT)

    async def main() -> None:
        async def send() -> None:
            for n in range(500):
                await to_b.send_async(b"%064d" % n, timeout=LIMIT)

        sending = asyncio.ensure_future(send())
        got = 0
        while got < 500:
            message = await inbox.recv_async()
            assert message is not None and message.payload == b"%064d" % got
            got += 1
        await sending

    run(main)


def test_a_cancelled_send_sends_nothing(pair: Pair) -> None:
    a, b = pair
    inbox = b.inbox(capacity=4096)
    to_b = a.connect("b", timeout=LIMIT)
    with pytest.raises(librpc.Full):
        while True:
            to_b.try_send(bytes(64))

    async def main() -> None:
        waiting = asyncio.ensure_future(to_b.send_async(b"cancelled", timeout=None))
        await asyncio.sleep(0.01)
        with pytest.raises(librpc.InUse, match="a task waits for this sender"):
            to_b.send(b"x")  # in the same thread it would wait for ever
        other = asyncio.ensure_future(to_b.send_async(b"second", timeout=None))  # waits for the first
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        while (message := await inbox.recv_async()) is not None and message.payload != b"second":
            assert message.payload == bytes(64)
        await other

    run(main)


def test_two_tasks_at_one_inbox(pair: Pair) -> None:
    inbox = pair[1].inbox()

    async def main() -> None:
        waiting = asyncio.ensure_future(inbox.recv_async())
        await asyncio.sleep(0)
        with pytest.raises(librpc.InUse, match="a task waits for this inbox"):
            await inbox.recv_async()
        with pytest.raises(librpc.InUse):
            inbox.try_recv()
        inbox.stop()
        assert await waiting is None

    run(main)


def test_a_full_inbox_does_not_hold_up_the_loop(pair: Pair) -> None:
    a, b = pair
    inbox = b.inbox()
    to_b = a.connect("b", timeout=LIMIT)

    async def main() -> None:
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.ensure_future(other())
        got = 0
        to_b.send(b"x")
        async for _message in inbox:  # there is always another one
            got += 1
            if got == 1000:
                break
            to_b.send(b"x")
        assert turns >= 10
        task.cancel()

    run(main)


def test_closing_ends_what_waits(pair: Pair) -> None:
    a, b = pair
    inbox = b.inbox()

    async def main() -> None:
        waiting = asyncio.ensure_future(inbox.recv_async())
        connecting = asyncio.ensure_future(a.connect_async("nobody"))
        await asyncio.sleep(0)
        inbox.close()
        assert await waiting is None
        with pytest.raises(librpc.Closed):
            await inbox.recv_async()
        a.close()
        with pytest.raises(librpc.Closed):
            await connecting

    run(main)


def test_an_operation_that_was_never_awaited(pair: Pair) -> None:
    inbox = pair[1].inbox()
    coroutine = inbox.recv_async()
    coroutine.close()
    assert inbox.try_recv() is None


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_loop_that_was_closed_with_tasks_that_wait(pair: Pair) -> None:
    a, b = pair
    inbox = b.inbox()
    loop = asyncio.new_event_loop()
    task: asyncio.Task[Any] = loop.create_task(inbox.recv_async())
    loop.run_until_complete(asyncio.sleep(0))
    loop.run_until_complete(asyncio.sleep(0))
    with pytest.raises(librpc.InUse):
        inbox.try_recv()
    loop.close()
    kept = weakref.ref(loop)
    del loop, task
    gc.collect()
    assert kept() is None, "the loop is kept"
    a.connect("b", timeout=LIMIT).send(b"x")
    message = inbox.recv(timeout=LIMIT)
    assert message is not None and message.payload == b"x"


def test_several_loops(pair: Pair) -> None:
    """In turn, and at once in threads."""
    a, b = pair
    results: list[bytes] = []

    def loop(name: str) -> None:
        async def main() -> None:
            inbox = b.subscribe(name)
            publisher = a.publisher(name)
            for _ in range(20):
                waiting = asyncio.ensure_future(inbox.recv_async())
                await asyncio.sleep(0)
                await publisher.publish_async(name.encode())
                message = await waiting
                assert message is not None
                results.append(message.payload)

        run(main)

    threads = [threading.Thread(target=loop, args=(f"t{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    loop("again")
    loop("again")
    assert len(results) == 120


def test_the_library_never_waits_for_python(domain: str, child: Callable[[str], Child], tmp_path: Path) -> None:
    """Its thread wakes tasks, logs and goes on, while another thread keeps the GIL."""
    file = tmp_path / "shared"
    file.write_bytes(bytes(4096))
    other = child(
        f"""
        import mmap
        sys.stdin.readline()
        with open({str(file)!r}, "r+b") as file, mmap.mmap(file.fileno(), 4096) as shared:
            with librpc.Node("a", domain=domain) as a, librpc.Node("c", domain=domain) as c:
                a.connect("b", timeout=10).send(b"wakes the task")
                to_b = c.connect("b", timeout=10)
                to_b.send(bytes(1 << 20), timeout=10)  # the other side has to map memory for this
                shared[0] = 1
                say("sent")
                sys.stdin.readline()
        """
    )

    async def main() -> None:
        waiting = asyncio.ensure_future(inbox.recv_async())
        await asyncio.sleep(0)
        interval = sys.getswitchinterval()
        sys.setswitchinterval(1000)  # from now on, this thread gives the GIL away only if it waits
        try:
            other.tell()
            deadline = time.monotonic() + LIMIT
            while shared[0] == 0 and time.monotonic() < deadline:
                pass
            assert shared[0] == 1
        finally:
            sys.setswitchinterval(interval)
        message = await waiting
        assert message is not None and message.payload == b"wakes the task"

    logging.getLogger("librpc").setLevel(logging.DEBUG)
    with (
        librpc.Node("b", domain=domain) as node,
        node.inbox() as inbox,
        file.open("r+b") as opened,
        mmap.mmap(opened.fileno(), 4096) as shared,
    ):
        run(main)
        assert other.line() == "sent"
    logging.getLogger("librpc").setLevel(logging.NOTSET)
    other.tell()
    other.end()


USED = """
import asyncio
from pathlib import Path
def used():
    total = 0
    for task in Path("/proc/self/task").iterdir():
        status = (task / "status").read_text()
        total += int(status.split("\\nvoluntary_ctxt_switches:")[1].split()[0])
    return total
"""

IDLE = (
    USED
    + """
async def main():
    with librpc.Node("b", domain=domain) as node:
        inboxes = [node.subscribe(f"topic/{n}") for n in range(100)]
        waiting = [asyncio.ensure_future(inbox.recv_async()) for inbox in inboxes]
        await asyncio.sleep(0.2)
        before = used()
        await asyncio.sleep(0.5)  # what is measured
        after = used()
        say(after - before)
        line = await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
        for message in await asyncio.gather(*waiting):
            assert message.payload == message.topic.encode()
        say("all")
asyncio.run(main())
"""
)

CALLS = (
    USED
    + """
async def main():
    with librpc.Node("a", domain=domain) as a, librpc.Node("b", domain=domain) as b:
        server, client = b.serve("s"), a.client("s")
        calls = [asyncio.ensure_future(client.call_async(b"x")) for _ in range(5)]
        requests = [await server.recv_async() for _ in calls]
        receives = [asyncio.ensure_future(server.recv_async()) for _ in range(5)]
        await asyncio.sleep(0.2)
        before = used()
        await asyncio.sleep(0.5)  # what is measured
        after = used()
        for request in requests:
            request.reply(b"y")
        assert [reply.payload for reply in await asyncio.gather(*calls)] == [b"y"] * 5
        server.stop()
        assert await asyncio.gather(*receives) == [None] * 5
        say(after - before)
asyncio.run(main())
"""
)


def test_a_hundred_inboxes_that_are_idle_cost_nothing(domain: str, child: Callable[[str], Child]) -> None:
    other = child(IDLE)
    woken = int(other.line())
    assert woken <= 5, f"its threads have woken {woken} times"  # the loop itself, once, for its timer
    other.tell()
    with librpc.Node("a", domain=domain) as node:
        publishers = [node.publisher(f"topic/{n}") for n in range(100)]
        for publisher in publishers:
            assert publisher.publish(publisher.topic.encode(), timeout=LIMIT).inboxes == 1
        assert other.line() == "all"
    other.end()


def test_tasks_that_wait_for_calls_cost_nothing(child: Callable[[str], Child]) -> None:
    other = child(CALLS)
    assert int(other.line()) <= 5
    other.end()
