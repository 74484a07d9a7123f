"""asyncio: an inbox, a publisher and calls in one thread, without polling."""

import asyncio

import librpc


async def main() -> None:
    with librpc.Node("robot") as node:
        readings = node.subscribe("sensor/**", receive_own=True)

        async def measure() -> None:
            publisher = node.publisher("sensor/kitchen/temperature")
            for number in range(5):
                await publisher.publish_async(b"%.1f" % (20 + number / 2))
            await publisher.publish_async(b"")

        async def double(request: librpc.Request) -> bytes:
            await asyncio.sleep(0.01)  # other requests go on meanwhile
            return request.payload * 2

        server = node.serve("double", double)
        client = node.client("double")
        measuring = asyncio.create_task(measure())
        async for message in readings:
            if not message.payload:
                break
            print(message.topic, message.payload.decode())
        await measuring
        replies = await asyncio.gather(*(client.call_async(b"%d" % n, timeout=10) for n in range(5)))
        print([reply.payload.decode() for reply in replies])
        server.close()


if __name__ == "__main__":
    asyncio.run(main())
