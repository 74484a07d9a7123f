"""What the tests share: a domain of its own for each test, and other processes."""

from __future__ import annotations

import gc
import itertools
import os
import select
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import librpc
import pytest

_numbers = itertools.count()
LIMIT = 10.0  # of whatever must happen


@pytest.fixture
def domain() -> Iterator[str]:
    """A domain, of which nothing is left at the end."""
    path = f"/dev/shm/librpc_test_{os.getpid()}_{next(_numbers)}"
    yield path
    gc.collect()
    if os.path.exists(path):
        librpc.clean(path)  # of processes that were killed
    assert not os.path.exists(path), f"{path} is left: {os.listdir(path)}"


# A shell's background job ignores Ctrl-C, and so do its children: here they do not.
PRELUDE = """import os, signal, sys, librpc
signal.signal(signal.SIGINT, signal.default_int_handler)
domain = sys.argv[1]
say = lambda *it: print(*it, flush=True)
"""


class Child:
    """A process that runs a script. It prints a line when it has come so far, and reads lines."""

    def __init__(self, script: str, domain: str) -> None:
        code = PRELUDE + textwrap.dedent(script)
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, domain], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.read = b""

    @property
    def pid(self) -> int:
        return self.process.pid

    def line(self) -> str:
        """The next line that it prints."""
        assert self.process.stdout is not None
        descriptor = self.process.stdout.fileno()  # not the stream, which may have read more than a line
        while b"\n" not in self.read:
            ready, _, _ = select.select([descriptor], [], [], LIMIT)
            assert ready, "the process says nothing"
            more = os.read(descriptor, 65536)
            assert more, f"the process has ended after {self.read!r}"
            self.read += more
        line, self.read = self.read.split(b"\n", 1)
        return line.decode()

    def tell(self, line: str = "") -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(LIMIT)

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def end(self) -> None:
        """It ends by itself, and well."""
        assert self.process.wait(LIMIT) == 0

    def wait_until_it_sleeps(self) -> None:
        """Until its main thread does nothing, for some looks in a row."""
        quiet = 0
        last = ""
        deadline = time.monotonic() + LIMIT
        while quiet < 20:
            assert time.monotonic() < deadline, "it never sleeps"
            fields = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
            now = " ".join([fields[0], fields[11], fields[12]])  # state, and the time that it has used
            quiet = quiet + 1 if now == last and fields[0] == "S" else 0
            last = now
            select.select([], [], [], 0.005)


@pytest.fixture
def child(domain: str) -> Iterator[Callable[[str], Child]]:
    """Starts processes in the test's domain."""
    children: list[Child] = []

    def start(script: str) -> Child:
        children.append(Child(script, domain))
        return children[-1]

    yield start
    for one in children:
        one.kill()
        for stream in (one.process.stdin, one.process.stdout):
            assert stream is not None
            stream.close()


@pytest.fixture
def pair(domain: str) -> Iterator[tuple[librpc.Node, librpc.Node]]:
    """Two nodes."""
    with librpc.Node("a", domain=domain) as a, librpc.Node("b", domain=domain) as b:
        yield a, b


def until(condition: Callable[[], bool], what: str) -> None:
    """Waits for a state."""
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline, what
        select.select([], [], [], 0.001)
