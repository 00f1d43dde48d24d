"""What ``score --follow`` does: scores of the rows of a log as they are written to it."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from historyad.cli.common import Reading
from historyad.cli.console import note, say
from historyad.cli.rows import summary
from historyad.deploy.tables import open_table
from historyad.errors import InputError

if TYPE_CHECKING:
    from historyad.data.series import Clock
    from historyad.data.tables import Table
    from historyad.model.following import Finished
    from historyad.model.model import Model
    from historyad.score.result import Scored

_Part = tuple[Sequence[str], "Scored"]


def follow(model: Model, source: str, reading: Reading, *, view_scores: bool) -> None:
    """Write a row for each row of ``source``, or each step of a series, as soon as it is there.

    Ends when it is interrupted, and then says how many there were.
    """
    from historyad.data.growing import grown
    from historyad.data.tables import Roles
    from historyad.deploy.parts import column_names

    if model.kind.is_picture:
        raise InputError("--follow is for tables and series, and this detector scores images")
    roles = Roles(reading.id_column or reading.time_column, None, model.text_columns)
    tables = grown(Path(source), roles, _say)
    parts = _steps(model, tables, source, reading) if model.config.window else _rows(model, tables)
    names, counts = column_names(model, view_scores=view_scores), Counter[str]()
    with open_table("-", names) as write:
        try:
            for of_rows, scored in parts:
                columns = {"path": np.array(of_rows, object), **scored.columns()}
                write({name: columns[name] for name in names})
                counts["scored"] += len(of_rows)
                counts["anomalous"] += int(columns["is_anomalous"].sum())
                sys.stdout.flush()
        except KeyboardInterrupt:
            note(summary(counts["scored"], counts["anomalous"], 0))


def _say(line: str) -> None:
    say(f"historyad: {line}", file=sys.stderr)


def _aligned(model: Model, table: Table, number: int) -> tuple[Any, list[str]]:
    """Return the values of rows as the model takes them, and names, numbers where there are none.

    ``number`` is how many there were before.
    """
    from historyad.data.columns import align
    from historyad.data.in_memory import from_table

    source = align(from_table(table, "the log"), model.feature_names, model.kind.levels)
    names = table.names or map(str, range(number, number + len(table.values)))
    return source.samples, list(names)


def _rows(model: Model, tables: Iterator[Table | None]) -> Iterator[_Part]:
    number = 0
    for table in tables:
        if table is not None:
            samples, names = _aligned(model, table, number)
            number += len(names)
            yield names, model(samples, views=True)


def _steps(
    model: Model, tables: Iterator[Table | None], source: str, reading: Reading
) -> Iterator[_Part]:
    from historyad.data.series import Clock, usual_stride
    from historyad.model.following import Following

    clock = Clock(source) if reading.time_column is not None else None
    stride = model.config.stride or usual_stride(model.kind.input_shape[0])
    following, number = Following(model, stride), 0
    for table in tables:
        if table is None:
            yield from _said(following.end())
            continue
        steps, names = _aligned(model, table, number)
        number += len(names)
        first, *others = _runs(steps, names, clock)
        if first:
            yield from _said(following.add(steps[first], [names[row] for row in first]))
        for run in others:
            yield from _said(following.end())
            if run:
                yield from _said(following.add(steps[run], [names[row] for row in run]))


def _said(finished: Finished) -> Iterator[_Part]:
    if finished.names:
        yield finished.names, finished.scored


def _runs(steps: Any, names: Sequence[str], clock: Clock | None) -> list[list[int]]:
    """Return the rows of steps that follow on each other, the first ones on what was before."""
    from historyad.data.series import GAP

    runs: list[list[int]] = [[]]
    for row, name in enumerate(names):
        try:
            passed = 1.0 if clock is None else clock.step(name)
        except InputError as error:
            _say(f"left out: {error}")
            continue
        if passed <= 0:
            _say(f"left out: {name}, which does not come after the step before")
        elif np.isnan(steps[row]).any():
            _say(f"left out: {name}, of which a value is missing: windows begin anew")
            runs.append([])
        else:
            if passed > GAP:
                _say(f"a gap of {passed:,.0f} usual steps before {name}: windows begin anew")
                runs.append([])
            runs[-1].append(row)
    return runs
