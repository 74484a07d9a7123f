"""Two processes and one message: `python hello.py display` in one terminal, `python hello.py camera` in another."""

import sys

import librpc


def display() -> None:
    with librpc.Node("display") as node, node.inbox() as inbox:
        for message in inbox:
            print(f"{message.sender}: {message.payload!r}")
            break


def camera() -> None:
    with librpc.Node("camera") as node:
        to_display = node.connect("display")  # waits for it to appear
        to_display.send(b"hello")  # accepted: this process may die now
        to_display.flush(timeout=10)  # processed


if __name__ == "__main__":
    {"display": display, "camera": camera}[sys.argv[1]]()
