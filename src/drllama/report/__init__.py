"""The report of a run: its contents gathered once, then written as JSON, Markdown or one self-contained HTML page."""

from drllama.report.contents import ReportContents, report_contents
from drllama.report.rendering import leaks_json, report_html, report_json, report_markdown

__all__ = ["ReportContents", "leaks_json", "report_contents", "report_html", "report_json", "report_markdown"]
