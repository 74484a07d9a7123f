"""Awaiting the library's futures in asyncio: one descriptor per loop, and no polling."""

from __future__ import annotations

import asyncio
import weakref
from typing import Any

from librpc._librpc import Operation, Wakeups


# After this many operations in a row that need not wait, others have their turn.
_AT_ONCE = 64


class _Loop:
    """What waits in one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.wakeups = Wakeups()
        self.waiting: dict[int, asyncio.Future[None]] = {}
        self.last = 0
        self.at_once = 0
        # Only the loop keeps this, until it is closed, and the tasks that wait. These keep the loop: so nothing else may keep this.
        loop.add_reader(self.wakeups.fileno(), _wake, self)

    def number(self) -> int:
        self.last += 1
        return self.last


def _wake(here: _Loop) -> None:
    for number in here.wakeups.take():
        future = here.waiting.get(number)
        if future is not None and not future.done():
            future.set_result(None)


_loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, weakref.ref[_Loop]] = weakref.WeakKeyDictionary()


def _of(loop: asyncio.AbstractEventLoop) -> _Loop:
    known = _loops.get(loop)
    here = known() if known is not None else None
    if here is None:
        here = _Loop(loop)
        _loops[loop] = weakref.ref(here)
    return here


async def drive(operation: Operation) -> Any:
    """Polls an operation until it is done. It ends with this, also if the task is cancelled."""
    loop = asyncio.get_running_loop()
    here = _of(loop)
    number = here.number()
    try:
        if here.at_once >= _AT_ONCE:
            here.at_once = 0
            await asyncio.sleep(0)  # before anything is taken: a task that is cancelled here loses nothing
        here.at_once += 1
        while True:
            # It is there before the operation is polled: what wakes it from now on is not lost.
            future = here.waiting[number] = loop.create_future()
            done = operation.poll(here.wakeups, number)
            if done is not None:
                return done[0]
            here.at_once = 0
            await future
    finally:
        here.waiting.pop(number, None)
        operation.close()


async def drive_next(operation: Operation) -> Any:
    """The same for an iteration, which `None` ends."""
    item = await drive(operation)
    if item is None:
        raise StopAsyncIteration
    return item
