"""What a fitted model says of itself: in a terminal, in a notebook, and in a file of its run.

``RUN/card.md`` goes where the model goes: what it learned from, what its verdicts promise, what it
was found to see, and what it does not do.
"""

from __future__ import annotations

import html
import os
from pathlib import Path
from typing import Any

import numpy as np

from historyad import __version__
from historyad.files import write_atomic
from historyad.names import shown
from historyad.score.calibration import Calibration

FILE = "card.md"
Rows = list[tuple[str, str]]

WORDS = {
    "history": "what training learned",
    "neighbours": "far from the nearest normal ones",
    "blocks": "grey values unlike the nearest normal ones",
    "edges": "edges unlike the nearest normal ones",
    "gaussian": "far from what is typical",
    "simplicity": "plainer than normal",
    "smoothness": "smoother than normal",
    "map": "its worst places",
    "damage": "parts like those of damaged ones",
    "whole": "unlike normal ones as a whole",
    "shape": "of another shape than the nearest normal ones",
    "level": "unusual level or spread",
    "spectrum": "unusual frequencies",
}

_BINS, _WIDTH, _HEIGHT = 48, 384, 72  # of the picture of held-out scores


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


def as_html(described: dict[str, Any], calibration: Calibration) -> str:
    """Return what matters as a table, and a picture of the scores that the threshold was set on.

    Names of sources are text there, and no markup.
    """
    rows = rows_of(described)
    lines = [
        f'<tr><th style="text-align:left">{html.escape(name)}</th>'
        f'<td style="text-align:left">{html.escape(value)}</td></tr>'
        for name, value in rows
    ]
    table = f"<table><caption>historyad model</caption>{''.join(lines)}</table>"
    return table + _picture(calibration)


def _picture(calibration: Calibration) -> str:
    """Return the distribution of the held-out scores, and the threshold, as SVG."""
    scores, threshold = calibration.scores, calibration.threshold
    low, high = min(float(scores[0]), threshold), max(float(scores[-1]), threshold)
    counts, _ = np.histogram(scores, _BINS, (low, high + 1e-6))
    step = _WIDTH / _BINS
    bars = "".join(
        f'<rect x="{step * i:.0f}" y="{_HEIGHT * (1 - n / counts.max()):.1f}" '
        f'width="{step - 1:.0f}" height="{_HEIGHT * n / counts.max():.1f}" fill="#4c8bf5"/>'
        for i, n in enumerate(counts.tolist())
    )
    at = _WIDTH * (threshold - low) / (high - low + 1e-6)
    line = f'<path d="M{at:.1f} 0V{_HEIGHT}" stroke="#e0701a" stroke-width="2"/>'
    label = "scores of held-out normal samples; the line is the threshold"
    return (
        f'<svg role="img" aria-label="{label}" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'width="{_WIDTH}">{bars}{line}</svg><div><small>{label}</small></div>'
    )


def save_card(folder: Path, card: str) -> None:
    """Write the card of a model."""
    write_atomic(folder / FILE, card.encode())


def renew_card(folder: Path, card: str) -> None:
    """Write the card of a model anew, where its folder has one and can be written to."""
    if (folder / FILE).exists() and os.access(folder, os.W_OK):
        save_card(folder, card)


def as_markdown(
    described: dict[str, Any],
    calibration: Calibration,
    name: str,
    probe: dict[str, Any] | None = None,
) -> str:
    """Return the card as Markdown, with what ``probe_model`` found, if it was asked."""
    views = described["views"].split(", ")
    lines = [
        f"# Model card: {_text(name)}",
        "",
        "A detector that has learned from normal samples alone what is normal, and gives new ones "
        f"a score, a p-value and a verdict. Written by historyad {__version__}.",
        *_section("What it learned from", _learned(described)),
        *_section("What its verdicts promise", _promised(described, calibration)),
        *_section("What it looks at", [WORDS.get(view, view) for view in views]),
        *_seen(name, probe),
        *_section("What it does not do", _limits(described)),
    ]
    return "\n".join(lines) + "\n"


def _section(title: str, points: list[str]) -> list[str]:
    return ["", f"## {title}", "", *(f"* {point}" for point in points)]


def _learned(described: dict[str, Any]) -> list[str]:
    source = described["source"]
    left_out = [
        f"{source[key]:,} {said}"
        for key, said in (
            ("copies", "are copies of another, and count once for the threshold"),
            ("set_aside", "looked wrong and were set aside: `suspects.csv`"),
            ("unreadable", "could not be read"),
        )
        if source.get(key)
    ]
    n = source.get("n", source.get("n_train", 0))
    return [
        f"{n:,} samples of `{_text(source.get('description', '?'))}`, of which "
        f"{source.get('n_train', 0):,} were learned from",
        f"Each is: {described['kind']}, {described['input']}",
        *left_out,
        f"Their fingerprint: `{source.get('fingerprint', '?')}`",
    ]


def _promised(described: dict[str, Any], calibration: Calibration) -> list[str]:
    asked, others = described["false_positive_rate"], described["calibration"]
    on = f"{described['held_out']:,} normal samples that it was not fitted on"
    if described["folds"]:
        on = f"the same, in {described['folds']} folds, each scored by a detector of the others"
    if others:
        on = f"{described['held_out']:,} samples of `{_text(others['description'])}`"
    kept = f", with a confidence of {described['confidence']:g}" if described["confidence"] else ""
    return [
        f"Of normal samples, at most {100 * asked:.3g} % are called anomalous, on average{kept}; "
        f"by this detector, at most {100 * described['at_most_with_95_%']:.3g} % (95 % sure)",
        f"The threshold, {described['threshold']:+.4f}, was set on {on}",
        f"The smallest p-value is {calibration.smallest_p_value:.2g}",
        "It holds for normal samples like those; of anomalies it promises nothing",
    ]


def _seen(name: str, probe: dict[str, Any] | None) -> list[str]:
    if probe is None:
        asked = f"Not asked yet: `historyad probe {_text(name)} FRESH_NORMAL_SAMPLES` says it here"
        return _section("What it sees", [asked])
    head = f"{probe['n_samples']:,} normal samples were damaged, more and more; a damage is seen "
    rows = [
        f"| {curve['name']} | "
        + ("not seen" if curve["seen_from"] is None else f"{curve['seen_from']:.3g}")
        + f" | {curve['unit']} |"
        for curve in probe["corruptions"]
    ]
    table = ["| damage | seen from | unit |", "| --- | --- | --- |", *rows]
    power = f"from where {100 * probe['power']:.0f} % are called anomalous."
    return ["", "## What it sees", "", head + power, "", *table]


def _limits(described: dict[str, Any]) -> list[str]:
    kind = described["kind"]
    found = [
        "What was never shown to it is called anomalous, be it good or bad",
        "What differs in meaning, but not in looks, it does not find",
        "It says nothing of the cause, and takes no decision: a person or a rule does",
    ]
    if described.get("grid"):
        side = described["grid"]
        found.append(f"Images are reduced to {side} x {side}: what is gone then is not seen")
    if described.get("backbone"):
        found.append(f"Images are seen by {described['backbone']}: what is lost then is not seen")
    if kind == "vector":
        found.append("A missing value is no value: such rows are refused")
    return found


def _text(name: object) -> str:
    """Return a name as text that is no markup."""
    return shown(name).replace("`", "'").replace("<", "&lt;").replace("|", "/")
