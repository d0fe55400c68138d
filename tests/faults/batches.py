"""The files and batches of a server on this machine: kept in memory, carried out when a test says, broken as it says.

Each line of a batch goes through the server's plan like a live request, and is counted in the same book by the sha256
of its body, so that a test sees whether anything was bought twice, live or in a batch.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import parse_qs, urlsplit


class AtCreation(StrEnum):
    """What goes wrong when a batch is created."""

    NONE = "none"
    RATE = "429, nothing created"
    REFUSED = "400, nothing created"
    CLOSED = "created, then the connection closed"
    BROKEN = "500, nothing created"
    SILENT = "created, then no answer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a batch goes."""

    state: str = "completed"
    polls: int = 0
    """How often it is still in progress when asked for."""
    done: int | None = None
    """Lines carried out before it ended; None: all."""
    errors: tuple[Mapping[str, object], ...] = ()
    """Of a batch that failed validation."""
    forgotten: int = 0
    """Lines carried out that stand in neither file."""


@dataclass(slots=True, kw_only=True)
class Desk:
    """Files and batches; lists say what meets each creation and each batch, in their order, then nothing does."""

    creations: list[AtCreation] = field(default_factory=list)
    endings: list[Ending] = field(default_factory=list)
    strays: list[bytes] = field(default_factory=list)
    """Lines put into each output file that belong to no request."""
    is_there: bool = True
    """False: a server without files and batches."""
    page: int = 100
    """Batches listed at once, at most."""
    files: dict[str, bytes] = field(default_factory=dict)
    batches: dict[str, dict[str, object]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    """Method and path of each call."""
    _ending_of: dict[str, Ending] = field(default_factory=dict)
    _polls: dict[str, int] = field(default_factory=dict)

    def inputs(self) -> list[list[dict[str, object]]]:
        """Return the lines of each batch that was created, oldest first."""
        return [
            [json.loads(line) for line in self.files[str(batch["input_file_id"])].splitlines()]
            for batch in self.batches.values()
        ]

    def answer(
        self, method: str, path: str, content_type: str, raw: bytes, carry_out: "CarryOut"
    ) -> tuple[int, bytes] | None:
        """Return status and body; None: close the connection."""
        self.asked.append(f"{method} {path}")
        where = urlsplit(path)
        match method, where.path.removeprefix("/v1/").split("/"):
            case _ if not self.is_there:
                return _told({"error": {"message": "File Not Found", "code": 404}}, 404)
            case "POST", ["files"]:
                return _told({"id": self._keep(_uploaded(raw, content_type)), "object": "file", "purpose": "batch"})
            case "GET", ["files", name, "content"] if name in self.files:
                return 200, self.files[name]
            case "POST", ["batches"]:
                return self._create(json.loads(raw))
            case "GET", ["batches"]:
                return _told(self._listed(parse_qs(where.query)))
            case "GET", ["batches", name] if name in self.batches:
                self._go_on(name, carry_out)
                return _told(self.batches[name])
            case _:
                return _told({"error": {"message": f"no such thing: {path}", "code": None}}, 404)

    def _create(self, wanted: Mapping[str, object]) -> tuple[int, bytes] | None:
        assert wanted["endpoint"] == "/v1/chat/completions" and wanted["completion_window"] == "24h", wanted
        meets = self.creations.pop(0) if self.creations else AtCreation.NONE
        if meets is AtCreation.RATE:
            return _told({"error": {"message": "too many batches", "code": "rate_limit_exceeded"}}, 429)
        if meets is AtCreation.REFUSED:
            return _told({"error": {"message": "no batches for this model", "code": None}}, 400)
        if meets is AtCreation.BROKEN:
            return _told({"error": {"message": "the server broke", "code": None}}, 500)
        name = f"batch_{len(self.batches) + 1}"
        lines = self.files[str(wanted["input_file_id"])].splitlines()
        self.batches[name] = {
            "id": name,
            "object": "batch",
            **wanted,
            "status": "validating",
            "errors": None,
            "output_file_id": None,
            "error_file_id": None,
            "request_counts": {"total": len(lines), "completed": 0, "failed": 0},
        }
        self._ending_of[name] = self.endings.pop(0) if self.endings else Ending()
        if meets is AtCreation.SILENT:
            return 0, b""
        return None if meets is AtCreation.CLOSED else _told(self.batches[name])

    def _listed(self, query: Mapping[str, list[str]]) -> dict[str, object]:
        newest_first = list(self.batches.values())[::-1]
        names = [batch["id"] for batch in newest_first]
        start = names.index(query["after"][0]) + 1 if "after" in query else 0
        shown = newest_first[start : start + min(self.page, int(query.get("limit", ["20"])[0]))]
        return {"object": "list", "data": shown, "has_more": start + len(shown) < len(newest_first)}

    def _go_on(self, name: str, carry_out: "CarryOut") -> None:
        batch, ending = self.batches[name], self._ending_of[name]
        if batch["status"] not in {"validating", "in_progress"}:
            return
        self._polls[name] = self._polls.get(name, 0) + 1
        if self._polls[name] <= ending.polls:
            batch["status"] = "in_progress"
            return
        batch["status"] = ending.state
        if ending.state == "failed":
            batch["errors"] = {"object": "list", "data": list(ending.errors)}
            return
        lines = self.files[str(batch["input_file_id"])].splitlines()
        done = len(lines) if ending.done is None else ending.done
        good, bad = [], []
        for line in lines[:done]:
            key, body = _read(line)
            status, answer = carry_out(body)
            (good if status == 200 else bad).append(_answered(key, status, answer))
        bad += [_unanswered(_read(line)[0], ending.state) for line in lines[done:]]
        # Not in the order of the input, as the protocol warns.
        good = [*self.strays, *reversed(good)][ending.forgotten :]
        batch["request_counts"] = {"total": len(lines), "completed": len(good), "failed": len(bad)}
        batch["output_file_id"] = self._keep(b"".join(good)) if good else None
        batch["error_file_id"] = self._keep(b"".join(bad)) if bad else None

    def _keep(self, content: bytes) -> str:
        name = f"file-{len(self.files) + 1}"
        self.files[name] = content
        return name


CarryOut = Callable[[bytes], tuple[int, bytes]]
"""From a request's body to status and body of its answer."""


def _told(value: Mapping[str, object], status: int = 200) -> tuple[int, bytes]:
    return status, json.dumps(value).encode()


def _uploaded(raw: bytes, content_type: str) -> bytes:
    found = re.fullmatch(r"multipart/form-data; boundary=(\S+)", content_type)
    assert found, content_type
    parts = raw.split(b"--" + found[1].encode())
    assert parts[0] == b"" and parts[-1] == b"--\r\n", "the form isn't whole"
    fields = {}
    for part in parts[1:-1]:
        head, _, content = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        name = re.search(rb'name="(\w+)"', head)
        assert name, head
        fields[name[1]] = content.removesuffix(b"\r\n")
    assert fields[b"purpose"] == b"batch", fields[b"purpose"]
    return fields[b"file"]


def _read(line: bytes) -> tuple[str, bytes]:
    """Return a line's custom_id and its body, byte for byte."""
    asked = json.loads(line)
    assert asked["method"] == "POST" and asked["url"] == "/v1/chat/completions", asked
    body = line.partition(b'"body":')[2].removesuffix(b"}")
    assert json.loads(body) == asked["body"]
    return asked["custom_id"], body


def _answered(key: str, status: int, answer: bytes) -> bytes:
    name = hashlib.sha256(answer).hexdigest()[:12]
    start = {"id": f"batch_req_{name}", "custom_id": key, "error": None}
    response = f'{{"status_code": {status}, "request_id": "{name}", "body": '.encode() + answer.strip() + b"}"
    return json.dumps(start).encode().removesuffix(b"}") + b', "response": ' + response + b"}\n"


def _unanswered(key: str, state: str) -> bytes:
    line = {
        "id": "batch_req_none",
        "custom_id": key,
        "response": None,
        "error": {"code": f"batch_{state}", "message": "This request could not be executed in time."},
    }
    return json.dumps(line).encode() + b"\n"
