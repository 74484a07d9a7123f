"""The first message between two processes: `python -m librpc.demo`."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

import librpc

RECEIVE = """
import os, sys, librpc
with librpc.Node("display", domain=sys.argv[1]) as node, node.inbox() as inbox:
    message = inbox.recv(timeout=30)
    print(f"process {os.getpid()} got {message.payload.decode()!r} from {message.sender}, process {message.peer.pid}", flush=True)
"""


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="librpc_demo_", dir="/dev/shm") as parent:
        domain = os.path.join(parent, "domain")
        with (
            subprocess.Popen([sys.executable, "-c", RECEIVE, domain]) as display,
            librpc.Node("camera", domain=domain) as node,
        ):
            to_display = node.connect("display", timeout=30)  # waits for it to appear
            to_display.send(b"hello")
            print(f"process {os.getpid()} has sent a message", flush=True)
            to_display.flush(timeout=30)
            print("and it was processed", flush=True)
            display.wait()


if __name__ == "__main__":
    main()
