"""Many lines of a table at once, by pyarrow where it is installed: what is slow in Python.

It reads numbers to the same bit, and is asked only for what has one reading. What it refuses is
read again, cell by cell, by who can say what is wrong.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

from numpy.typing import NDArray

Columns = list[NDArray[Any]]

_MISSING = ["", "nan", "NaN", "NA", "N/A", "null", "NULL", "None"]  # others are read cell by cell
_BOOLEANS = [[word, word.lower(), word.upper()] for word in ("False", "True")]


def read_lines(
    lines: list[str], types: Sequence[type], *, separator: str, decimal: str
) -> Columns | None:
    """Return the columns of some lines, float64 or object (N,); None where that is for others.

    ``types`` say what each column holds: bool, float or str. Missing is NaN, or None of booleans.
    """
    arrow = _arrow()
    text = "".join(lines)
    if arrow is None or '"' in text or separator == " ":
        return None
    pyarrow, csv = arrow
    kinds = {bool: pyarrow.bool_(), float: pyarrow.float64(), str: pyarrow.string()}
    names = [str(place) for place in range(len(types))]
    try:
        table = csv.read_csv(
            pyarrow.py_buffer(text.encode()),
            csv.ReadOptions(column_names=names),
            csv.ParseOptions(delimiter=separator, quote_char=False, double_quote=False),
            csv.ConvertOptions(
                column_types={n: kinds[held] for n, held in zip(names, types, strict=True)},
                null_values=_MISSING,
                strings_can_be_null=False,
                false_values=_BOOLEANS[0],
                true_values=_BOOLEANS[1],
                decimal_point=decimal,
            ),
        )
    except pyarrow.ArrowInvalid:
        return None
    return [column.to_numpy() for column in table.columns]


@cache
def _arrow() -> Any:
    """Return the modules, or None where they are not installed."""
    try:
        import pyarrow
        from pyarrow import csv
    except ImportError:
        return None
    return pyarrow, csv
