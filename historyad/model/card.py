"""What a fitted model says of itself, in a terminal and in a notebook."""

from __future__ import annotations

import html
from typing import Any

Rows = list[tuple[str, str]]


def rows_of(described: dict[str, Any]) -> Rows:
    """Return what matters most of what `Model.describe` says, by name."""
    source, calibration, folds = (described[key] for key in ("source", "calibration", "folds"))
    of = f", in {folds} folds" if folds else ", held out"
    of = f" of {calibration['description']}" if calibration else of
    return [
        ("input", f"{described['kind']}, {described['input']}"),
        ("trained on", f"{source.get('n_train', 0):,} samples of {source.get('description', '?')}"),
        ("calibrated on", f"{described['held_out']:,} samples{of}"),
        ("threshold", f"{described['threshold']:+.4f}"),
        ("false positives", _rate(described)),
        ("views", described["views"]),
    ]


def _rate(described: dict[str, Any]) -> str:
    asked, bound = described["false_positive_rate"], described["at_most_with_95_%"]
    return f"{asked:.4g} asked for, at most {bound:g} with 95 % confidence"


def as_text(rows: Rows) -> str:
    """Return rows below each other, for a terminal."""
    width = max(len(name) for name, _ in rows)
    return "\n".join(["historyad model", *(f"  {name:<{width}}  {value}" for name, value in rows)])


def as_html(rows: Rows) -> str:
    """Return rows as a table, for a notebook; names of sources are text there, and no markup."""
    lines = [
        f'<tr><th style="text-align:left">{html.escape(name)}</th>'
        f'<td style="text-align:left">{html.escape(value)}</td></tr>'
        for name, value in rows
    ]
    return f"<table><caption>historyad model</caption>{''.join(lines)}</table>"
