"""The cells of a table of text become numbers, or an error that names the cell."""

import re
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from historyad.data.bulk import read_lines
from historyad.data.tables import Levels, Table, Texts, as_text, date_error, text_error
from historyad.errors import InputError

Row = tuple[int, list[str]]  # the line on which it ends, and its cells

MISSING = {"", "na", "n/a", "#n/a", "nan", "null", "none", "-", "?", "."}
_BOOLEANS = {"true": 1.0, "false": 0.0}
_DECIMAL_COMMA = re.compile(r"\s*[+-]?\d*,\d+([eE][+-]?\d+)?\s*")
_THOUSANDS = re.compile(r"\s*[+-]?[1-9]\d{0,2}(,\d{3})+\s*")
_LIKE_NUMBER = re.compile(r"[$€£]?\s*[+-]?[\d.,_' ]+\s*[%$€£]?")  # and is none: a slip, no category
_DATE = re.compile(
    r"\s*(\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}|\d{1,2}:\d{2}(?!\d)"
    r"|\d{1,2}[ -]?(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec))",
    re.IGNORECASE,
)


def is_value(cell: str) -> bool:
    """Whether a cell is a number, a boolean or a date, which names of columns are not."""
    return _is_number(cell) or bool(
        cell.strip().lower() in _BOOLEANS or _DECIMAL_COMMA.fullmatch(cell) or _DATE.match(cell)
    )


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell  # which Python's own numbers may have


@dataclass(frozen=True)
class Layout:
    """Where in a row of ``width`` cells the values are, and what else there is."""

    width: int
    columns: tuple[str, ...]  # of the values; none where the file has no names
    values: tuple[int, ...]
    id_place: int | None
    group_place: int | None
    empty: tuple[int, ...]
    texts: tuple[int, ...] = ()  # of the values, those that are known to be texts

    def name(self, place: int) -> str:
        """Return what a message calls a column of values."""
        found = f" ('{self.columns[self.values.index(place)]}')" if self.columns else ""
        return f"column {place + 1}{found}"


class Cells:
    """The columns of a table, of which some rows are added at a time."""

    def __init__(self, layout: Layout, separator: str, where: str) -> None:
        self._layout, self._separator, self._where = layout, separator, where
        self._values = array("d")
        self._texts: dict[int, list[str]] = {
            place: [] for place in (layout.id_place, layout.group_place) if place is not None
        }
        # By the place of the column; of neither is one in which nothing stands so far.
        self._are_booleans: dict[int, bool] = {}
        self._coded = {place: Texts() for place in layout.texts}
        self._decimal: tuple[str, str] | None = None  # the sign, and where it was seen first
        self._unclear = ""  # where there is a comma that may be one of thousands
        self._is_clear = separator == ";"

    def add(self, rows: list[Row]) -> None:
        """Take the next rows; InputError names the cell that is not like the others."""
        if not rows:
            return
        self._check_widths(rows)
        cells = list(zip(*(cells for _, cells in rows), strict=True))
        block = np.empty((len(rows), len(self._layout.values)))
        for column, place in enumerate(self._layout.values):
            block[:, column] = self._values_of(place, cells[place], rows)
        for place in self._layout.empty:
            self._check_empty(place, cells[place], rows)
        found = {place: list(self._some_texts(place, cells[place], rows)) for place in self._texts}
        self._values.frombytes(block.tobytes())
        for place, texts in found.items():
            self._texts[place].extend(texts)

    def add_lines(self, lines: list[str]) -> bool:
        """Take the next lines at once; False, with nothing taken, where cells must be looked at."""
        sign = self._decimal[0] if self._decimal else ""
        if (sign == "," and not self._is_clear) or (not sign and any("." in s for s in lines)):
            return False  # what decimals look like is still open
        types: list[type] = [str] * self._layout.width
        for place in self._layout.values:
            if place not in self._coded:
                if place not in self._are_booleans:
                    return False
                types[place] = bool if self._are_booleans[place] else float
        columns = read_lines(lines, types, separator=self._separator, decimal=sign or ".")
        if columns is None or any(any(columns[place]) for place in self._layout.empty):
            return False
        texts = {place: [cell.strip() for cell in columns[place]] for place in self._texts}
        if not all(map(all, texts.values())):
            return False
        numbers = [columns[place] for place in self._layout.values if place not in self._coded]
        if any(np.isinf(column.astype(np.float64)).any() for column in numbers):
            return False
        block = np.empty((len(columns[0]), len(self._layout.values)))
        for column, place in enumerate(self._layout.values):
            coded, cells = self._coded.get(place), columns[place]
            block[:, column] = coded.numbered(map(as_text, cells)) if coded else cells
        self._values.frombytes(block.tobytes())
        for place, found in texts.items():
            self._texts[place].extend(found)
        return True

    def table(self) -> Table:
        """Return what was added; InputError where commas may be those of decimals or thousands."""
        if self._unclear and not self._is_clear:
            raise InputError(
                f"{self._unclear} may be a decimal or thousands: write decimals with a point, and "
                "no signs between thousands"
            )
        values = np.frombuffer(self._values).reshape(-1, len(self._layout.values))
        names, groups = (
            () if place is None else self._texts[place]
            for place in (self._layout.id_place, self._layout.group_place)
        )
        return Table(values, self._layout.columns, names, groups, self._levels)

    def take(self) -> Table:
        """Return what was added since, and hold it no longer; errors are those of `table`."""
        table = self.table()
        self._values = array("d")
        self._texts = {place: [] for place in self._texts}
        return table

    @property
    def _levels(self) -> Levels:
        if not self._coded:
            return ()
        none = Texts()
        return tuple(self._coded.get(place, none).levels for place in self._layout.values)

    def _check_widths(self, rows: list[Row]) -> None:
        width = self._layout.width
        if set(map(len, (cells for _, cells in rows))) != {width}:
            line, cells = next(row for row in rows if len(row[1]) != width)
            raise InputError(
                f"{self._where}, line {line}: {len(cells)} cells, {width} expected; is a cell "
                "missing, or does one hold a separator without quotes around it?"
            )

    def _check_empty(self, place: int, cells: Sequence[str], rows: list[Row]) -> None:
        for (line, _), cell in zip(rows, cells, strict=True):
            if cell.strip():
                raise InputError(
                    f"{self._where}, line {line}, column {place + 1}: {cell[:40]!r} stands in a "
                    "column without a name that was empty so far: name it, or leave it out"
                )

    def _some_texts(self, place: int, cells: Sequence[str], rows: list[Row]) -> Iterator[str]:
        for (line, _), cell in zip(rows, cells, strict=True):
            if not cell.strip():
                raise InputError(
                    f"{self._where}, line {line}, column {place + 1}: the cell is empty, but it "
                    "says what the row is called or belongs to: fill it"
                )
            yield cell.strip()

    # Numbers as Python reads them come first, since nearly all columns are that.

    def _values_of(self, place: int, cells: Sequence[str], rows: list[Row]) -> NDArray[np.float64]:
        joined = "".join(cells)
        if place in self._coded or self._are_booleans.get(place) or "_" in joined:
            return self._other_values(place, cells, rows)
        try:
            values = np.fromiter(map(float, cells), np.float64, len(cells))
        except ValueError:
            return self._other_values(place, cells, rows)
        if np.isinf(values).any():
            self._refuse(place, cells, rows)
        if "." in joined:
            self._note_decimal(".", place, cells, rows)
        if not np.isnan(values).all():
            self._are_booleans[place] = False
        return values

    def _other_values(
        self, place: int, cells: Sequence[str], rows: list[Row]
    ) -> NDArray[np.float64]:
        """Return texts by their numbers, booleans, or numbers with decimal commas or holes."""
        if place not in self._coded and place not in self._are_booleans and _are_texts(cells):
            self._coded[place] = Texts()
        if place in self._coded:
            return self._coded[place].numbered(map(as_text, cells))
        cells = ["" if cell.strip().lower() in MISSING else cell for cell in cells]
        known = [cell for cell in cells if cell]
        if self._are_booleans.get(place, True) and all(map(_is_boolean, known)):
            if known:
                self._are_booleans[place] = True
            values = {**_BOOLEANS, "": np.nan}
            return np.array([values[cell.strip().lower()] for cell in cells])
        if self._are_booleans.get(place) or not all(map(_is_finite, known)):
            self._refuse(place, cells, rows)
        self._are_booleans[place] = False
        for sign in ",.":
            if any(sign in cell for cell in known):
                self._note_decimal(sign, place, cells, rows)
        return np.array([float(cell.replace(",", ".") or "nan") for cell in cells])

    def _note_decimal(self, sign: str, place: int, cells: Sequence[str], rows: list[Row]) -> None:
        """Note what decimals are written with; InputError where both signs are used."""
        if sign == "." and self._decimal and self._decimal[0] == ".":
            return  # as nearly always
        row = next(row for row, cell in enumerate(cells) if sign in cell)
        at = f"{self._at(place, rows[row][0])}: {cells[row]!r}"
        self._decimal = self._decimal or (sign, at)
        if self._decimal[0] != sign:
            raise InputError(
                f"{at} has a {'comma' if sign == ',' else 'point'}, and other decimals have not "
                f"({self._decimal[1]}): write all alike, and no signs between thousands"
            )
        if sign == ",":
            self._unclear = self._unclear or at
            thousands = (_THOUSANDS.fullmatch(cell) for cell in cells if "," in cell)
            self._is_clear = self._is_clear or not all(thousands)

    def _at(self, place: int, line: int) -> str:
        return f"{self._where}, line {line}, {self._layout.name(place)}"

    def _refuse(self, place: int, cells: Sequence[str], rows: list[Row]) -> NoReturn:
        """Raise the InputError for the first cell of a column that is no value."""
        first = next(cell for cell in cells if cell.strip().lower() not in MISSING)
        of_booleans = self._are_booleans.get(place, _is_boolean(first))
        is_fine = _is_boolean if of_booleans else _is_finite
        row, cell = next(
            (row, cell)
            for row, cell in enumerate(cells)
            if cell.strip().lower() not in MISSING and not is_fine(cell)
        )
        at, shown = self._at(place, rows[row][0]), repr(cell[:40])
        if of_booleans:
            raise InputError(f"{at}: {shown} stands in a column of True and False: write all alike")
        if _DATE.match(cell):
            raise date_error(at, shown)
        if cell is first and place not in self._are_booleans and cell.strip()[0].isalpha():
            raise text_error(at, shown)  # no number stands above it
        raise InputError(
            f"{at}: {shown} is not a finite number: write it plainly, without a unit or signs "
            "between thousands, or leave out the row"
        )


def _are_texts(cells: Sequence[str]) -> bool:
    """Whether most cells of a column that are not empty are neither numbers nor dates."""
    known = [cell for cell in cells if cell.strip().lower() not in MISSING]
    texts = (not (is_value(cell) or _LIKE_NUMBER.fullmatch(cell.strip())) for cell in known)
    return 2 * sum(texts) > len(known)


def _is_boolean(cell: str) -> bool:
    return cell.strip().lower() in _BOOLEANS


def _is_finite(cell: str) -> bool:
    """Whether a cell is a number that can be used."""
    if _DECIMAL_COMMA.fullmatch(cell):
        return True
    return _is_number(cell) and bool(np.isfinite(float(cell)))
