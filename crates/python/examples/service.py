"""A service, and what its clients learn when something goes wrong."""

import librpc


def divide(request: librpc.Request) -> None:
    a, b = request.json()
    if b == 0:
        raise librpc.Failed("division by zero", code=7)
    request.reply_json(a / b)


def main() -> None:
    with librpc.Node("calculator") as calculator, librpc.Node("user") as user:
        server = calculator.serve("divide", divide, threads=2)
        client = user.client("divide")
        print(client.call_json([1, 4], timeout=10))
        try:
            client.call_json([1, 0], timeout=10)
        except librpc.Failed as error:
            print(f"code {error.code}: {error.text}")
        server.close()
        try:
            client.call_json([1, 4], timeout=10)
        except (librpc.NoServer, librpc.ServerDied) as error:  # died: the client had not heard yet that it was closed
            print(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
