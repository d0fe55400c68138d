"""Why a row was dropped, in words."""

from typing import assert_never

from drllama.types import Decision, Evidence, Judgement, Measured, Neighbour, Quoted, Votes


def evidence_text(evidence: Evidence) -> str:
    """Return a filter's evidence on one line.

    >>> evidence_text(Measured(value=3, limit=12))
    '3, the limit is 12'
    """
    match evidence:
        case Neighbour():
            return (
                f"{evidence.how} {evidence.similarity:.2f} to {evidence.source_id} of {evidence.split}: "
                f"{evidence.question}"
            )
        case Votes():
            silent = evidence.num_unparsed + evidence.num_failed
            told = [f"{label} {count}" for label, count in evidence.counts.items()]
            return f"blind answers: {', '.join([*told, f'silent {silent}'])}"
        case Judgement():
            support = "supported" if evidence.supported else "not supported"
            return f"{support}, {evidence.label}: {evidence.reason}"
        case Measured():
            return f"{evidence.value:.3g}, the limit is {evidence.limit:.3g}"
        case Quoted():
            measured = f", {evidence_text(evidence.measured)}" if evidence.measured else ""
            return f"“{evidence.text}”{measured}"
        case Decision():
            return f"{evidence.ruling.reviewer}, {evidence.at}: {evidence.ruling.reason or 'no reason given'}"
        case _ as other:
            assert_never(other)
