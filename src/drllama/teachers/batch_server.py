"""The files and batches of a server that speaks OpenAI's batch dialect."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import final
from urllib.parse import quote

from drllama.errors import TeacherFailure
from drllama.teachers.answers import failure_of, one_line, refusal_of
from drllama.teachers.batch_lines import ASKED_AT, upload_form
from drllama.teachers.http import Answer, HttpClient
from drllama.teachers.retry import Sleep, retried
from drllama.types import FailureKind

ENDED = frozenset({"completed", "expired", "cancelled", "failed"})
"""States in which nothing more will come."""
_LISTED_AT_ONCE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchStatus:
    """What a server says of a batch."""

    server_id: str
    state: str
    num_done: int
    num_failed: int
    output_files: tuple[str, ...]
    """Output file and error file, as far as there are any."""
    complaints: tuple[tuple[int | None, str, str], ...]
    """Why the input wasn't accepted: line from 1 (None: not about a line), code, message."""


@final
class BatchServer:
    """Calls about files and batches, each repeated as its failure allows where a second one does no harm."""

    def __init__(self, client: HttpClient, *, seed: int, sleep: Sleep) -> None:
        self._client = client
        self._seed = seed
        self._sleep = sleep

    async def upload(self, content: bytes, *, batch_id: str) -> str:
        """Return the server's name for an input file.

        Raises:
            TeacherFailure: it wasn't accepted.
        """
        body, content_type = upload_form(content, name=f"drllama-{batch_id}")
        # A file that was uploaded twice lies there unused: only a batch makes it cost something.
        answer = await retried(
            lambda: self._sent("POST", "/files", body, content_type),
            name=f"{batch_id} upload",
            seed=self._seed,
            sleep=self._sleep,
        )
        match self._read(answer):
            case {"id": str(file_id)}:
                return file_id
            case other:
                raise self._unreadable("an uploaded file", other)

    async def create(self, file_id: str, *, batch_id: str) -> BatchStatus:
        """Return the batch that the server made of an input file, marked with our own name for it.

        Raises:
            TeacherFailure: there is no answer that tells of it; only a failure of a kind in ``UNBILLED`` says that
                there is no batch either.
        """
        wanted = {
            "input_file_id": file_id,
            "endpoint": ASKED_AT,
            "completion_window": "24h",
            "metadata": {"drllama_batch": batch_id},
        }
        answer = await retried(
            lambda: self._sent("POST", "/batches", json.dumps(wanted).encode()),
            name=f"{batch_id} create",
            seed=self._seed,
            sleep=self._sleep,
            again_after=frozenset({FailureKind.RATE}),
        )
        return self._status(self._read(answer))

    async def find(self, batch_id: str) -> BatchStatus | None:
        """Return the batch that bears our own name, None if the server has none.

        Raises:
            TeacherFailure: the server doesn't list its batches.
        """
        after = ""
        while True:
            page = await self._get(f"/batches?limit={_LISTED_AT_ONCE}{after}")
            match page:
                case {"data": [*batches]}:
                    pass
                case _:
                    raise self._unreadable("a list of batches", page)
            for batch in batches:
                match batch:
                    case {"metadata": {"drllama_batch": str(name)}} if name == batch_id:
                        return self._status(batch)
            match page, batches:
                case {"has_more": True}, [*_, {"id": str(last)}]:
                    after = f"&after={quote(last, safe='')}"
                case _:
                    return None

    async def status(self, server_id: str) -> BatchStatus:
        """Return how a batch stands.

        Raises:
            TeacherFailure: the server doesn't tell.
        """
        return self._status(await self._get(f"/batches/{quote(server_id, safe='')}"))

    async def content(self, file_id: str) -> bytes:
        """Return a file's bytes.

        Raises:
            TeacherFailure: the server doesn't give it.
        """
        return (await self._got(f"/files/{quote(file_id, safe='')}/content")).body

    async def _get(self, path: str) -> Mapping[str, object]:
        return self._read(await self._got(path))

    async def _got(self, path: str) -> Answer:
        return await retried(lambda: self._sent("GET", path, None), name=path, seed=self._seed, sleep=self._sleep)

    async def _sent(self, method: str, path: str, body: bytes | None, content_type: str = "application/json") -> Answer:
        answer = await self._client.exchange(method, path, body=body, content_type=content_type)
        if 200 <= answer.status < 300:
            return answer
        who = f"{self._client.base_url}{path.partition('?')[0]}"
        refusal = refusal_of(answer.status, answer.headers, answer.body)
        failure = failure_of(refusal, who=who, key_env=self._client.key_variable, now=datetime.now(UTC))
        way_out = ""
        if path == "/files" and answer.status in {404, 405}:
            way_out = "; if this server has no batches, set teacher.openai-compatible.batch to false"
        raise TeacherFailure(
            self._client.scrubbed(str(failure)) + way_out,
            kind=failure.kind,
            retry_after_seconds=failure.retry_after_seconds,
        )

    def _read(self, answer: Answer) -> Mapping[str, object]:
        try:
            value = json.loads(answer.body)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise self._unreadable("JSON", answer.body.decode("utf-8", "replace"))
        return value

    def _status(self, batch: object) -> BatchStatus:
        match batch:
            case {"id": str(server_id), "status": str(state), **rest}:
                done, failed = _counts(batch)
                files = (rest.get("output_file_id"), rest.get("error_file_id"))
                return BatchStatus(
                    server_id=server_id,
                    state=state,
                    num_done=done,
                    num_failed=failed,
                    output_files=tuple(name for name in files if isinstance(name, str) and name),
                    complaints=tuple(
                        (line, code, self._client.scrubbed(message)) for line, code, message in _complaints(batch)
                    ),
                )
            case _:
                raise self._unreadable("a batch", batch)

    def _unreadable(self, wanted: str, found: object) -> TeacherFailure:
        said = found if isinstance(found, str) else json.dumps(found, ensure_ascii=False)
        line = f"{self._client.base_url} answered with something that isn't {wanted}: {one_line(said)}"
        return TeacherFailure(self._client.scrubbed(line), kind=FailureKind.UNREADABLE)


def _counts(batch: object) -> tuple[int, int]:
    match batch:
        case {"request_counts": {"completed": int(done), "failed": int(failed)}}:
            return done, failed
        case _:  # Some servers count only at the end.
            return 0, 0


def _complaints(batch: object) -> tuple[tuple[int | None, str, str], ...]:
    match batch:
        case {"errors": {"data": [*errors]}}:
            return tuple(_complaint(error) for error in errors)
        case _:
            return ()


def _complaint(error: object) -> tuple[int | None, str, str]:
    match error:
        case {"code": str(code), "message": str(message), "line": int(line)}:
            return line, code, one_line(message)
        case {"code": str(code), "message": str(message)}:
            return None, code, one_line(message)
        case _:
            return None, "", one_line(json.dumps(error))
