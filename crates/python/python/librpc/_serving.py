"""Answering requests with what a handler returns."""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
from collections.abc import Awaitable, Callable
from typing import Any

from librpc._librpc import Request, Server
from librpc.errors import Closed, Error, Failed

_log = logging.getLogger("librpc.serving")


def check(handler: Callable[[Request], Any], threads: int) -> None:
    """Whether `start` can be called, before anybody finds the server."""
    if not callable(handler):
        raise TypeError(f"a handler is a function, not {type(handler).__name__}")
    if threads < 1:
        raise ValueError(f"a service has at least one thread, not {threads}")
    if inspect.iscoroutinefunction(handler):
        asyncio.get_running_loop()


def start(server: Server, handler: Callable[[Request], Any], threads: int) -> None:
    """Serves in threads, or, if the handler is `async def`, in a task of the running loop."""
    if inspect.iscoroutinefunction(handler):
        task = asyncio.get_running_loop().create_task(run_async(server, handler, 256))
        _tasks.add(task)
        task.add_done_callback(_tasks.discard)
        return
    for number in range(threads):
        name = f"librpc-serve-{server.service}-{number}"
        threading.Thread(target=run, args=(server, handler), name=name, daemon=True).start()


_tasks: set[asyncio.Task[None]] = set()


def run(server: Server, handler: Callable[[Request], Any]) -> None:
    """Answers requests until the server is stopped."""
    if inspect.iscoroutinefunction(handler):
        raise TypeError("an async def handler needs run_async")
    while True:
        try:
            request = server.recv()
        except Closed:
            return  # so was its node, perhaps
        if request is None:
            return
        try:
            _answer(request, handler(request))
        except Exception as error:
            _fail(request, error)
        del request  # one that nobody has kept and nobody has answered fails now


async def run_async(server: Server, handler: Callable[[Request], Awaitable[Any]], max_tasks: int) -> None:
    """Answers requests in tasks, this many at once, until the server is stopped."""
    room = asyncio.Semaphore(max_tasks)
    running: set[asyncio.Task[None]] = set()
    try:
        while True:
            await room.acquire()
            try:
                request = await server.recv_async()
            except Closed:
                break  # so was its node, perhaps
            if request is None:
                break
            task = asyncio.get_running_loop().create_task(_handle(request, handler, room))
            running.add(task)
            task.add_done_callback(running.discard)
            del request
        if running:
            await asyncio.wait(set(running))
    finally:
        for task in set(running):
            task.cancel()


async def _handle(request: Request, handler: Callable[[Request], Awaitable[Any]], room: asyncio.Semaphore) -> None:
    try:
        _answer(request, await handler(request))
    except Exception as error:
        _fail(request, error)
    except BaseException:
        if not request.is_answered:
            request.fail(1, "the server ends")
        raise
    finally:
        room.release()


def _answer(request: Request, answer: Any) -> None:
    """A handler returns the reply, or `None` if it has answered itself, or has handed the request on."""
    if answer is None:
        return
    if request.is_answered:
        raise TypeError("the handler has answered the request, and returned another answer")
    request.reply(answer)


def _fail(request: Request, error: Exception) -> None:
    """The client learns what has happened."""
    try:
        if request.is_answered:
            _log.warning("a handler failed after its answer", exc_info=error)
        elif isinstance(error, Failed):
            request.fail(1 if error.code is None else error.code, error.text or str(error))
        else:
            _log.warning("a handler has failed", exc_info=error)
            request.fail(1, f"{type(error).__name__}: {error}")
    except Error as cause:
        _log.info("a client could not be answered: %s", cause)
