"""What a table is once it is read: columns of numbers or texts, and what its rows are called."""

import difflib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from historyad.errors import InputError

UNNAMED = "Unnamed: 0"  # what pandas calls a first column without a name: numbers of rows
_LISTED = 20  # names of columns in a message
_MISSING_TEXT = {"", "na", "n/a", "#n/a", "nan", "null", "?"}  # of a column of texts

Levels = tuple[tuple[str, ...], ...]  # of each column, its texts; none of a column of numbers


@dataclass(frozen=True)
class Table:
    """Rows of numbers.

    ``values`` is float64 (N, F), in which a boolean is 0 or 1, a text its place among those of its
    column, ``levels``, and NaN is missing. ``columns`` are the names of the F columns, none where
    the table has none, and ``levels`` are there where a column is one of texts. ``names`` say what
    each row is called, and ``groups`` what it belongs to: N each, or none.
    """

    values: NDArray[np.float64]
    columns: tuple[str, ...] = ()
    names: Sequence[str] = ()
    groups: Sequence[str] = ()
    levels: Levels = ()


def joined(tables: Iterable[Table]) -> Table:
    """Return tables of the same columns, at least one, as one; texts go on being numbered."""
    found = list(tables)
    return replace(
        found[-1],
        values=np.concatenate([table.values for table in found]),
        names=[name for table in found for name in table.names],
        groups=[group for table in found for group in table.groups],
    )


class Texts:
    """Numbers the texts of a column in the order in which they come; NaN is none."""

    def __init__(self) -> None:
        self._numbers: dict[str, float] = {}

    def numbered(self, texts: Iterable[str | None]) -> NDArray[np.float64]:
        """Return the number of each text, (N,)."""
        numbers = self._numbers
        found = [
            np.nan if text is None else numbers.setdefault(text, float(len(numbers)))
            for text in texts
        ]
        return np.array(found, np.float64)

    @property
    def levels(self) -> tuple[str, ...]:
        """The texts, by their numbers."""
        return tuple(self._numbers)


def as_text(value: Any) -> str | None:
    """Return what a value of a column of texts is called, 3 for 3.0; None for a missing one."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value).strip()
    return None if text.lower() in _MISSING_TEXT else text


@dataclass(frozen=True)
class Roles:
    """Names of columns: of what a row is called, of what it belongs to, and of known ``texts``.

    The values of the last are texts, whatever they look like: codes, for one.
    """

    id_column: str | None = None
    group_column: str | None = None
    texts: Collection[str] = ()

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
    """Return the error for a text among numbers."""
    return InputError(
        f"{place}: {value} is text, and most of the column is not: mend it, leave out the row or "
        "the column or, if it says what the rows are called, name it with --id"
    )
