#!/usr/bin/env python3
"""What the bindings cost, as a table: `python bench.py`, best with a wheel of the release profile."""

from __future__ import annotations

import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import librpc
import numpy as np

MIB = 1 << 20
NUMBER = 1_000_000

RECEIVER = """
import sys, time, librpc
how, number = sys.argv[2], int(sys.argv[3])
with librpc.Node("b", domain=sys.argv[1]) as node, node.inbox() as inbox:
    inbox.recv()
    recv = inbox.recv
    begin = time.perf_counter()
    if how == "recv":
        for _ in range(number):
            recv()
    else:
        left = number
        while left:
            left -= len(inbox.recv_many(min(left, 256)))
    print(number / (time.perf_counter() - begin))
"""

WAITING = """
import sys, time, librpc
with librpc.Node("b", domain=sys.argv[1]) as node, node.inbox() as inbox:
    print("ready", flush=True)
    try:
        inbox.recv()
    except KeyboardInterrupt:
        print(time.monotonic_ns(), flush=True)
"""

TASKS = """
import asyncio, resource, sys, librpc
async def main():
    with librpc.Node("b", domain=sys.argv[1]) as node:
        inboxes = [node.subscribe(f"topic/{n}") for n in range(100)]
        waiting = [asyncio.ensure_future(inbox.recv_async()) for inbox in inboxes]
        await asyncio.sleep(1)
        def used():
            usage = resource.getrusage(resource.RUSAGE_SELF)
            return usage.ru_utime + usage.ru_stime
        before = used()
        await asyncio.sleep(5)
        print(used() - before)
        for task in waiting:
            task.cancel()
asyncio.run(main())
"""


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return f"{line.split(':', 1)[1].strip()}, {os.cpu_count()} processors"
    return platform.machine()


def start(script: str, domain: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", script, domain, *arguments], stdout=subprocess.PIPE, text=True)


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def messages(domain: str, how: str) -> float:
    """Small messages per second, from one process to another."""
    with librpc.Node("a", domain=domain) as node:
        other = start(RECEIVER, domain, how, str(NUMBER))
        to_b = node.connect("b", timeout=30)
        send, payload = to_b.send, b"x" * 64
        send(payload)
        if how == "recv":
            for _ in range(NUMBER):
                send(payload)
        else:
            batch = [payload] * 256
            left = NUMBER
            while left:
                left -= to_b.send_many(batch[: min(left, 256)], timeout=30)
        rate = float(said(other))
        other.wait()
        return rate


def frames(domain: str) -> tuple[float, float, bool]:
    """8 MiB into an array, receive included, and an array on a sample that was received: medians. Whether both arrays are at one address."""
    with librpc.Node("a", domain=domain) as a, librpc.Node("b", domain=domain) as b:
        inbox, publisher = b.subscribe("camera"), a.publisher("camera")
        received, viewed, same = [], [], True
        frame = np.ones(8 * MIB, dtype="u1")
        for _ in range(200):
            publisher.publish(frame, timeout=30)
            begin = time.perf_counter()
            sample = inbox.recv_sample()
            assert sample is not None
            between = time.perf_counter()
            array = np.frombuffer(sample, dtype="u1")
            end = time.perf_counter()
            received.append(end - begin)
            viewed.append(end - between)
            same &= array.ctypes.data == np.frombuffer(sample, dtype="u1").ctypes.data and array[-1] == 1
            del array, sample
    return statistics.median(received), statistics.median(viewed), same


def interrupts(domain: str) -> list[float]:
    """How long a receive goes on after Ctrl-C, just begun and asleep."""
    times = []
    for n in range(20):
        other = start(WAITING, domain)
        assert said(other) == "ready"
        time.sleep(0.01 * n)
        begin = time.monotonic_ns()
        other.send_signal(signal.SIGINT)
        times.append((int(said(other)) - begin) / 1e9)
        other.wait()
    return times


def calls(domain: str) -> float:
    """One call and its reply, between two processes: the median."""
    script = """
import sys, librpc
with librpc.Node("b", domain=sys.argv[1]) as node:
    node.serve("echo").run(lambda request: request.payload)
"""
    with librpc.Node("a", domain=domain) as node:
        other = start(script, domain)
        client = node.client("echo")
        client.wait_for_server(timeout=30)
        times = []
        for _ in range(5000):
            begin = time.perf_counter()
            client.call(b"x" * 64, timeout=30)
            times.append(time.perf_counter() - begin)
        other.kill()
        other.wait()
    return statistics.median(times)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="librpc_bench_", dir="/dev/shm") as parent:
        domain = os.path.join(parent, "domain")
        whole, view, same = frames(domain)
        ctrl_c = interrupts(domain)
        idle = start(TASKS, domain)
        used = float(said(idle))
        idle.wait()
        rows = [
            ("8 MiB, recv_sample and np.frombuffer", f"{whole * 1e6:.1f} µs", "< 30 µs"),
            ("8 MiB, np.frombuffer alone", f"{view * 1e6:.1f} µs", ""),
            ("all arrays at the address of the shared memory", "yes" if same else "NO", "yes"),
            ("messages of 64 bytes, send and recv", f"{messages(domain, 'recv'):,.0f} /s", ">= 200,000 /s"),
            ("the same, send_many and recv_many", f"{messages(domain, 'many'):,.0f} /s", ""),
            ("a call and its reply", f"{calls(domain) * 1e6:.1f} µs", ""),
            ("Ctrl-C ends a receive, longest of 20", f"{max(ctrl_c) * 1e3:.1f} ms", "<= 100 ms"),
            ("asyncio, 100 inboxes, idle for 5 s: CPU time", f"{used * 1e3:.1f} ms", "0"),
        ]
        librpc.clean(domain)
    print(f"{processor()}; Python {platform.python_version()}, Linux {platform.release()}")
    width = max(len(row[0]) for row in rows)
    for what, measured, goal in rows:
        print(f"{what:<{width}}  {measured:>16}  {goal}")


if __name__ == "__main__":
    main()
