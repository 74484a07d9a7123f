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


def _is_async(handler: Callable[[Request], Any]) -> bool:
    """Whether it is `async def`, or an object whose call is."""
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(getattr(type(handler), "__call__", None))


def check(handler: Callable[[Request], Any], threads: int) -> None:
    """Whether `start` can be called, before anybody finds the server."""
    if not callable(handler):
        raise TypeError(f"a handler is a function, not {type(handler).__name__}")
    if threads < 1:
        raise ValueError(f"a service has at least one thread, not {threads}")
    if _is_async(handler):
        asyncio.get_running_loop()


def start(server: Server, handler: Callable[[Request], Any], threads: int) -> None:
    """Serves in threads, or, if the handler is `async def`, in a task of the running loop."""
    if _is_async(handler):
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
    if _is_async(handler):
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
        except BaseException as error:
            if threading.current_thread() is threading.main_thread():
                raise  # Ctrl-C, or a handler that ends the program
            _fail(request, error)  # `sys.exit()` ends a thread only: the service would be there, and never answer again
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
    if inspect.iscoroutine(answer):
        answer.close()
        raise TypeError("the handler has returned a coroutine: a handler that is to be awaited is an `async def` function itself")
    if request.is_answered:
        raise TypeError("the handler has answered the request, and returned another answer")
    request.reply(answer)


def _text(error: BaseException) -> str:
    """What an exception says, as text that can be sent: it may be about a file whose name is not UTF-8."""
    try:
        text = (error.text if isinstance(error, Failed) else None) or str(error)
    except Exception:
        text = "(it cannot say why)"
    return text.encode("utf-8", "backslashreplace").decode()


def _code(error: Failed) -> int:
    """A code is a number of 32 bits."""
    code = error.code
    return code if isinstance(code, int) and -(2**31) <= code < 2**31 else 1


def _fail(request: Request, error: BaseException) -> None:
    """The client learns what has happened. Never fails itself: the thread has further requests."""
    try:
        if request.is_answered:
            _log.warning("a handler failed after its answer", exc_info=error)
        elif isinstance(error, Failed):
            request.fail(_code(error), _text(error))
        else:
            _log.warning("a handler has failed", exc_info=error)
            request.fail(1, f"{type(error).__name__}: {_text(error)}")
    except Error as cause:
        _log.info("a client could not be answered: %s", cause)
