"""What a teacher's replies took: tokens, money and time, by the prompt that they answer."""

from collections.abc import AsyncIterator, Iterable

from drllama.errors import TeacherFailure
from drllama.protocols import AnswerMany, Teacher
from drllama.types import Reply, Spent, TeacherRequest

FOR_ARMS_WITHOUT_FILTER = ", for arms without a filter"
"""Behind the prompt: what nobody would have asked but to see what a filter is worth."""


class Bill:
    """Adds up the replies that come by, each request once; a kept reply costs what it cost when it was bought."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._spent: dict[str, Spent] = {}

    @property
    def lines(self) -> tuple[Spent, ...]:
        """Return what was spent, by prompt, in the order of the first replies' names."""
        return tuple(self._spent[prompt] for prompt in sorted(self._spent))

    def noting(self, ask_all: AnswerMany, *, mark: str = "") -> AnswerMany:
        """Return the same way to ask, with each reply noted here; ``mark`` says behind its prompt what it was for."""

        async def noted(
            teacher: Teacher, requests: Iterable[TeacherRequest]
        ) -> AsyncIterator[tuple[TeacherRequest, Reply | TeacherFailure]]:
            async for request, outcome in ask_all(teacher, requests):
                if isinstance(outcome, Reply) and request.key not in self._seen:
                    self._seen.add(request.key)
                    self._note(request.prompt + mark, outcome)
                yield request, outcome

        return noted

    def _note(self, prompt: str, reply: Reply) -> None:
        before = self._spent.get(prompt, Spent(prompt=prompt))
        self._spent[prompt] = Spent(
            prompt=prompt,
            num_replies=before.num_replies + 1,
            tokens_in=before.tokens_in + (reply.tokens_in or 0),
            tokens_out=before.tokens_out + (reply.tokens_out or 0),
            num_untold=before.num_untold + (reply.tokens_in is None or reply.tokens_out is None),
            usd=before.usd + (reply.cost_usd or 0.0),
            num_unpriced=before.num_unpriced + (reply.cost_usd is None),
            seconds=before.seconds + reply.seconds,
        )
