"""One HTML file about a run: readable on a phone, printable, without network, safe to pass on."""

from historyad.judge.report.decisions import was_used
from historyad.judge.report.page import write_report

__all__ = ["was_used", "write_report"]
