"""One HTML file about a run: readable on a phone, printable, without network, safe to pass on."""

from historyad.report.decisions import was_used
from historyad.report.page import write_report

__all__ = ["was_used", "write_report"]
