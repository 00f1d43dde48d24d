"""What a table is once it is read: columns of numbers with names, and what its rows are called."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from historyad.errors import InputError

UNNAMED = "Unnamed: 0"  # what pandas calls a first column without a name: numbers of rows
_LISTED = 20  # names of columns in a message


@dataclass(frozen=True)
class Table:
    """Rows of numbers.

    ``values`` is float64 (N, F), in which a boolean is 0 or 1. ``columns`` are the names of the F
    columns, none where the table has none. ``names`` say what each row is called, and ``groups``
    what it belongs to: N each, or none.
    """

    values: NDArray[np.float64]
    columns: tuple[str, ...] = ()
    names: Sequence[str] = ()
    groups: Sequence[str] = ()


@dataclass(frozen=True)
class Roles:
    """Names of columns that hold no values: what a row is called, and what it belongs to."""

    id_column: str | None = None
    group_column: str | None = None

    def __bool__(self) -> bool:
        return self.id_column is not None or self.group_column is not None

    def places(self, columns: Sequence[str], where: str) -> tuple[int | None, int | None]:
        """Return where among ``columns`` both are; InputError where one is not."""
        return (
            _place(columns, self.id_column, where),
            _place(columns, self.group_column, where),
        )


def _place(columns: Sequence[str], wanted: str | None, where: str) -> int | None:
    if wanted is None:
        return None
    if wanted in columns:
        return columns.index(wanted)
    if not columns:
        raise InputError(
            f"{where} has no names of columns, and so no column '{wanted}': write a line of names "
            "above its rows"
        )
    raise InputError(
        f"{where} has no column '{wanted}'{similar(wanted, columns)}; it has {listed(columns)}"
    )


def similar(name: str, columns: Sequence[str]) -> str:
    """Return ", is it 'width'?" for what ``name`` may be a slip of; nothing where there is none."""
    folded = {column.casefold(): column for column in columns}
    close = difflib.get_close_matches(name.casefold(), folded, n=1)
    return f", is it '{folded[close[0]]}'?" if close else ""


def listed(columns: Sequence[str]) -> str:
    """Return the names of columns as a message shows them."""
    more = f" and {len(columns) - _LISTED} more" if len(columns) > _LISTED else ""
    return ", ".join(f"'{column}'" for column in columns[:_LISTED]) + more


def refuse_doubles(columns: Sequence[str], where: str) -> None:
    """Raise InputError where two columns have one name."""
    if len(set(columns)) < len(columns):
        double = next(name for i, name in enumerate(columns) if name in columns[:i])
        raise InputError(f"{where}: two columns are called '{double}': give each a name of its own")


# --- what cannot be used, said alike of every kind of table


def date_error(place: str, value: str) -> InputError:
    """Return the error for a column of dates or times."""
    return InputError(
        f"{place}: {value} is a date or a time: leave the column out, or write it as a number, "
        "such as the seconds since the first, or name it with --time-column, if the rows are a "
        "series"
    )


def text_error(place: str, value: str) -> InputError:
    """Return the error for a column of text."""
    return InputError(
        f"{place}: {value} is text: leave the column out, write a column of 0 and 1 for each "
        "category or, if it says what the rows are called, name it with --id"
    )
