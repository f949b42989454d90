"""Callers who watch videos, one connection each: `python -m benchmarks.load.listeners URL IDS`.

Prints `ready` when every one has its first event; then, at the end of all streams, a line of JSON:
[video id, rev, when it arrived (Unix seconds)] for every event of every listener.
"""

import asyncio
import json
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit


class Listener:
    def __init__(self, video_id: str) -> None:
        self.video_id = video_id
        self.arrivals: list[tuple[str, int, float]] = []
        self.has_begun = asyncio.Event()

    async def listen(self, host: str, port: int) -> None:
        """Until the stream ends."""
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(
            f"GET /v1/videos/{self.video_id}/events HTTP/1.1\r\n"
            f"Host: {host}\r\nAccept: text/event-stream\r\nConnection: close\r\n\r\n".encode()
        )
        # Lines are enough: the sizes of chunks stand on lines of their own.
        async for line in reader:
            if line.startswith(b"id: "):
                rev = int(line.removeprefix(b"id: "))
                self.arrivals.append((self.video_id, rev, time.time()))
                self.has_begun.set()
        writer.close()


async def main(url: str, ids: str) -> None:
    host, port = urlsplit(url).hostname, urlsplit(url).port
    assert host is not None
    assert port is not None
    listeners = [Listener(video_id) for video_id in Path(ids).read_text().split()]
    async with asyncio.TaskGroup() as tasks:
        for listener in listeners:
            tasks.create_task(listener.listen(host, port))
        for listener in listeners:
            await listener.has_begun.wait()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
    sys.stdout.write(json.dumps([seen for listener in listeners for seen in listener.arrivals]))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
