"""Asking a teacher each candidate's question blind: whoever doesn't know the label should find it."""

from collections import Counter
from collections.abc import Mapping, Sequence

from drllama.errors import TeacherFailure
from drllama.parsing import parse_answer
from drllama.protocols import AnswerMany, Progress, Teacher
from drllama.recipe import LabelKept
from drllama.stages.correspond import Correspondent
from drllama.types import Candidate, Reply, Task, TeacherRequest, Unparsed, Votes


async def collect_votes(
    teacher: Teacher,
    ask_all: AnswerMany,
    *,
    correspondent: Correspondent,
    candidates: Sequence[Candidate],
    task: Task,
    settings: LabelKept,
    progress: Progress,
) -> Mapping[str, Votes]:
    """Return the blind answers to each candidate's question from the candidate's own context, by candidate id.

    Neither label nor long answer is sent. Candidates that read alike are asked once and share their votes. Thresholds
    are in no request: other ones ask nothing.

    Raises:
        TeacherFailure: no request got a reply.
    """
    asked = {
        one.id: [correspondent.answer(one.example, task, settings, rollout) for rollout in range(settings.votes)]
        for one in candidates
    }
    requests = {request.key: request for several in asked.values() for request in several}
    progress.expect(len(requests))
    outcomes = await outcomes_of(teacher, ask_all, requests, "asking the candidates' questions blind", progress)
    return {name: _votes([outcomes[request.key] for request in several], task) for name, several in asked.items()}


async def outcomes_of(
    teacher: Teacher,
    ask_all: AnswerMany,
    requests: Mapping[str, TeacherRequest],
    activity: str,
    progress: Progress,
) -> dict[str, Reply | TeacherFailure]:
    """Return what became of each request, by key.

    Raises:
        TeacherFailure: none of them got a reply.
    """
    outcomes: dict[str, Reply | TeacherFailure] = {}
    async for request, outcome in ask_all(teacher, requests.values()):
        outcomes[request.key] = outcome
        progress.work(activity, 1)
    failed = [outcome for outcome in outcomes.values() if isinstance(outcome, TeacherFailure)]
    if failed and len(failed) == len(outcomes):
        raise TeacherFailure(f"{activity}: no request got a reply; the first: {failed[0]}", kind=failed[0].kind)
    return outcomes


def _votes(outcomes: Sequence[Reply | TeacherFailure], task: Task) -> Votes:
    replies = [outcome for outcome in outcomes if isinstance(outcome, Reply)]
    answers = [parse_answer(reply.text, task) for reply in replies]
    chosen = Counter(answer for answer in answers if not isinstance(answer, Unparsed))
    return Votes(
        counts={label: chosen[label] for label in task.labels},
        num_unparsed=len(answers) - chosen.total(),
        num_failed=len(outcomes) - len(replies),
    )
