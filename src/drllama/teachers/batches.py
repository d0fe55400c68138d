"""Asking much at once without waiting: submit, leave, come back, and submit again only what got no reply."""

from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import final

from drllama.errors import BatchPending, BudgetSpent, TeacherFailure
from drllama.protocols import Batches, Replies, Teacher
from drllama.teachers.batch_lines import MOST_BYTES, MOST_REQUESTS, line_of, read_lines, without_a_line
from drllama.teachers.batch_server import ENDED, BatchServer, BatchStatus
from drllama.teachers.budget import UNBILLED, Ledger, Reservation, nano_usd, worst_nano_usd
from drllama.teachers.endpoint import ChatEndpoint
from drllama.teachers.retry import STOPS_EVERYTHING, policy_for
from drllama.types import FailureKind, OpenBatch, Reply, TeacherRequest

GRACE = timedelta(minutes=2)
"""A batch that was sent and isn't listed counts as never made after this long: it may be slow to appear."""


@dataclass(frozen=True, slots=True)
class _Line:
    """A request on its way into a batch."""

    request: TeacherRequest
    content: bytes
    reservation: Reservation


@final
class Batched:
    """Puts requests to a server as batches; what it calls itself with is an ``AnswerMany``.

    A request whose reply is kept is answered from there. One that is out in a batch is waited for, by telling the
    person to come back. One that failed in batches as often as its kinds of failure allow is given up. The rest is
    submitted.
    """

    def __init__(
        self,
        endpoint: ChatEndpoint,
        server: BatchServer,
        *,
        batches: Batches,
        replies: Replies,
        ledger: Ledger,
        usd_per_million_tokens: tuple[float, float] | None,
    ) -> None:
        """Take an endpoint whose prices are those of a batch, and the server at the same address."""
        self._endpoint = endpoint
        self._server = server
        self._batches = batches
        self._replies = replies
        self._ledger = ledger
        self._prices = usd_per_million_tokens or (0.0, 0.0)
        self._reserved: dict[str, list[Reservation]] = {}
        self._standing: dict[str, str] = {}

    async def __call__(
        self, teacher: Teacher, requests: Iterable[TeacherRequest]
    ) -> AsyncIterator[tuple[TeacherRequest, Reply | TeacherFailure]]:
        """Yield each request that has its reply or is given up; the teacher itself isn't asked.

        Raises:
            BatchPending: some are out in a batch; the same call, later, comes back for them.
            BudgetSpent: a limit would be passed, and nothing is out.
            TeacherFailure: the server refuses a batch, the key was refused, or the account is empty.
            RecipeError: the endpoint doesn't know a setting.
        """
        wanted = {request.key: request for request in requests}
        assert all(request.endpoint == teacher.endpoint == self._endpoint.endpoint for request in wanted.values())
        with self._batches.alone():
            await self._harvest()
            spent = await self._submit([request for key, request in wanted.items() if self._is_left(key)])
        for key, request in wanted.items():
            outcome = self._replies.find(key) or self._given_up(key)
            if outcome is not None:
                yield request, outcome
        out = Counter(batch for key in wanted if (batch := self._batches.batch_of(key)) is not None)
        if out:
            raise BatchPending(self._come_back(out, spent))
        if spent is not None:
            raise spent

    def _is_left(self, key: str) -> bool:
        return self._replies.find(key) is None and self._batches.batch_of(key) is None and self._given_up(key) is None

    def _given_up(self, key: str) -> TeacherFailure | None:
        failures = self._batches.failures(key)
        for kind, count in Counter(FailureKind(failure.kind) for failure in failures).items():
            # A refused key or an empty account stopped everything; it was no fault of the request.
            if kind not in STOPS_EVERYTHING and count >= policy_for(kind).attempts:
                return TeacherFailure(
                    f"{failures[-1]} (given up after {len(failures)} attempts in batches; without batches it is asked "
                    "anew)",
                    kind=failures[-1].kind,
                )
        return None

    def _come_back(self, out: Counter[str], spent: BudgetSpent | None) -> str:
        standing = "; ".join(self._standing.get(batch, "as before") for batch in out)
        left = f"; not everything is submitted: {spent}" if spent else ""
        told = "1 request is" if out.total() == 1 else f"{out.total()} requests are"
        return (
            f"{told} out at {self._endpoint.endpoint} ({standing}){left}; "
            "a batch takes up to 24 hours, then the same command comes back for it"
        )

    async def _harvest(self) -> None:
        """Take in every batch at this endpoint that ended, whatever command submitted it."""
        stopped_by: TeacherFailure | None = None
        for batch in self._batches.open_batches(self._endpoint.endpoint):
            match await self._look(batch):
                case None:
                    self._batches.forget(batch.id)
                case str(standing):
                    self._standing[batch.id] = standing
                case BatchStatus(state=state) as status if state in ENDED:
                    stopped_by = await self._settle(batch, status) or stopped_by
                case status:
                    self._standing[batch.id] = _told(status, batch.num_requests)
        if stopped_by is not None:
            raise stopped_by

    async def _look(self, batch: OpenBatch) -> BatchStatus | str | None:
        """Return how a batch stands, in words where the server doesn't tell; None: it was never made."""
        if batch.sent_at is None:
            return None
        if batch.server_id is not None:
            try:
                return await self._server.status(batch.server_id)
            except TeacherFailure as failure:
                if failure.kind != FailureKind.BAD_REQUEST:
                    raise
                return f"batch {batch.server_id}: {failure}; give it up with drllama replies forget {batch.id}"
        found = await self._server.find(batch.id)
        if found is not None:
            self._batches.sent(batch.id, found.server_id)
            return found
        if self._batches.now() - batch.sent_at < GRACE:
            return "a batch was sent just now, and the server doesn't list it yet: run again in two minutes"
        return None

    async def _settle(self, batch: OpenBatch, status: BatchStatus) -> TeacherFailure | None:
        """Keep what came of a batch; return what must stop the work, if anything."""
        requests, who = self._batches.requests(batch.id), self._endpoint.endpoint
        reservations = self._reserved.pop(batch.id, None) or self._counted(requests)
        files = [await self._server.content(name) for name in status.output_files]
        lines = read_lines(files, [one.key for one in requests], read=self._endpoint.outcome_of, who=who)
        outcomes: dict[str, Reply | TeacherFailure]
        if status.state == "failed":
            outcomes = _refused_lines(requests, status, who)
        else:
            missing = without_a_line(status.state, lines, who=who)
            outcomes = {request.key: missing for request in requests}
        outcomes |= lines.outcomes
        self._batches.settle(batch.id, outcomes, state=status.state, num_strays=lines.num_strays)
        for request, reservation in zip(requests, reservations, strict=True):
            self._ledger.settle(reservation, self._spent(outcomes.get(request.key)))
        for outcome in outcomes.values():
            if isinstance(outcome, TeacherFailure) and outcome.kind in STOPS_EVERYTHING:
                return outcome
        return None if outcomes else _refused_batch(status, who)

    def _spent(self, outcome: Reply | TeacherFailure | None) -> int | None:
        match outcome:
            case Reply(tokens_in=int(tokens_in), tokens_out=int(tokens_out)):
                return nano_usd(tokens_in, tokens_out, self._prices)
            case None:
                return 0
            case TeacherFailure(kind=kind) if kind in UNBILLED:
                return 0
            case _:
                return None

    def _counted(self, requests: Sequence[TeacherRequest]) -> list[Reservation]:
        return [self._ledger.count(worst_nano_usd(request, self._prices)) for request in requests]

    async def _submit(self, requests: Sequence[TeacherRequest]) -> BudgetSpent | None:
        """Submit as many requests as the limits allow; return the limit that stopped it, if one did."""
        if requests:
            # What is out already may have to be paid too: the limits hold for all that one command leaves behind.
            for batch in self._batches.open_batches(self._endpoint.endpoint):
                if batch.id not in self._reserved:
                    self._reserved[batch.id] = self._counted(self._batches.requests(batch.id))
        spent: BudgetSpent | None = None
        lines: list[_Line] = []
        num_bytes = 0
        for request in requests:
            content = line_of(request, self._endpoint.body_of(request))
            try:
                reservation = self._ledger.reserve_now(worst_nano_usd(request, self._prices))
            except BudgetSpent as limit:
                spent = limit
                break
            if lines and (len(lines) == MOST_REQUESTS or num_bytes + len(content) > MOST_BYTES):
                await self._send(lines)
                lines, num_bytes = [], 0
            lines.append(_Line(request, content, reservation))
            num_bytes += len(content)
        if lines:
            await self._send(lines)
        return spent

    async def _send(self, lines: Sequence[_Line]) -> None:
        batch = self._batches.begin(self._endpoint.endpoint, [line.request for line in lines])
        self._reserved[batch.id] = [line.reservation for line in lines]
        try:
            file_id = await self._server.upload(b"".join(line.content for line in lines), batch_id=batch.id)
        except TeacherFailure:
            self._take_back(batch.id)
            raise
        self._batches.sending(batch.id)
        try:
            status = await self._server.create(file_id, batch_id=batch.id)
        except TeacherFailure as failure:
            if failure.kind in UNBILLED:
                self._take_back(batch.id)
                raise
            found = await self._server.find(batch.id)
            if found is None:
                self._standing[batch.id] = (
                    f"it isn't known whether the server has the last {len(lines)}: {failure}; run again in two minutes"
                )
                return
            status = found
        self._batches.sent(batch.id, status.server_id)
        self._standing[batch.id] = _told(status, len(lines))

    def _take_back(self, batch_id: str) -> None:
        self._batches.forget(batch_id)
        for reservation in self._reserved.pop(batch_id):
            self._ledger.give_back(reservation)


@final
class NotTwice:
    """A teacher that isn't asked live what is out in a batch, and so may be paid for already."""

    def __init__(self, teacher: Teacher, batches: Batches) -> None:
        self._teacher = teacher
        self._batches = batches

    @property
    def endpoint(self) -> str:
        """Where requests go."""
        return self._teacher.endpoint

    async def ask(self, request: TeacherRequest) -> Reply:
        """Return the reply.

        Raises:
            BatchPending: the request is out in a batch.
        """
        batch = self._batches.batch_of(request.key)
        if batch is not None:
            raise BatchPending(
                f"a request is out at {self.endpoint} in a batch, and asked live it would be paid twice; come back for "
                f"the batch with teacher.openai-compatible.batch true, or give it up: drllama replies forget {batch}"
            )
        return await self._teacher.ask(request)


def _told(status: BatchStatus, num_requests: int) -> str:
    return (
        f"batch {status.server_id}: {status.state.replace('_', ' ')}, {status.num_done} of {num_requests} done, "
        f"{status.num_failed} failed"
    )


def _refused_lines(
    requests: Sequence[TeacherRequest], status: BatchStatus, who: str
) -> dict[str, Reply | TeacherFailure]:
    """Return the requests that made the server refuse the input; the others were never carried out."""
    return {
        requests[line - 1].key: TeacherFailure(
            f"{who} refused this line of a batch: {message} ({code})", kind=FailureKind.BAD_REQUEST
        )
        for line, code, message in status.complaints
        if line is not None and 1 <= line <= len(requests)
    }


def _refused_batch(status: BatchStatus, who: str) -> TeacherFailure:
    said = "; ".join(f"{message} ({code})" for _, code, message in status.complaints) or "no reason given"
    is_full = any(code == "token_limit_exceeded" for _, code, _ in status.complaints)
    return TeacherFailure(
        f"{who} refused batch {status.server_id}: {said}; nothing of it was carried out, and the same command submits "
        "it again",
        kind=FailureKind.RATE if is_full else FailureKind.BAD_REQUEST,
    )
