"""Which cells of a table of text are names, units and values, judged by its first rows."""

import re
from collections import Counter

import numpy as np

from historyad.data.cells import MISSING, Layout, Row, is_value
from historyad.data.tables import UNNAMED, Roles, refuse_doubles
from historyad.errors import InputError

Column = tuple[str, ...]  # its cells

_FRACTION = re.compile(r"\s*[+-]?\d*[.,]\d*([eE][+-]?\d+)?\s*")
_FEWEST_NUMBERED = 8  # columns whose names would be numbers in equal steps


def find_layout(rows: list[Row], where: str, roles: Roles, separator: str) -> tuple[Layout, int]:
    """Return what the columns are, judged by the first rows, and how many rows are above values."""
    header, n_above = _header(rows, where, roles)
    body = [cells for _, cells in rows[n_above:]]
    if not body:
        raise InputError(f"{where} holds no rows of numbers; give one line per sample")
    width = Counter(map(len, body)).most_common(1)[0][0]
    columns = list(zip(*(cells for cells in body if len(cells) == width), strict=True))
    if header is None:
        roles.places((), where)
        return _without_names(columns), n_above
    line, names = header
    at = f"{where}, line {line}"
    names = _fit_names(names, columns, at, are_commas=separator == ",")
    return _with_names(names, columns, at, roles), n_above


def _without_names(columns: list[Column]) -> Layout:
    """Return the layout of a table without names; empty columns at its end are none."""
    width = len(columns)
    used = 1 + max((place for place in range(width) if any(columns[place])), default=0)
    return Layout(width, (), tuple(range(used)), None, None, tuple(range(used, width)))


def _fit_names(
    names: list[str], columns: list[Column], where: str, *, are_commas: bool
) -> list[str]:
    """Return one name for each column, "" where it has none."""
    width = len(columns)
    if len(names) == width:
        return ["" if names[0] == UNNAMED else names[0], *names[1:]]
    if len(names) > width and not any(names[width:]):
        return names[:width]
    if len(names) == width - 1 and not any(columns[-1]):
        return [*names, ""]
    may_be_decimals = are_commas and _may_be_whole_parts(columns[0], width)
    if len(names) == width - 1 and _can_be_row_names(columns[0]) and not may_be_decimals:
        return ["", *names]  # as R writes them
    hint = ""
    if width == 2 * len(names) or may_be_decimals:
        hint = "; where commas separate cells, decimals are written with points"
    raise InputError(
        f"{where}: {len(names)} names, but the rows have {width} cells: give each column one "
        f"name{hint}"
    )


def _can_be_row_names(cells: Column) -> bool:
    """Whether cells tell rows apart, and are none that were measured."""
    return len(set(cells)) == len(cells) and not any(_FRACTION.fullmatch(cell) for cell in cells)


def _may_be_whole_parts(cells: Column, width: int) -> bool:
    """Whether numbers in the first of so many columns may stand before commas of decimals."""
    counts = cells == tuple(str(row + 1) for row in range(len(cells)))  # as R names rows
    return all(map(is_value, cells)) and (width == 2 or not counts)


def _with_names(names: list[str], columns: list[Column], where: str, roles: Roles) -> Layout:
    """Return the layout of columns of which one, the first, may name the rows and have no name."""
    empty = tuple(i for i, name in enumerate(names) if not name and not any(columns[i]))
    unnamed = [i for i, name in enumerate(names) if not name and any(columns[i])]
    for place in unnamed:
        if place or len(set(columns[0])) < len(columns[0]):
            raise InputError(
                f"{where}: column {place + 1} has no name: give it one, or leave it out"
            )
    refuse_doubles([name for name in names if name], where)
    id_place, group_place = roles.places(names, where)
    others = {*empty, *unnamed, id_place, group_place}
    values = tuple(place for place in range(len(names)) if place not in others)
    if not values:
        raise InputError(f"{where}: there is no column of numbers besides; give some")
    if id_place is None and unnamed:
        id_place = unnamed[0]
    texts = tuple(place for place in values if names[place] in roles.texts)
    called = tuple(names[place] for place in values)
    return Layout(len(names), called, values, id_place, group_place, empty, texts)


def _header(rows: list[Row], where: str, roles: Roles) -> tuple[Row | None, int]:
    """Return the line of names, if there is one, and how many rows are above the values."""
    n_above = int(bool(rows) and rows[0][1][0].startswith("sep="))
    told = None  # by a comment
    while len(rows) > n_above + 1 and _is_comment(rows[n_above][1], rows[n_above + 1][1]):
        told = rows[n_above]
        n_above += 1
    if len(rows) == n_above:
        return None, n_above
    (line, cells), *body = [(line, cells) for line, cells in rows[n_above : n_above + 3]]
    if told and (names := _names_in_comment(told[1], cells)):
        return (told[0], names), n_above
    below = [cells for _, cells in body]
    if not _is_header(cells, below[0] if below else [], f"{where}, line {line}", roles):
        return None, n_above
    n_units = len(below) > 1 and _is_units(*below)
    return (line, [cell.strip() for cell in cells]), n_above + 1 + n_units


def _is_comment(cells: list[str], below: list[str]) -> bool:
    """Whether a row is a comment; a column may well be called #."""
    return cells[0].startswith("#") and not (cells[0] == "#" and len(cells) == len(below))


def _names_in_comment(cells: list[str], below: list[str]) -> list[str]:
    """Return the names that numpy.savetxt writes as a comment above values, or none."""
    names = [cells[0].lstrip("#").strip(), *(cell.strip() for cell in cells[1:])]
    names = names if names[0] else names[1:]  # separated by spaces, the sign is a cell
    fits = len(names) == len(below) and all(names) and not any(map(is_value, names))
    return names if fits and any(map(is_value, below)) else []


def _is_header(cells: list[str], below: list[str], where: str, roles: Roles) -> bool:
    """Whether a first line, above the row ``below``, holds names.

    Raises InputError for one that may hold names or values.
    """
    if {roles.id_column, roles.group_column} & {cell.strip() for cell in cells}:
        return True
    text = [place for place, cell in enumerate(cells) if cell and not is_value(cell)]
    values = [place for place, cell in enumerate(cells) if is_value(cell)]
    if text and values:
        # Where a number stands below text, the line is none of values.
        is_above_values = text[0] < len(below) and is_value(below[text[0]])
        if is_above_values and not _are_numbered([cells[place] for place in values]):
            raise InputError(
                f"{where}: {cells[text[0]]!r} is no number and {cells[values[0]]!r} is one: if "
                "these are names of columns, begin each with a letter, and if they are values, "
                "mend the cell"
            )
        return is_above_values
    if text:
        return True
    if len(cells) > 1 and not cells[0] and all(cells[1:]):
        return _is_above_row_names(below, where)
    _refuse_numbering(cells, below, where)
    return False


def _is_above_row_names(below: list[str], where: str) -> bool:
    """Whether numbers behind an empty cell are names of columns: pandas' if row 0 comes next."""
    if below and (below[0] == "0" or not is_value(below[0])):
        return True
    raise InputError(
        f"{where}: the first cell is empty: fill it or, if this is a line of names, name column 1"
    )


def _refuse_numbering(cells: list[str], below: list[str], where: str) -> None:
    """Refuse a first line that numbers columns: the numbers look like data."""
    counts = len(cells) > 1 and cells == list(map(str, range(len(cells))))
    # Of few columns, only where what comes next are no whole numbers: years above shares.
    follow = _are_consecutive(cells) and any(map(_FRACTION.fullmatch, below))
    if counts or follow or _are_numbered(cells):
        raise InputError(
            f"{where}: {cells[0]} to {cells[-1]} looks like column numbers: write the file with "
            "header=False or, if they are data, put a line of names above it"
        )


def _are_consecutive(cells: list[str]) -> bool:
    if len(cells) < 2 or not all(map(str.isdecimal, cells)):
        return False
    return list(map(int, cells)) == list(range(int(cells[0]), int(cells[0]) + len(cells)))


def _are_numbered(cells: list[str]) -> bool:
    """Whether cells are several numbers in equal steps, as names of columns are."""
    try:
        with np.errstate(invalid="ignore"):  # of infinite ones
            steps = np.diff([float(cell) for cell in cells])
    except ValueError:
        return False
    return len(cells) >= _FEWEST_NUMBERED and bool(
        steps[0] and np.allclose(steps, steps[0], rtol=1e-6, atol=0)
    )


def _is_units(cells: list[str], below: list[str]) -> bool:
    """Whether a row below the names holds units: text alone, and numbers below it."""
    text = [place for place, cell in enumerate(cells) if cell.strip().lower() not in MISSING]
    numbers_below = any(place < len(below) and is_value(below[place]) for place in text)
    return numbers_below and not any(map(is_value, cells))
