"""HTTP to one host: which may be spoken to, the key that goes there and nowhere else, and one exchange at a time."""

import ipaddress
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Self, final
from urllib.parse import urlsplit

from drllama.errors import MissingExtra, RecipeError, TeacherFailure
from drllama.types import FailureKind

if TYPE_CHECKING:
    import aiohttp

LONGEST_CONNECT_SECONDS = 10.0
OPENAI_HOST = "api.openai.com"
OPENAI_KEY = "OPENAI_API_KEY"
# A shorter "key" is a word that a local server was given to be content, and may well stand in a reply.
_SHORTEST_SECRET = 8


def host_of(base_url: str) -> str:
    """Return the host that a base URL names.

    Raises:
        RecipeError: it isn't an http(s) address, or it carries a password or a query.
    """
    try:
        parts = urlsplit(base_url)
        is_address = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        has_secret = parts.username is not None or parts.password is not None or bool(parts.query or parts.fragment)
    except ValueError:
        # Not a port, or half an IPv6 address; what stands before an @ may still be a secret.
        is_address, has_secret = False, "@" in base_url or "?" in base_url
    if has_secret:
        # Not quoted: what stands there may be a secret.
        raise RecipeError(
            "teacher.base_url must not hold a user name, a password or a query; put the key into the environment "
            "variable that teacher.api_key_env names"
        )
    if not is_address:
        raise RecipeError(f"teacher.base_url {base_url!r} is not an address such as https://api.openai.com/v1")
    return str(parts.hostname)


def is_this_machine(host: str) -> bool:
    """Return whether the host is a loopback name or address.

    >>> is_this_machine("127.0.0.1"), is_this_machine("localhost"), is_this_machine("localhost.example")
    (True, True, False)
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def check_host(base_url: str, allow_hosts: Collection[str]) -> str:
    """Return the host that a base URL names, if text may be sent there.

    Raises:
        RecipeError: it is another machine, and not allowed by name.
    """
    host = host_of(base_url)
    if not is_this_machine(host) and host.lower() not in {allowed.lower() for allowed in allow_hosts}:
        raise RecipeError(
            f"nothing may be sent to {host}: it isn't in allow_hosts ({', '.join(sorted(allow_hosts)) or 'empty'}); "
            f"add {host} there if your text may leave this machine for it"
        )
    return host


def key_variable(host: str, api_key_env: str | None) -> str | None:
    """Return which environment variable holds the key for a host; None: this machine's server gets none.

    Raises:
        RecipeError: none is named for another host than OpenAI's own; a key must not go where it wasn't meant for.
    """
    if api_key_env is not None or is_this_machine(host):
        return api_key_env
    if host == OPENAI_HOST:
        return OPENAI_KEY
    raise RecipeError(
        f"no key is named for {host}: set teacher.api_key_env to the environment variable that holds it "
        f"({OPENAI_KEY} is only for {OPENAI_HOST}, unless named)"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a server answered, whatever its status; the key is cut out."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes


@final
class HttpClient:
    """Exchanges with one host; ``async with HttpClient(...) as client``.

    Nothing is retried, redirects aren't followed, proxies and passwords of the environment aren't used. The key is
    read from the environment for each request, kept nowhere, and cut out of whatever the server says.
    """

    def __init__(
        self,
        base_url: str,
        *,
        api_key_env: str | None,
        allow_hosts: Collection[str],
        timeout_seconds: float,
        max_in_flight: int,
    ) -> None:
        """Check where requests would go; nothing is opened before the first one.

        Raises:
            RecipeError: the host isn't allowed, or has no key named for it.
        """
        self.host = check_host(base_url, allow_hosts)
        self.base_url = base_url.rstrip("/")
        self.key_variable = key_variable(self.host, api_key_env)
        self._timeout_seconds = timeout_seconds
        self._connect_seconds = min(timeout_seconds, LONGEST_CONNECT_SECONDS)
        self._max_in_flight = max_in_flight
        self._session: aiohttp.ClientSession | None = None

    def __repr__(self) -> str:
        return f"HttpClient({self.base_url!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def exchange(
        self, method: str, path: str, *, body: bytes | None = None, content_type: str = "application/json"
    ) -> Answer:
        """Return what the server answers to one request that is sent once; ``path`` begins with a slash.

        Raises:
            TeacherFailure: the key is missing or broken, the connection broke, or the time was up.
        """
        outcome = await self._exchange(method, path, body, content_type)
        if isinstance(outcome, TeacherFailure):
            # Raised here, far from the library's own error and from the frame that knew the key.
            raise outcome
        return outcome

    def scrubbed(self, text: str) -> str:
        """Return a text without the key: JSON may spell it so that it is seen only after reading."""
        key = self._key()
        return text if isinstance(key, TeacherFailure) or not _is_secret(key) else text.replace(key, "***")

    async def _exchange(self, method: str, path: str, body: bytes | None, content_type: str) -> Answer | TeacherFailure:
        key = self._key()
        if isinstance(key, TeacherFailure):
            return key
        session = self._opened()
        import aiohttp

        headers = {"Content-Type": content_type} if body is not None else {}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        try:
            async with session.request(
                method, self.base_url + path, data=body, headers=headers, allow_redirects=False
            ) as response:
                raw = await response.read()
        except aiohttp.ConnectionTimeoutError:
            line = f"{self.base_url} couldn't be reached within {self._connect_seconds:g} s"
            return TeacherFailure(line, kind=FailureKind.TIMEOUT)
        except TimeoutError:
            line = f"{self.base_url} gave no answer within {self._timeout_seconds:g} s (teacher.timeout_seconds)"
            return TeacherFailure(line, kind=FailureKind.TIMEOUT)
        except (aiohttp.ClientError, OSError) as error:
            # The error's name alone: its words may quote a header.
            line = f"{self.base_url}: the connection broke ({type(error).__name__})"
            return TeacherFailure(line, kind=FailureKind.TRANSIENT)
        told = {name.lower(): value for name, value in response.headers.items()}
        if _is_secret(key):
            told = {name: value.replace(key, "***") for name, value in told.items()}
            raw = raw.replace(key.encode(), b"***")
        return Answer(status=response.status, headers=told, body=raw)

    def _key(self) -> str | TeacherFailure:
        """Return the key, empty for a local server without one."""
        name = self.key_variable
        if name is None:
            return ""
        key = os.environ.get(name, "").strip()
        if not key and not is_this_machine(self.host):
            return TeacherFailure(
                f"the key for {self.base_url} is read from the environment variable {name}, which isn't set; "
                "set it, or name another variable in teacher.api_key_env",
                kind=FailureKind.AUTH,
            )
        if not (key.isascii() and key.isprintable()) or " " in key:
            return TeacherFailure(
                f"the environment variable {name} holds characters that no key has; set it anew",
                kind=FailureKind.AUTH,
            )
        return key

    def _opened(self) -> "aiohttp.ClientSession":
        if self._session is None:
            try:
                import aiohttp
            except ImportError as error:
                raise MissingExtra("an HTTP teacher needs aiohttp; install it with: pip install aiohttp") from error
            self._session = aiohttp.ClientSession(
                # As many as may be in flight: the library's own limit of 100 would be a second, hidden queue.
                connector=aiohttp.TCPConnector(limit=self._max_in_flight),
                timeout=aiohttp.ClientTimeout(total=self._timeout_seconds, sock_connect=self._connect_seconds),
                headers={"Accept": "application/json", "User-Agent": "drllama"},
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
            )
        return self._session


def _is_secret(key: str) -> bool:
    return len(key) >= _SHORTEST_SECRET
