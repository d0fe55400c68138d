"""What the page answers to which request; every decision is kept before the answer says so."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated
from urllib.parse import parse_qs, quote, unquote

from fastapi import Depends, FastAPI, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from drllama.errors import DrLlamaError
from drllama.replies import RequestStore
from drllama.reviews import Conflict, ReviewStore, exported, restored_texts
from drllama.types import CandidateRow, Ruling, Texts, Verdict
from drllama.web.desk import Desk, View
from drllama.web.guard import NONCE, Guard
from drllama.web.pages import Pages, Visit

_REVIEWER = "drllama_reviewer"
_LONGEST_NAME = 60
_LONGEST_FORM = 4_000_000
"""Bytes."""

Form = dict[str, str]


class FormError(DrLlamaError):
    """What came isn't what the page's forms send, or can't be kept as it is."""


async def _form(request: Request) -> Form:
    """Return the fields of a posted form, the first of each name."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _LONGEST_FORM:
            raise FormError(f"the form is longer than {_LONGEST_FORM:,} bytes; send less text")
    try:
        fields = parse_qs(body.decode(), keep_blank_values=True, errors="strict")
    except (UnicodeDecodeError, ValueError) as error:
        raise FormError("the form can't be read; use the page's own") from error
    return {name: values[0] for name, values in fields.items()}


PostedForm = Annotated[Form, Depends(_form)]


def make_app(
    desk: Desk,
    *,
    reviews: ReviewStore,
    replies: RequestStore,
    token: str,
    hosts: Sequence[str],
    reviewer: str | None,
) -> Guard:
    """Return the page as an ASGI application; ``reviewer`` is who decides where a browser names nobody."""
    reception = Reception(desk, reviews, replies, Pages(desk), f"/{token}/", reviewer)
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_api_route(f"/{token}/", reception.start, methods=["GET"], response_model=None)
    app.add_api_route(f"/{token}/row/{{row_id}}", reception.row, methods=["GET"], response_model=None)
    app.add_api_route(f"/{token}/row/{{row_id}}", reception.decide, methods=["POST"], response_model=None)
    app.add_api_route(f"/{token}/name", reception.name, methods=["GET"], response_model=None)
    app.add_api_route(f"/{token}/name", reception.introduce, methods=["POST"], response_model=None)
    app.add_api_route(f"/{token}/export.csv", reception.export, methods=["GET"], response_model=None)
    app.add_exception_handler(DrLlamaError, reception.tell)
    return Guard(app, token, frozenset(hosts))


class Reception:
    """Where visitors bring their decisions; it holds nothing but what it was given."""

    def __init__(
        self,
        desk: Desk,
        reviews: ReviewStore,
        replies: RequestStore,
        pages: Pages,
        base: str,
        reviewer: str | None,
    ) -> None:
        self._desk, self._reviews, self._replies, self._pages = desk, reviews, replies, pages
        self._base, self._reviewer = base, reviewer

    def start(self, request: Request) -> Response:
        """Send a visitor to the first undecided row of the view, or to the first."""
        visit = self._visit(request)
        if visit.reviewer is None:
            return self._ask_name(visit)
        standing = self._desk.standing(self._reviews.decisions())
        rows = self._desk.seen_through(visit.view, standing)
        if not rows:
            return HTMLResponse(self._pages.empty(visit, self._reviews.decisions()))
        undecided = [row for row in rows if row.id not in standing]
        return _see(visit.address((undecided or rows)[0].id))

    def row(self, request: Request, row_id: str) -> Response:
        """Show one row."""
        visit = self._visit(request)
        if visit.reviewer is None:
            return self._ask_name(visit)
        return self._row_page(visit, self._named(row_id))

    def decide(self, request: Request, row_id: str, form: PostedForm) -> Response:
        """Keep a decision, and go on to the next row; of two that cross, keep the first and show both."""
        visit, row = self._visit(request), self._named(row_id)
        if visit.reviewer is None:
            return self._ask_name(visit)
        try:
            ruling, seen = self._ruling(row, form, visit.reviewer)
        except FormError as error:
            return self._row_page(visit, row, refused=str(error), typed=form)
        rows = self._desk.seen_through(visit.view, self._desk.standing(self._reviews.decisions()))
        kept = self._reviews.decide(ruling, seen=seen)
        if isinstance(kept, Conflict):
            content = self._pages.conflict(visit, row, kept)
            return HTMLResponse(content, status_code=HTTPStatus.CONFLICT)
        here = row.id if ruling.verdict == Verdict.UNDO else self._next(row, rows)
        return _see(visit.address(here, done=kept.number))

    def name(self, request: Request) -> Response:
        """Ask who is there."""
        return self._ask_name(self._visit(request))

    def introduce(self, request: Request, form: PostedForm) -> Response:
        """Remember in the visitor's browser who decides there."""
        name = " ".join(form.get("name", "").split())
        if not 0 < len(name) <= _LONGEST_NAME or not name.isprintable():
            return self._ask_name(self._visit(request), refused=f"Write a name of 1 to {_LONGEST_NAME} letters.")
        onward = form.get("onward", "")
        answer = _see(onward if onward.startswith(self._base) else self._base)
        answer.set_cookie(_REVIEWER, quote(name), max_age=31_536_000, samesite="strict", httponly=True)
        return answer

    def export(self) -> Response:
        """Return the table for spreadsheets."""
        content = exported(self._desk.reviewables, self._reviews.decisions())
        named = f'attachment; filename="{self._desk.run.id}-review.csv"'
        return Response(content, media_type="text/csv; charset=utf-8", headers={"Content-Disposition": named})

    def tell(self, request: Request, error: Exception) -> Response:
        """Tell in one line what a person can mend."""
        status = HTTPStatus.BAD_REQUEST if isinstance(error, FormError) else HTTPStatus.INTERNAL_SERVER_ERROR
        return HTMLResponse(self._pages.trouble(self._visit(request), str(error)), status_code=status)

    def _visit(self, request: Request) -> Visit:
        asked = request.query_params
        named = unquote(request.cookies.get(_REVIEWER, "")) or self._reviewer
        done = asked.get("done", "")
        return Visit(
            base=self._base,
            here=request.url.path + (f"?{request.url.query}" if request.url.query else ""),
            nonce=request.scope[NONCE],
            reviewer=named,
            view=View(
                state=asked.get("state", "all"),
                outcome=asked.get("outcome", "all"),
                method=asked.get("method", "all"),
                label=asked.get("label", ""),
                text=asked.get("text", "").strip(),
            ),
            done=int(done) if done.isascii() and done.isdigit() else None,
        )

    def _ask_name(self, visit: Visit, refused: str = "") -> Response:
        return HTMLResponse(self._pages.name(visit, refused))

    def _row_page(self, visit: Visit, row: CandidateRow, *, refused: str = "", typed: Form | None = None) -> Response:
        content = self._pages.row(
            visit, row, self._reviews.decisions(), self._replies.attempts(row.asking.call), refused, typed
        )
        return HTMLResponse(content, status_code=HTTPStatus.UNPROCESSABLE_ENTITY if refused else HTTPStatus.OK)

    def _named(self, row_id: str) -> CandidateRow:
        if row_id not in self._desk.by_id:
            raise FormError(f"no row '{row_id}' is reviewed here; go back to the list")
        return self._desk.by_id[row_id]

    def _next(self, row: CandidateRow, rows: Sequence[CandidateRow]) -> str:
        """Return the next undecided row behind this one in the view, else the first; else this one."""
        standing = self._desk.standing(self._reviews.decisions())
        place = next((place for place, one in enumerate(rows) if one.id == row.id), -1)
        onward = [one.id for one in (*rows[place + 1 :], *rows[: place + 1]) if one.id not in standing]
        return onward[0] if onward else row.id

    def _ruling(self, row: CandidateRow, form: Form, reviewer: str) -> tuple[Ruling, int]:
        try:
            verdict, seen = Verdict(form["verdict"]), int(form["seen"])
        except (KeyError, ValueError) as error:
            raise FormError("the form lacks its verdict or the number that it has seen; use the page's own") from error
        ruling = Ruling(
            candidate_id=row.id,
            written=row.teachers_texts.id,
            verdict=verdict,
            reason=" ".join((form.get("quick") or form.get("reason", "")).split()),
            edited=self._edited(row.teachers_texts, form) if verdict == Verdict.EDIT else None,
            reviewer=reviewer,
        )
        return ruling, seen

    def _edited(self, written: Texts, form: Form) -> Texts:
        missing = [name for name in ("question", "context", "label", "long_answer") if name not in form]
        if missing:
            raise FormError(f"the form lacks {', '.join(missing)}; use the page's own")
        texts = restored_texts(form, written)
        if texts.label not in self._desk.labels:
            raise FormError(f"label '{texts.label}' is not one of {', '.join(self._desk.labels)}; choose one of them")
        if not texts.question.strip():
            raise FormError("The question is empty; write one, or reject the row.")
        if texts == written:
            raise FormError("Nothing differs from what the teacher wrote; accept it as it is, or change something.")
        return texts


def _see(address: str) -> RedirectResponse:
    return RedirectResponse(address, status_code=HTTPStatus.SEE_OTHER)
