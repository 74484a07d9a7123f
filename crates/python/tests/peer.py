"""One side of an exchange, for the tests between languages (crates/c/test). Usage: peer.py DOMAIN ID ROLE ..."""

from __future__ import annotations

import sys

import librpc

MINUTE = 60.0
LARGE = 65_536


def fill(number: int, size: int) -> bytes:
    """A numbered payload: the number in 8 bytes, then its lowest byte throughout."""
    return number.to_bytes(8, "little") + bytes([number & 255]) * (size - 8)


def number_of(payload: bytes) -> int:
    number = int.from_bytes(payload[:8], "little")
    assert payload == fill(number, len(payload)), f"a torn payload at message {number}"
    return number


def receive(inbox: librpc.Inbox, count: int) -> None:
    for expected in range(count):
        if expected % 2 == 0:
            message = inbox.recv(MINUTE)
            assert message is not None
            number = number_of(message.payload)
        else:
            sample = inbox.recv_sample(MINUTE)
            assert sample is not None
            number = number_of(bytes(sample))
        assert number == expected, f"message {number} instead of {expected}"


def watch(inbox: librpc.Inbox) -> None:
    expected = 0
    while True:
        event = inbox.recv_event(MINUTE)
        match event:
            case librpc.Message():
                number = number_of(event.payload)
                assert number == expected, f"message {number} instead of {expected}"
                expected += 1
            case librpc.events.SenderLeft(how=how):
                print("died" if how == "died" else "left", expected, flush=True)
                return
            case None:
                raise TimeoutError("nothing came")


def in_place(loan: librpc.Loan, number: int, size: int) -> librpc.Loan:
    with memoryview(loan) as memory:
        memory[:] = fill(number, size)
    return loan


def answer(request: librpc.Request) -> None:
    payload = bytes(request.payload)
    if payload == b"fail":
        request.fail(7, "as asked")
    elif payload == b"stream":
        with request.stream() as stream:
            for part in range(100):
                stream.send(part.to_bytes(8, "little"))
            stream.finish()
    else:
        request.reply(payload)


def call_all(client: librpc.Client, count: int, size: int) -> None:
    for number in range(count):
        assert bytes(client.call(fill(number, size), MINUTE).payload) == fill(number, size)
    try:
        client.call(b"fail", MINUTE)
        raise AssertionError("no failure")
    except librpc.Failed as failed:
        assert failed.code == 7
    parts = [int.from_bytes(bytes(part.payload), "little") for part in client.call_stream(b"stream", MINUTE)]
    assert parts == list(range(100)), parts


def main(domain: str, ident: str, role: str, *rest: str) -> None:
    with librpc.Node(ident, domain=domain) as node:
        match role, rest:
            case "recv", [count]:
                with node.inbox() as inbox:
                    print("ready", flush=True)
                    receive(inbox, int(count))
            case "watch", []:
                with node.inbox() as inbox:
                    print("ready", flush=True)
                    watch(inbox)
            case "sub", [pattern, count]:
                with node.subscribe(pattern) as inbox:
                    print("ready", flush=True)
                    receive(inbox, int(count))
            case "send", [to, count, size]:
                sender = node.connect(to, MINUTE)
                for number in range(int(count)):
                    if int(size) >= LARGE and number % 2 == 1:
                        in_place(sender.loan(int(size)), number, int(size)).send()
                    else:
                        sender.send(fill(number, int(size)))
                    if number == 0:
                        print("begun", flush=True)
                sender.flush(MINUTE)
            case "pub", [topic, count, size]:
                publisher = node.publisher(topic)
                assert publisher.wait_for_subscriber(MINUTE)
                for number in range(int(count)):
                    if int(size) >= LARGE and number % 2 == 1:
                        receipt = in_place(publisher.loan(int(size)), number, int(size)).publish()
                    else:
                        receipt = publisher.publish(fill(number, int(size)))
                    assert receipt.inboxes == 1, receipt
                    if number == 0:
                        print("begun", flush=True)
                publisher.flush(MINUTE)
            case "serve", [service]:
                with node.serve(service) as server:
                    print("ready", flush=True)
                    for request in server:
                        answer(request)
            case "call", [service, count, size]:
                client = node.client(service)
                assert client.wait_for_server(MINUTE)
                call_all(client, int(count), int(size))
            case _:
                raise SystemExit(f"no role {role} with {rest}")
    print("done", flush=True)


main(*sys.argv[1:])
