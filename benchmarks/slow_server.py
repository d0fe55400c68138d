"""A chat completions server that answers everything after a fixed time, and costs so little that clients are measured.

One thread, one epoll, one line of JSON for all: about 0.04 ms of CPU a request. The fault server of the tests reads
what it is asked and would be the slower half of the benchmark.
"""

import contextlib
import json
import selectors
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator

REPLY = json.dumps(
    {
        "id": "chatcmpl-0",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": json.dumps({"question": "Is it so? " * 20})},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 500, "completion_tokens": 50, "total_tokens": 550},
    }
).encode()
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(REPLY), REPLY)


def whole(received: bytes) -> bool:
    """Return whether a whole request is there; a client sends the next one only after the answer."""
    head, found, body = received.partition(b"\r\n\r\n")
    if not found:
        return False
    _, named, rest = head.lower().partition(b"content-length:")
    return not named or len(body) >= int(rest.partition(b"\r\n")[0])


def serve(latency_seconds: float) -> None:  # noqa: C901  small functions over one selector
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    listener.setblocking(False)
    print(f"http://127.0.0.1:{listener.getsockname()[1]}/v1", flush=True)
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    heard: dict[socket.socket, bytes] = {}
    # All wait equally long, so who came first is answered first.
    waiting: deque[tuple[float, socket.socket]] = deque()

    def accept() -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                client, _ = listener.accept()
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                client.setblocking(False)
                heard[client] = b""
                selector.register(client, selectors.EVENT_READ)

    def read(client: socket.socket) -> None:
        try:
            received = client.recv(65536)
        except ConnectionError:
            received = b""
        if not received:
            selector.unregister(client)
            del heard[client]
            client.close()
            return
        heard[client] += received
        if whole(heard[client]):
            heard[client] = b""
            waiting.append((time.monotonic() + latency_seconds, client))

    while True:
        timeout = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
        for key, _ in selector.select(timeout):
            if key.fileobj is listener:
                accept()
            else:
                read(key.fileobj)  # type: ignore[arg-type]
        while waiting and waiting[0][0] <= time.monotonic():
            _, client = waiting.popleft()
            if client in heard:
                with contextlib.suppress(ConnectionError):
                    client.sendall(ANSWER)


@contextlib.contextmanager
def slow_server(latency_seconds: float) -> Iterator[str]:
    """Run the server in a process of its own and give its URL."""
    command = [sys.executable, __file__, str(latency_seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip()
        finally:
            server.terminate()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        serve(float(sys.argv[1]))
