"""Letting a grounded judge look at candidates beside the context of their source."""

from collections.abc import Mapping, Sequence

from drllama.errors import TeacherFailure
from drllama.parsing import parse_judgement
from drllama.protocols import AnswerMany, Progress, Teacher
from drllama.recipe import Judge
from drllama.stages.correspond import Correspondent
from drllama.stages.vote import outcomes_of
from drllama.types import Candidate, Example, Judgement, Reply, Synthetic, Task, Unparsed

NO_REPLY = "no reply: "
"""How the reason of a missing verdict begins where the judge said nothing."""


async def collect_judgements(
    teacher: Teacher,
    ask_all: AnswerMany,
    *,
    correspondent: Correspondent,
    candidates: Sequence[Candidate],
    parents: Mapping[str, Example],
    task: Task,
    settings: Judge,
    progress: Progress,
) -> Mapping[str, Judgement | Unparsed]:
    """Return what the judge says of each candidate, by candidate id; no reply and no verdict are ``Unparsed``.

    Raises:
        TeacherFailure: no request got a reply.
    """
    asked = {one.id: correspondent.judge(one.example, _source(one, parents), task, settings) for one in candidates}
    requests = {request.key: request for request in asked.values()}
    progress.expect(len(requests))
    outcomes = await outcomes_of(teacher, ask_all, requests, "asking the judge", progress)
    return {name: _judgement(outcomes[request.key], task) for name, request in asked.items()}


def _source(candidate: Candidate, parents: Mapping[str, Example]) -> Example:
    assert isinstance(candidate.example.origin, Synthetic), candidate
    return parents[candidate.example.origin.parents[0]]


def _judgement(outcome: Reply | TeacherFailure, task: Task) -> Judgement | Unparsed:
    if isinstance(outcome, TeacherFailure):
        return Unparsed(text="", reason=f"{NO_REPLY}{outcome.kind}")
    return parse_judgement(outcome.text, task)
