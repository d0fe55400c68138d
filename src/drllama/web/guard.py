"""Who may come in: only addresses with the token, only under this machine's own name, only from our own pages."""

import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import unquote

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

NONCE = "drllama.nonce"
"""Where a request's nonce stands in its scope."""
_SAFE_METHODS = ("GET", "HEAD")


@dataclass(frozen=True)
class Guard:
    """Lets a request through to the page, or answers 403 with the reason; adds the headers that all answers have."""

    page: ASGIApp
    token: str
    hosts: Collection[str]
    """What a browser may call this server, with the port."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            # Nothing but plain requests is served here; a lifespan is the server's own business.
            if scope["type"] == "lifespan":
                await self.page(scope, receive, send)
            return
        nonce = secrets.token_urlsafe(16)
        refusal = self._refusal(scope)
        answer = PlainTextResponse(f"{refusal}\n", status_code=HTTPStatus.FORBIDDEN) if refusal else self.page

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_security_headers(nonce))
            await send(message)

        await answer({**scope, NONCE: nonce}, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> str | None:
        headers = Headers(scope=scope)
        # A page elsewhere can point a name of its own at this machine; its requests come with that name.
        if headers.get("host") not in self.hosts:
            return "This server answers only under 127.0.0.1 or localhost; use the address that drllama review printed."
        first = unquote(str(scope["path"])).removeprefix("/").partition("/")[0]
        if not secrets.compare_digest(first.encode(), self.token.encode()):
            return "The address needs the token that drllama review printed; use the whole address."
        origin = headers.get("origin")
        is_ours = origin is None or origin.removeprefix("http://") in self.hosts
        if scope["method"] not in _SAFE_METHODS and not is_ours:
            return "Another site sent this; decide on the page itself."
        return None


def _security_headers(nonce: str) -> Mapping[str, str]:
    policy = {
        "default-src": "'none'",
        "style-src": f"'nonce-{nonce}'",
        "script-src": f"'nonce-{nonce}'",
        "img-src": "data:",
        "form-action": "'self'",
        "base-uri": "'none'",
        "frame-ancestors": "'none'",
    }
    return {
        "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        # Not no-referrer: with it, browsers send forms with the origin "null", which looks like another site's.
        "Referrer-Policy": "same-origin",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-store",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
    }
