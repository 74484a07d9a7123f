"""Frames as numpy arrays, which are not copied on either side."""

# %% A camera fills memory that its viewers read.
import multiprocessing

import librpc
import numpy as np

HEIGHT, WIDTH, FRAMES = 1080, 1920, 30


def camera() -> None:
    with librpc.Node("camera") as node:
        publisher = node.publisher("camera/front")
        publisher.wait_for_subscriber(timeout=30)
        for number in range(FRAMES):
            loan = publisher.loan(HEIGHT * WIDTH * 3, zero=False)
            frame = np.frombuffer(loan, dtype="u1").reshape(HEIGHT, WIDTH, 3)
            frame[:] = number  # such as what a driver writes
            del frame  # while an array is on it, a loan is not published
            receipt = publisher.publish(loan)
            assert receipt.inboxes == 1, receipt.undelivered
        publisher.flush(timeout=30)


# %% A viewer reads them where they are.
def viewer() -> None:
    with librpc.Node("viewer") as node, node.subscribe("camera/*") as frames:
        for number in range(FRAMES):
            sample = frames.recv_sample(timeout=30)
            assert sample is not None
            frame = np.frombuffer(sample, dtype="u1").reshape(HEIGHT, WIDTH, 3)
            assert frame[0, 0, 0] == frame[-1, -1, -1] == number
        print(f"{FRAMES} frames of {frame.nbytes / 1e6:.1f} MB, the last one of shade {frame.mean():.0f}")


# %% Each in a process of its own.
if __name__ == "__main__":
    processes = [multiprocessing.get_context("spawn").Process(target=target) for target in (viewer, camera)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
