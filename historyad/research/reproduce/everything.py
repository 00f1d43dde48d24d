"""Every table and figure of the paper, by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from historyad.files import read_rows
from historyad.progress import Listener
from historyad.research.reproduce import fig5, fig6, fig7, fig8, fig9, histories, table1
from historyad.research.reproduce.figure import reproduce_figure
from historyad.research.reproduce.runs import Runs, Size
from historyad.research.reproduce.spread import fit_on_ray
from historyad.research.reproduce.toy import reproduce_toy

FIGURES = {
    module.FIGURE.name: module.FIGURE
    for module in (table1, fig5, fig6, fig7, fig8, fig9, histories)
}


def reproduce(
    what: str,
    out: Path,
    *,
    seeds: list[int],
    size: Size = "full",
    data_root: Path | None = None,
    command: str = "",
    on_progress: Listener | None = None,
) -> list[dict[str, Any]]:
    """Write ``out/WHAT.png``, .svg and .jsonl for a name of `FIGURES` or ``toy``; return the rows.

    Detectors are kept in ``out/runs``, where other figures find them. The same call continues what
    was interrupted, and does not measure again what is there. The toy example takes the first seed.
    """
    if what == "toy":
        found = read_rows(out / "toy.jsonl")
        is_done = [(row["size"], row["seed"]) for row in found] == [(size, seeds[0])]
        if is_done and (out / "toy.png").exists():
            return found
        return [reproduce_toy(out, seed=seeds[0], size=size, command=command)]
    runs = Runs(out / "runs", data_root, command=command, on_progress=on_progress)
    return reproduce_figure(FIGURES[what], out, runs, seeds=seeds, size=size)


def fit_for(
    what: list[str],
    out: Path,
    *,
    seeds: list[int],
    size: Size = "full",
    address: str | None = None,
    data_root: Path | None = None,
    command: str = "",
) -> None:
    """Fit what these figures need as tasks of the Ray cluster at ``address``, or of one here."""
    runs = Runs(out / "runs", data_root, command=command)
    figures = [FIGURES[name] for name in what if name in FIGURES]
    fit_on_ray(figures, runs, seeds=seeds, size=size, address=address)


_UNSAID = ("what", "size", "command")


def summary(row: dict[str, Any]) -> str:
    """Return the numbers of a row on one line, with their names."""
    parts = []
    for name, value in row.items():
        if isinstance(value, float):
            parts.append(f"{name} {value:.4g}")
        elif isinstance(value, int) or (isinstance(value, str) and len(value) < 40):
            parts += [] if name in _UNSAID else [f"{name} {value}"]
    return f"{row['what']}: " + ", ".join(parts)
