"""The templates of this folder filled in; texts of the data can't become markup."""

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

from drllama.report import wording

if TYPE_CHECKING:
    from jinja2.sandbox import SandboxedEnvironment


def markdown_of(template: str, **contents: object) -> str:
    """Return a Markdown template filled in."""
    return _environment(autoescape=False, finalize=_finalize_markdown).get_template(template).render(contents) + "\n"


def html_of(template: str, **contents: object) -> str:
    """Return an HTML template filled in."""
    return _environment(autoescape=True, finalize=_finalize_html).get_template(template).render(contents) + "\n"


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
    environment.filters["estimate"] = lambda estimate: Markup(wording.estimate_text(estimate))
    environment.filters["percent"] = lambda estimate: Markup(wording.percent_text(estimate))
    environment.filters["points"] = lambda estimate: Markup(wording.points_text(estimate))
    environment.filters["over_seeds"] = lambda found: Markup(wording.over_seeds_text(found))
    environment.filters["decimals"] = lambda number, digits=3: Markup(f"{number:.{digits}f}")
    environment.filters["signed"] = lambda number: Markup(wording.signed(number))
    environment.filters["duration"] = lambda seconds: Markup(wording.duration(seconds))
    environment.filters["code_block"] = lambda text: Markup(wording.code_block(text))
    environment.filters |= {"p_value": wording.p_text, "money": wording.money, "cost_told": wording.cost_told}
    return environment


def _finalize_html(value: object) -> object:
    from markupsafe import Markup

    assert value is not None, "a template shows None"
    return wording.visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _finalize_markdown(value: object) -> object:
    """Escape by default: whatever a template shows is text, unless a filter above made it."""
    from markupsafe import Markup

    assert value is not None, "a template shows None"
    return wording.escape_markdown(value) if isinstance(value, str) and not isinstance(value, Markup) else value
