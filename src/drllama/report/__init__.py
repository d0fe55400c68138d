"""The report of a run: its contents gathered once, then written as JSON, Markdown or one self-contained HTML page."""

from drllama.report.comparing import comparison_contents, comparison_html, comparison_json, comparison_markdown
from drllama.report.contents import ComparisonContents, ReportContents
from drllama.report.gathering import report_contents
from drllama.report.published import published_beside, read_published
from drllama.report.rendering import leaks_json, report_html, report_json, report_markdown
from drllama.report.sensitivity import value_shown
from drllama.report.sweeps import point_note, sweep_html, sweep_json, sweep_markdown, sweep_told
from drllama.report.wording import over_seeds_text, p_text, percent_text, points_text

__all__ = [
    "ComparisonContents",
    "ReportContents",
    "comparison_contents",
    "comparison_html",
    "comparison_json",
    "comparison_markdown",
    "leaks_json",
    "over_seeds_text",
    "p_text",
    "percent_text",
    "point_note",
    "points_text",
    "published_beside",
    "read_published",
    "report_contents",
    "report_html",
    "report_json",
    "report_markdown",
    "sweep_html",
    "sweep_json",
    "sweep_markdown",
    "sweep_told",
    "value_shown",
]
