"""How long a message takes, as a picture: `python latencies.py [FILE.png]`. Needs matplotlib."""

# %% One process answers each message with the same one.
import multiprocessing
import sys
import time

import librpc

MESSAGES = 5000


def echo() -> None:
    with librpc.Node("echo") as node, node.inbox() as inbox:
        back = node.connect("probe", timeout=30)
        for message in inbox:
            if not message.payload:
                break
            back.send(message.payload)


# %% Another measures.
def probe() -> list[float]:
    with librpc.Node("probe") as node, node.inbox() as inbox:
        there = node.connect("echo", timeout=30)
        times = []
        for _ in range(MESSAGES):
            begin = time.perf_counter()
            there.send(b"x" * 64)
            assert inbox.recv(timeout=30) is not None
            times.append((time.perf_counter() - begin) / 2 * 1e6)
        there.send(b"")
        there.flush(timeout=30)
    return times


# %% How many messages took at most so long.
def draw(times: list[float], path: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4.5))
    axes.plot(sorted(times), [100 * (n + 1) / len(times) for n in range(len(times))])
    axes.set(xscale="log", xlabel="one way, µs", ylabel="% of messages", title=f"{len(times)} messages of 64 bytes")
    axes.grid(True, which="both", alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    process = multiprocessing.get_context("spawn").Process(target=echo)
    process.start()
    measured = probe()
    process.join()
    path = sys.argv[1] if len(sys.argv) > 1 else "latencies.png"
    draw(measured, path)
    measured.sort()
    print(f"half within {measured[len(measured) // 2]:.1f} µs, 99 % within {measured[len(measured) * 99 // 100]:.1f} µs: {path}")
