"""Contents in, text out: JSON for programs, Markdown for a repository, one HTML page for a person."""

import json
import re
from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from typing import TYPE_CHECKING

from drllama.report.contents import ReportContents, System
from drllama.report.pictures import confusion_picture, funnel_picture, intervals_picture, reliability_picture
from drllama.types import Estimate, LeakAudit, OverSeeds

if TYPE_CHECKING:
    from jinja2.sandbox import SandboxedEnvironment

FORMAT = 2
"""Raised whenever a reader of ``report.json`` would have to change."""

_METRICS = (
    ("accuracy", "Accuracy", "↑"),
    ("macro_f1", "Macro-F1", "↑"),
    ("nll", "NLL, nats", "↓"),
    ("brier", "Brier", "↓"),
    ("ece", "ECE", "↓"),
)
"""Key, title, and which way is better."""
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_MARKDOWN_ACTIVE = re.compile(r"[\\`*|~$]|(?<![^\W_])_|_(?![^\W_])")
_MARKDOWN_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def report_json(contents: ReportContents) -> str:
    """Return the report for programs; every number is unrounded."""
    stored = {"format": FORMAT, **asdict(contents)}
    return visible(json.dumps(stored, ensure_ascii=False, allow_nan=False, indent=2)) + "\n"


def leaks_json(leaks: LeakAudit) -> str:
    """Return the audit of leaks for programs; every number is unrounded."""
    return visible(json.dumps({"format": 1, **asdict(leaks)}, ensure_ascii=False, allow_nan=False, indent=2)) + "\n"


def report_markdown(contents: ReportContents) -> str:
    """Return the report as GitHub-flavoured Markdown; texts of the data can't become markup."""
    return markdown_of("report.md.jinja", report=contents, metrics=_METRICS, intervals=_interval_methods(contents))


def report_html(contents: ReportContents) -> str:
    """Return the report as one HTML page that loads nothing and runs nothing."""
    return html_of(
        "report.html.jinja",
        report=contents,
        metrics=_METRICS,
        intervals=_interval_methods(contents),
        intervals_picture=intervals_picture(contents.systems, contents.finetuned),
        confusion_picture=confusion_picture(contents.finetuned, contents.labels),
        reliability_picture=reliability_picture(contents.finetuned),
        funnel_picture=funnel_picture(contents.teacher.funnel if contents.teacher else ()),
    )


def markdown_of(template: str, **contents: object) -> str:
    """Return a Markdown template of this folder filled in; texts of the data can't become markup."""
    return _environment(autoescape=False, finalize=_finalize_markdown).get_template(template).render(contents) + "\n"


def html_of(template: str, **contents: object) -> str:
    """Return an HTML template of this folder filled in; texts of the data can't become markup."""
    return _environment(autoescape=True, finalize=_finalize_html).get_template(template).render(contents) + "\n"


def visible(text: str) -> str:
    """Return the text with control characters and lone surrogates, which no file may hold, as replacement marks."""
    return _UNPRINTABLE.sub("\ufffd", text)


def escape_markdown(text: str) -> str:
    r"""Return text on one line that Markdown shows letter by letter, in a table cell too.

    Safe only inside a line: what acts at the start of one (``#``, ``-``, ``1.``) stays as it is.

    >>> escape_markdown("a|b\n<b> 2*3 [x](y) num_steps")
    'a\\|b &lt;b&gt; 2\\*3 [x]\\(y) num_steps'
    """
    line = " ".join(visible(text).split())
    line = _MARKDOWN_ACTIVE.sub(lambda mark: f"\\{mark.group()}", line)
    line = re.sub(r"[&<>]", lambda mark: _MARKDOWN_ENTITIES[mark.group()], line)
    # A link or an image needs its bracket and parenthesis to touch; brackets alone are left for intervals.
    return line.replace("](", "]\\(")


@cache
def _environment(*, autoescape: bool, finalize: Callable[[object], object]) -> "SandboxedEnvironment":
    from jinja2 import PackageLoader, StrictUndefined
    from jinja2.sandbox import SandboxedEnvironment
    from markupsafe import Markup

    environment = SandboxedEnvironment(
        loader=PackageLoader("drllama", "report"),
        undefined=StrictUndefined,
        autoescape=autoescape,
        finalize=finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # Markup: these make only digits and brackets, which neither HTML nor Markdown has to escape.
    environment.filters["estimate"] = lambda estimate: Markup(_estimate(estimate))
    environment.filters["over_seeds"] = lambda found: Markup(over_seeds_text(found))
    environment.filters["difference"] = lambda estimate: Markup(_difference(estimate))
    environment.filters["decimals"] = lambda number, digits=3: Markup(f"{number:.{digits}f}")
    environment.filters["duration"] = lambda seconds: Markup(_duration(seconds))
    environment.filters["code_block"] = lambda text: Markup(_code_block(text))
    return environment


def _finalize_html(value: object) -> object:
    from markupsafe import Markup

    assert value is not None, "a template shows None"
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _finalize_markdown(value: object) -> object:
    """Escape by default: whatever a template shows is text, unless a filter above made it."""
    from markupsafe import Markup

    assert value is not None, "a template shows None"
    return escape_markdown(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _estimate(estimate: Estimate | None) -> str:
    """Return value and interval; a dash where there is nothing to count."""
    if estimate is None or estimate.n == 0:
        return "–"
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


def over_seeds_text(found: OverSeeds) -> str:
    """Return the mean with its interval; one seed has none."""
    if found.low is None or found.high is None:
        return f"{found.value:.3f}"
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"


def _difference(estimate: Estimate) -> str:
    return f"{estimate.value:+.3f} [{estimate.low:+.3f}, {estimate.high:+.3f}]"


def _duration(seconds: float) -> str:
    """Return a time for people, such as ``8.3 s`` or ``14 min 02 s``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def _code_block(text: str) -> str:
    """Return an indented block: unlike a fence, no text can close it."""
    return "\n".join(f"    {line}" for line in visible(text).splitlines())


def _interval_methods(contents: ReportContents) -> str:
    """Return what the brackets mean, such as ``95% Wilson intervals for accuracy; 95% bootstrap intervals for ece``."""
    shown = [(title.split(",")[0], _first(contents.systems, key)) for key, title, _ in _METRICS]
    for scores in contents.finetuned.per_class[:1]:
        shown += [("precision", scores.precision), ("recall", scores.recall), ("F1", scores.f1)]
    titles: dict[str, list[str]] = {}
    for title, estimate in shown:
        if estimate is not None:
            method = {"wilson": "Wilson"}.get(estimate.method, estimate.method)
            titles.setdefault(f"{estimate.level * 100:g}% {method} intervals", []).append(title)
    return "; ".join(f"{kind} for {', '.join(names)}" for kind, names in titles.items())


def _first(systems: tuple[System, ...], key: str) -> Estimate | None:
    return next((system.metrics[key] for system in systems if key in system.metrics), None)
