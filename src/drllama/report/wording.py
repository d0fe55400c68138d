"""Numbers and texts as people read them, in HTML and in Markdown."""

import re

from drllama.types import ArmCost, Estimate, OverSeeds

_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_MARKDOWN_ACTIVE = re.compile(r"[\\`*|~$]|(?<![^\W_])_|_(?![^\W_])")
_MARKDOWN_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


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


def code_block(text: str) -> str:
    """Return an indented block: unlike a fence, no text can close it."""
    return "\n".join(f"    {line}" for line in visible(text).splitlines())


def estimate_text(estimate: Estimate | None) -> str:
    """Return value and interval; a dash where there is nothing to count."""
    if estimate is None or estimate.n == 0:
        return "–"
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


def percent_text(estimate: Estimate | None) -> str:
    """Return a share in percent with its interval, such as ``60.5 [57.1, 63.8]``; a dash where there is none."""
    if estimate is None or estimate.n == 0:
        return "–"
    return f"{100 * estimate.value:.1f} [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def points_text(estimate: Estimate) -> str:
    """Return a difference in points with its interval, such as ``+2.4 [-0.8, +5.6]``."""
    return f"{signed(100 * estimate.value)} [{signed(100 * estimate.low)}, {signed(100 * estimate.high)}]"


def signed(number: float) -> str:
    """Return a number with its sign and one decimal; what rounds to nothing has none.

    >>> signed(2.41), signed(-0.04), signed(-3)
    ('+2.4', '0.0', '-3.0')
    """
    told = f"{number:+.1f}"
    return "0.0" if float(told) == 0 else told


def p_text(p_value: float) -> str:
    """Return a p-value as it is to be quoted.

    >>> p_text(1e-9), p_text(0.0123), p_text(0.4), p_text(1.0)
    ('<0.001', '0.012', '0.40', '1.00')
    """
    if p_value < 0.001:
        return "<0.001"
    return f"{p_value:.3f}" if p_value < 0.1 else f"{p_value:.2f}"


def over_seeds_text(found: OverSeeds) -> str:
    """Return the mean with its interval; one seed has none."""
    if found.low is None or found.high is None:
        return f"{found.value:.3f}"
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"


def money(usd: float) -> str:
    """Return a sum in US dollars, as fine as it has to be.

    >>> money(0.0), money(0.00213), money(0.05), money(12.3)
    ('$0', '$0.0021', '$0.05', '$12.30')
    """
    if usd == 0:
        return "$0"
    return f"${usd:.2f}" if usd >= 0.01 else f"${usd:.2g}"


def cost_told(cost: ArmCost) -> str:
    """Return what a point of accuracy cost, or why nobody can say."""
    if cost.usd is None:
        return "some price is unknown, so is that of a point"
    if cost.per_point is None:
        return "no gain is shown, so no price of a point"
    found = cost.per_point
    return f"{money(found.value)} [{money(found.low)}, {money(found.high)}] a point gained"


def duration(seconds: float) -> str:
    """Return a time for people.

    >>> duration(8.26), duration(842), duration(7384)
    ('8.3 s', '14 min 02 s', '2 h 03 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
