"""The server of the review page: one socket on 127.0.0.1, ended by Ctrl-C."""

import secrets
import socket
from collections.abc import Callable
from contextlib import closing, suppress

import uvicorn

from drllama.errors import DataError
from drllama.replies import RequestStore
from drllama.reviews import ReviewStore
from drllama.web.app import make_app
from drllama.web.desk import Desk

_HOST = "127.0.0.1"
_SECONDS_TO_FINISH = 3


def serve(
    desk: Desk,
    *,
    reviews: ReviewStore,
    replies: RequestStore,
    reviewer: str | None,
    port: int,
    on_ready: Callable[[str], None],
) -> None:
    """Serve the page on this machine until Ctrl-C; ``on_ready`` hears its address, with the token that it needs.

    Raises:
        DataError: the port is taken.
    """
    token = secrets.token_urlsafe(24)
    with closing(_bound(port)) as listening:
        chosen = listening.getsockname()[1]
        app = make_app(
            desk,
            reviews=reviews,
            replies=replies,
            token=token,
            hosts=(f"{_HOST}:{chosen}", f"localhost:{chosen}"),
            reviewer=reviewer,
        )
        # No access log: it would hold the token.
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_SECONDS_TO_FINISH,
        )
        on_ready(f"http://{_HOST}:{chosen}/{token}/")
        # uvicorn ends in good order at Ctrl-C, and then passes it on.
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listening])


def _bound(port: int) -> socket.socket:
    listening = socket.socket()
    # Another program's closing connections on the port don't keep it taken.
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((_HOST, port))
    except (OSError, OverflowError) as error:
        listening.close()
        raise DataError(f"--port {port}: {error}; choose another, or 0 for any that is free") from error
    # From here on a browser that is told the address waits for the server instead of being refused.
    listening.listen(128)
    return listening
