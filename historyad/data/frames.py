"""Data frames: pandas, polars and pyarrow in Python, Parquet and Feather from files.

Columns are numbers, booleans or texts; what is neither is refused by name. The index of a pandas
frame names the rows, unless it just counts them.
"""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from historyad.data.tables import (
    UNNAMED,
    Roles,
    Table,
    Texts,
    as_text,
    date_error,
    joined,
    refuse_doubles,
    text_error,
)
from historyad.errors import InputError
from historyad.extras import require

_CATEGORIES = ("category", "categorical", "enum", "dictionary")  # as their libraries call them
_BATCH_ROWS = 1 << 16  # of a file, read at a time
_BUFFER = 1 << 20  # bytes of each column


def is_frame(source: Any) -> bool:
    """Whether ``source`` is a data frame, with columns that have names."""
    named = hasattr(source, "columns") or hasattr(source, "column_names")
    return named and (hasattr(source, "__arrow_c_stream__") or hasattr(source, "__dataframe__"))


def read_frame(frame: Any, roles: Roles) -> Table:
    """Return the table of a data frame; InputError names a column that cannot be used."""
    where = type(frame).__name__
    columns = _names_of(frame)
    index = _pandas_index(getattr(frame, "schema", None), columns)
    names = _index_names(frame, roles)
    if names and roles.id_column == getattr(frame.index, "name", None):
        roles = replace(roles, id_column=None)  # it is the index that was asked for
    table = joined(_tables([frame], columns, index, roles, where))
    return replace(table, names=table.names or names)


def read_arrow_file(path: Path, roles: Roles) -> Table:
    """Read a Parquet or Feather file, with pyarrow; InputError where it is missing or damaged."""
    return joined(table for table, _ in read_arrow_parts(path, roles))


def read_arrow_parts(path: Path, roles: Roles) -> Iterator[tuple[Table, float]]:
    """Yield some rows of such a file at a time, and the share of it that is read by then."""
    pyarrow = require("pyarrow", f"{path}", "tables", ", or save it as .csv")
    from pyarrow import feather, parquet

    try:
        if path.suffix.lower() == ".parquet":
            with parquet.ParquetFile(path, buffer_size=_BUFFER, pre_buffer=False) as file:
                n = file.metadata.num_rows
                yield from _parts(file.iter_batches(_BATCH_ROWS), file.schema_arrow, n, roles, path)
        else:
            loaded = feather.read_table(path, memory_map=True)
            batches = loaded.to_batches(_BATCH_ROWS)
            yield from _parts(batches, loaded.schema, loaded.num_rows, roles, path)
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{path} cannot be read as a table ({error}); write it again") from error


def _parts(
    batches: Iterable[Any], schema: Any, n: int, roles: Roles, path: Path
) -> Iterator[tuple[Table, float]]:
    index, done = _pandas_index(schema, schema.names), 0
    for table in _tables(batches, schema.names, index, roles, str(path)):
        done += len(table.values)
        yield table, done / max(1, n)


def _names_of(frame: Any) -> list[str]:
    found = getattr(frame, "column_names", None)
    return [str(name) for name in (frame.columns if found is None else found)]


def _tables(
    frames: Iterable[Any], columns: list[str], index: str | None, roles: Roles, where: str
) -> Iterator[Table]:
    """Yield the table of each of some frames that have the same columns; an empty one for none.

    ``index`` is the column that names the rows unless ``roles`` say otherwise; so does a first one
    that had no name when pandas read it.
    """
    refuse_doubles(columns, where)
    if index is None and columns[:1] == [UNNAMED]:
        index = UNNAMED
    id_place, group_place = roles.places(columns, where)
    index_place = None if index is None else columns.index(index)
    others = {id_place, group_place, index_place}
    places = [place for place in range(len(columns)) if place not in others]
    if not places:
        raise InputError(f"{where} has no columns of numbers; give some")
    names_place = index_place if id_place is None else id_place
    coded = {place: Texts() for place in places if columns[place] in roles.texts}
    called, none, frame = tuple(columns[place] for place in places), Texts(), None
    for frame in frames:
        block = np.empty((len(frame), len(places)))
        for i, number in enumerate(places):
            at = f"{where}, column '{columns[number]}'"
            block[:, i] = _values(_column(frame, number), at, coded, number)
        names, groups = (
            []
            if place is None
            else list(_texts(_column(frame, place), f"{where}, column '{columns[place]}'"))
            for place in (names_place, group_place)
        )
        levels = tuple(coded.get(place, none).levels for place in places) if coded else ()
        yield Table(block, called, names, groups, levels)
    if frame is None:
        yield Table(np.empty((0, len(places))), called)


def _column(frame: Any, place: int) -> Any:
    """Return a column by its place, since names need not be text."""
    if hasattr(frame, "iloc"):
        return frame.iloc[:, place]  # pandas
    if hasattr(frame, "to_series"):
        return frame.to_series(place)  # polars
    return frame.column(place)


def _values(column: Any, at: str, coded: dict[int, Texts], place: int) -> NDArray[np.float64]:
    """Return a column as float64 (N,): numbers, or those of its texts; a missing value is NaN."""
    values = _to_numpy(column)
    if values.dtype.kind in "mM":
        raise date_error(at, _first_of(values))
    kind = str(getattr(column, "dtype", getattr(column, "type", ""))).lower()
    are_texts = place in coded or kind.startswith(_CATEGORIES) or values.dtype.kind in "UST"
    if are_texts or (values.dtype.kind == "O" and _are_texts(values.tolist(), at)):
        return coded.setdefault(place, Texts()).numbered(map(as_text, values.tolist()))
    if values.dtype.kind == "O":
        return np.array([_number(value, at) for value in values.tolist()], np.float64)
    if values.dtype.kind not in "buif":
        raise InputError(f"{at} holds values of type {values.dtype}; give numbers or texts")
    found: NDArray[np.float64] = values.astype(np.float64)
    return found


def _are_texts(values: list[Any], at: str) -> bool:
    """Whether most values of a column of objects that are not missing are texts."""
    known = [value for value in values if as_text(value) is not None]
    for value in known:
        if hasattr(value, "isoformat"):
            raise date_error(at, repr(str(value)))
        if not isinstance(value, str | numbers.Real | Decimal | np.bool_):
            kind = type(value).__name__
            raise InputError(f"{at} holds a {kind}: give numbers or texts, or leave the column out")
    return 2 * sum(isinstance(value, str) for value in known) > len(known)


def _to_numpy(column: Any) -> NDArray[Any]:
    try:
        values = column.to_numpy(zero_copy_only=False)  # pyarrow
    except TypeError:
        values = column.to_numpy()
    return np.asarray(values)


def _first_of(values: NDArray[Any]) -> str:
    return repr(str(values[0])) if len(values) else "its type"


def _number(value: Any, place: str) -> float:
    """Return a value of a column of objects; NaN for a missing one."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return np.nan
    if isinstance(value, str):
        if as_text(value) is None:
            return np.nan
        raise text_error(place, repr(value[:40]))
    return float(value)


def _texts(column: Any, place: str) -> Iterator[str]:
    for value in _to_numpy(column).tolist():
        if value is None or value != value:  # NaN  # noqa: PLR0124
            raise InputError(f"{place}: a value is missing that names a row or its group: fill it")
        yield str(value)


# --- the index of pandas


def _pandas_index(schema: Any, columns: Sequence[str]) -> str | None:
    """Return the column of an Arrow table in which pandas keeps an index, if one does."""
    metadata = getattr(schema, "pandas_metadata", None) or {}
    kept = [name for name in metadata.get("index_columns", ()) if name in columns]
    return kept[0] if len(kept) == 1 else None


def _index_names(frame: Any, roles: Roles) -> list[str]:
    """Return the names of rows that the index of a pandas frame holds, unless it counts them."""
    index = getattr(frame, "index", None)
    if index is None:
        return []
    asked = roles.id_column is not None and roles.id_column == index.name
    counts = index.dtype.kind in "iu" and bool((index == np.arange(len(index))).all())
    return [] if counts and not asked else [str(name) for name in index]
