"""What the library logs goes to `logging`: loggers `librpc.<module>`.

The library's own threads never wait for Python. They leave records in a bounded list, from which a thread of this module takes them.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading

from librpc import _librpc

_root = logging.getLogger("librpc")
_root.addHandler(logging.NullHandler())
_lock = threading.Lock()
_thread: threading.Thread | None = None
_ends = False


def start() -> None:
    """Starts the thread, and looks at the level that is wanted now."""
    global _thread
    _librpc._log_level(_root.getEffectiveLevel())
    if _thread is not None:
        return
    with _lock:
        if _thread is None:
            descriptor = _librpc._log_descriptor()
            _thread = threading.Thread(target=_run, args=(descriptor,), name="librpc-logging", daemon=True)
            _thread.start()


def drain() -> None:
    """Hands over what is in the list."""
    records, lost = _librpc._log_take()
    for level, target, text in records:
        logging.getLogger(target.replace("::", ".")).log(level, "%s", text)
    if lost:
        _root.warning("%d records of the library were lost, because they came too fast", lost)
    _librpc._log_level(_root.getEffectiveLevel())


def _run(descriptor: int) -> None:
    import select

    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    while not _ends:
        poll.poll()
        try:
            drain()
        except Exception:  # a handler of the program's
            logging.getLogger("librpc").debug("a record was not handed over", exc_info=True)


def _at_exit() -> None:
    global _ends
    _librpc._close_nodes(getattr(sys, "last_value", None) is not None)  # an exception has ended the program
    thread = _thread
    if thread is not None and thread.is_alive():
        _ends = True
        os.write(_librpc._log_descriptor(), (1).to_bytes(8, "little"))
        thread.join(1)
    drain()


def _in_child() -> None:
    """In a forked child, which has no such thread and no locks of its parent's."""
    global _thread, _lock
    _librpc._forked()
    _thread = None
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_in_child)
atexit.register(_at_exit)
