"""Many requests at once, in bounded memory."""

import asyncio
from collections.abc import AsyncIterator, Iterable

from drllama.errors import DrLlamaError, TeacherFailure
from drllama.protocols import Teacher
from drllama.teachers.retry import STOPS_EVERYTHING
from drllama.types import Reply, TeacherRequest

# Requests that all start at once are all sent late and answered at once. A few at a time, the first is on its way while
# the others are being written, and the answers come as evenly as they can be read.
_STARTED_TOGETHER = 2


async def ask_all(
    teacher: Teacher, requests: Iterable[TeacherRequest], *, in_flight: int
) -> AsyncIterator[tuple[TeacherRequest, Reply | TeacherFailure]]:
    """Yield each request with its reply or failure, as soon as it is there.

    Requests are taken one by one as places become free: at most ``in_flight`` are in memory. When a limit, a refused
    key or an empty account stops the work, no more are taken; those on their way may have been paid for, so they are
    still waited for and yielded; then the reason is raised. What isn't yielded wasn't answered.

    Raises:
        BudgetSpent: a limit would be passed.
        TeacherFailure: the key was refused or the account is empty.
        RecipeError: the endpoint doesn't know a setting.
    """
    assert in_flight >= 1, in_flight
    waiting = iter(requests)
    finished: asyncio.Queue[asyncio.Task[Reply]] = asyncio.Queue()
    asked: dict[asyncio.Task[Reply], TeacherRequest] = {}
    stopped_by: DrLlamaError | None = None
    started = 0
    try:
        while True:
            while stopped_by is None and len(asked) < in_flight and (request := next(waiting, None)) is not None:
                task = asyncio.ensure_future(_asked(teacher, request))
                asked[task] = request
                task.add_done_callback(finished.put_nowait)
                started += 1
                if started < in_flight and started % _STARTED_TOGETHER == 0:
                    await asyncio.sleep(0)
            if not asked:
                break
            task = await finished.get()
            request, outcome = asked.pop(task), _outcome(task)
            match outcome:
                case TeacherFailure(kind=kind) if kind not in STOPS_EVERYTHING:
                    yield request, outcome
                case DrLlamaError():
                    stopped_by = stopped_by or outcome
                case Reply():
                    yield request, outcome
    finally:
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
    if stopped_by is not None:
        raise stopped_by


async def _asked(teacher: Teacher, request: TeacherRequest) -> Reply:
    return await teacher.ask(request)


def _outcome(task: asyncio.Task[Reply]) -> Reply | DrLlamaError:
    try:
        return task.result()
    except DrLlamaError as error:
        return error
