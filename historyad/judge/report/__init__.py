"""One HTML file about a run: readable on a phone, printable, without network, safe to pass on."""

from historyad.judge.report.decisions import n_used_of
from historyad.judge.report.page import write_report

__all__ = ["n_used_of", "write_report"]
