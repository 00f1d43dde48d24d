"""The part of docs/results.md on the paper's own tables and figures, from docs/rows/paper."""

from __future__ import annotations

from pathlib import Path

from benchmarks.pages import BEFORE, Row, grouped, of_before
from benchmarks.results.figures import PARTS, by_preset
from historyad.files import read_rows

HEAD = """## The paper, reproduced

`historyad reproduce all --size full --seeds 3 --out DIR` gives every table and figure of the
paper with the paper's own method, sizes and settings (the preset `paper`), and our default beside
it. `--size quick` does so with small networks and short training. Both sizes leave out the end of
step 1, which hardly enters P_Ghist: a thousandth of its mass at full size, a twentieth at quick
size. At quick size, moreover, networks are those of the preset `quick`, an epoch has 20,000
images, the gradient penalty is applied at every fourth critic step, and D_TV is trained for one
epoch with twice the learning rate. **Quick numbers show that the parts fit together; they do not
judge the method.** A section shows the rows of full size where there are any. The seeds are those
in the commands; seed 0 served for choosing and is not shown. Other work may have shared the
machine: CPU time is what to compare. Fits that several figures need are counted in each, and once
in the whole.
"""

OLD_PRESET = """The paper's method was measured here with the step 3 that the preset `paper` had
[before](choices.md#step-3-at-full-size), and momenta (.5, .9) in both steps.

"""
INTERRUPTED = """Some of them were interrupted, and the time until then is missing.
"""


def sections(folder: Path) -> list[str]:
    """Return the sections of all figures; one without rows says so."""
    return [HEAD + _whole(folder), *(_section(name, folder) for name in PARTS)]


def _whole(folder: Path) -> str:
    """Return what everything took: at full size, and in one command that gave it all."""
    rows = [row for name in PARTS for row in read_rows(folder / f"{name}.jsonl")]
    of_all = [row for row in rows if row["command"].startswith("historyad reproduce all ")]
    lines = [
        f"\nAll of it in one command took {_seconds(group)}:\n\n```\n{command}\n```\n"
        for (command,), group in grouped(of_all, "command").items()
    ]
    full = [row for row in rows if row["size"] == "full"]
    if full:
        of_full = {row["what"] for row in full if "fits" in row}
        names = " ".join(name for name in PARTS if name in of_full)
        lines.append(f"\nAt full size, `{names}`:\n{_time(full)}{INTERRUPTED}")
    return "".join(lines)


def _section(name: str, folder: Path) -> str:
    part = PARTS[name]
    rows = read_rows(folder / f"{name}.jsonl")
    if not rows:
        return f"{part.text}\n*Not measured yet.*\n"
    full = [row for row in rows if row["size"] == "full"]
    shown = full or rows
    picture = f"![{part.alt}](pictures/paper-{name}.webp)" if part.alt else ""
    return "\n".join(
        [part.text, picture, _commands(shown), part.describe(shown), _earlier(shown) + _time(shown)]
    )


def _earlier(rows: list[Row]) -> str:
    """Say what was measured before; where only some was, their section says it."""
    papers = [row for row in rows if row.get("method") not in ("default", "pca-residual")]
    today, before = by_preset(papers)
    if today and before:
        return ""
    ours = [row for row in rows if row.get("method") == "default"]
    said = f"The default was measured here {BEFORE}.\n\n" if of_before(ours) else ""
    return said + OLD_PRESET * bool(before)


def _commands(rows: list[Row]) -> str:
    lines = dict.fromkeys(row["command"] for row in rows)
    return "```\n" + "\n".join(lines) + "\n```\n"


def _time(rows: list[Row]) -> str:
    """Return what the fits took that rows need, each counted once, or what the rows took."""
    fits = {key: spent for row in rows for key, spent in row.get("fits", {}).items()}
    if not fits:
        return f"{_seconds(rows)}, without what earlier figures had fitted.\n"
    cpu = sum(spent["cpu"] for spent in fits.values())
    return (
        f"The fits of histories and detectors took {cpu:,.0f} s of CPU time "
        f"({cpu / 3600:.1f} hours), with {_threads(rows)}.\n"
    )


def _seconds(rows: list[Row]) -> str:
    """Return what rows took: those of one unit have the same seconds in each."""
    units = {(row["what"], row["seed"], row.get("digit")): row for row in rows}.values()
    words = f"{sum(row['seconds'] for row in units):,.0f} s"
    if all("cpu_seconds" in row for row in units):
        words += f" (wall clock), {sum(row['cpu_seconds'] for row in units):,.0f} s of CPU time"
    return f"{words}, with {_threads(rows)}"


def _threads(rows: list[Row]) -> str:
    threads = sorted({row["machine"]["threads"] for row in rows})
    return f"{' or '.join(map(str, threads))} thread{'s' * (threads[-1] > 1)}"
