"""What the scripts that write pages have in common: where, commands, groups of rows."""

from __future__ import annotations

import re
import shlex
import statistics
import sys
from collections import defaultdict
from collections.abc import Collection, Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

Row = dict[str, Any]
ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
ROWS, PICTURES = DOCS / "rows", DOCS / "pictures"
BEFORE = "with an earlier version of the score"  # what `of_before` finds
SCORE_SINCE = 13  # version of the model's files from which images seen whole have today's score


def commands(rows: list[Row]) -> str:
    """Return the commands that gave ``rows``, as a block; of what they name, what rows are of."""
    lines: list[str] = []
    for (command,), group in grouped(rows, "command").items():
        of_one = [command]
        for key in ("split", "method"):
            of_one = merged(of_one, f"--{key}", {row[key] for row in group if key in row})
        lines += of_one
    for option in ("--split", "--method"):
        lines = merged(lines, option)
    return "\n```\n" + "\n".join(lines) + "\n```\n\n"


def merged(lines: Iterable[str], option: str, wanted: Collection[str] = ()) -> list[str]:
    """Return commands that do what ``lines`` do: those that differ in ``option`` alone as one.

    Of the option's values, wildcards among them, those are left that stand for one that is
    ``wanted``.
    """
    values_of: dict[str, dict[str, None]] = {}
    for line in sorted(lines):
        first, options = _parsed(line)
        values = options.pop(option, [])
        found = [value for value in values if any(fnmatchcase(name, value) for name in wanted)]
        rest = [word for name in sorted(options) for word in (name, *options[name])]
        command = shlex.join([*first, *rest])
        values_of.setdefault(command, {}).update(dict.fromkeys(found or values))
    return [
        f"{command} {option} {shlex.join(_with_wildcards(values))}" if values else command
        for command, values in values_of.items()
    ]


def _parsed(line: str) -> tuple[list[str], dict[str, list[str]]]:
    """Return the words before the first option, and the values of each option."""
    first: list[str] = []
    options: dict[str, list[str]] = {}
    values = first
    for word in shlex.split(line):
        if word.startswith("--"):
            values = options.setdefault(word, [])
        else:
            values.append(word)
    return first, options


def _with_wildcards(names: Iterable[str]) -> list[str]:
    """Return ``names`` with NAME-* for all ten from NAME-0 to NAME-9, each said once."""
    names = list(names)
    stems = {name: re.sub(r"(\d|\[\d-\d\]|\*)$", "", name) for name in names}
    for stem in dict.fromkeys(stems.values()):
        own = [name for name in names if stems.get(name) == stem]
        ten = [f"{stem}{digit}" for digit in range(10)]
        if all(any(fnmatchcase(one, name) for name in own) for one in ten):
            names = list(dict.fromkeys(f"{stem}*" if name in own else name for name in names))
    return [name for name in names if not any(name != o and fnmatchcase(name, o) for o in names)]


def of_before(rows: Iterable[Row]) -> bool:
    """Whether some of these rows of our default on images are of an earlier one.

    Rows from before models had versions lack it.
    """
    return any(row.get("model_version", 0) < SCORE_SINCE for row in rows)


def write_or_check(path: Path, text: str) -> int:
    """Write ``text``; with --check among the arguments, return 1 when the file says otherwise."""
    if "--check" in sys.argv:
        return int(text != path.read_text())
    path.write_text(text)
    return 0


def grouped(rows: Iterable[Row], *keys: str) -> dict[tuple[Any, ...], list[Row]]:
    """Return rows by the values of ``keys``, in order."""
    groups = defaultdict(list)
    for row in rows:
        groups[tuple(row[key] for key in keys)].append(row)
    return dict(sorted(groups.items()))


def average(rows: list[Row], key: str) -> str:
    """Return the mean of ``key``, as text."""
    return f"{statistics.fmean(row[key] for row in rows):.4f}" if rows else ""
