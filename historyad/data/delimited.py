"""Tables as text, read as people and programs write them, or refused with what to do.

====================================  ============================================================
the file                              how it is read
====================================  ============================================================
encoding                              UTF-8 or UTF-16, with or without a mark; Windows' and Latin-1
separator                             tab, semicolon, bar, comma or spaces: the first of these that
                                      gives most lines one number of cells, more than one
decimals                              points, or commas where all have commas; what may be
                                      thousands, as 1,234, is taken for decimals after semicolons
                                      only
first line                            names of columns, if it holds no number; pandas' numbers above
                                      row numbers; a comment, # a,b, as numpy writes it
a name too few                        the first column names the rows, as R writes them; between
                                      commas not if it may be the whole part of a decimal
a column without a name               names the rows if it is the first, also as Unnamed: 0, which
                                      pandas calls it; is passed over if it is empty, as after a
                                      separator at the end of each line
a line of units                       passed over: the second, where it holds no number and the
                                      third does
True, False                           1, 0, in any case, in a column that holds nothing else
texts                                 categories, where most of a column are; also whatever is known
                                      to be, as codes in a table that is scored
an empty cell, NA, nan, null, ?, -    missing
lines without any value               passed over at the end, as are empty ones everywhere
anything else                         an InputError that names line and column
====================================  ============================================================
"""

import codecs
import csv
import gzip
import io
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain, islice
from pathlib import Path
from typing import IO, cast

from historyad.data.cells import Cells, Row
from historyad.data.layout import find_layout
from historyad.data.tables import Roles, Table
from historyad.errors import InputError

_SEPARATORS = ("\t", ";", "|", ",", " ")
_CHUNK_LINES = 1 << 14  # held as text at a time
SAMPLE_LINES = 100  # on which the separator is judged


def read_delimited(path: Path, roles: Roles, chunk_lines: int = 0) -> Table:
    """Read a table of text, perhaps compressed by gzip, by the rules above.

    So many lines are held as text at a time; the first of them tell what the columns are.
    Raises InputError for what is no such table, and for columns of ``roles`` that are not there.
    """
    with _said_of(path):
        for encoding in _encodings(path):
            with suppress(UnicodeDecodeError), _open(path) as file:
                text = io.TextIOWrapper(file, encoding, newline="")
                *_, cells = _filled(text, str(path), roles, chunk_lines)
                return cells.table()
    raise _no_text(path)


def read_parts(path: Path, roles: Roles, chunk_lines: int = 0) -> Iterator[tuple[Table, float]]:
    """Yield some rows of such a table at a time, and the share of the file that is read by then.

    Errors are those of `read_delimited`, as soon as their rows are read.
    """
    with _said_of(path), _open(path) as file:
        text = io.TextIOWrapper(file, _encoding(path), newline="")
        size, raw = max(1, path.stat().st_size), getattr(file, "fileobj", file)
        for cells in _filled(text, str(path), roles, chunk_lines):
            yield cells.take(), raw.tell() / size


@contextmanager
def _said_of(path: Path) -> Iterator[None]:
    """Say as an InputError what is wrong with a file."""
    try:
        yield
    except csv.Error as error:
        raise InputError(
            f"{path} cannot be read as a table ({error}); is a quote missing?"
        ) from error
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(
            f"{path} cannot be read as a table ({error}); save it again as UTF-8 text"
        ) from error


def _no_text(path: Path) -> InputError:
    return InputError(f"{path} is no text in any known encoding; save it as UTF-8 text")


def _encoding(path: Path) -> str:
    """Return the first encoding that all of a file is in."""
    for encoding in _encodings(path):
        with suppress(UnicodeDecodeError), _open(path) as file:
            for _ in codecs.iterdecode(iter(lambda: file.read(1 << 20), b""), encoding):
                pass
            return encoding
    raise _no_text(path)


def _open(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path)) if path.suffix.lower() == ".gz" else path.open("rb")


def _encodings(path: Path) -> tuple[str, ...]:
    """Return the encodings to try, in this order, judged by the first bytes."""
    with _open(path) as file:
        head = file.read(1 << 12)
    # Of digits and separators in UTF-16, every second byte is zero.
    zeros = [head[first::2].count(0) for first in (0, 1)]
    if all(zeros) or 0 < max(zeros) < len(head) // 3:
        raise InputError(f"{path} is no text: save it as a table of UTF-8 text, such as .csv")
    if head.startswith(codecs.BOM_UTF8):
        return ("utf-8-sig",)
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return ("utf-16",)
    if any(zeros):
        return ("utf-16-be",) if zeros[0] else ("utf-16-le",)
    return ("utf-8", "cp1252", "latin-1")


# --- rows of cells


def _filled(text: Iterable[str], where: str, roles: Roles, chunk_lines: int) -> Iterator[Cells]:
    """Yield the cells of a table each time that some lines more are in them."""
    lines, chunk_lines = iter(text), chunk_lines or _CHUNK_LINES
    some = list(islice(lines, chunk_lines))
    separator = find_separator(some[:SAMPLE_LINES])
    rows = Rows(separator)
    first = rows.parse(some, lines)
    layout, n_above = find_layout(first, where, roles, separator)
    cells = Cells(layout, separator, where)
    cells.add(first[n_above:])
    yield cells
    while some := list(islice(lines, chunk_lines)):
        if not rows.without and cells.add_lines(some):
            rows.n_lines += len(some)
        else:
            cells.add(rows.parse(some, lines))
        yield cells


def find_separator(lines: list[str]) -> str:
    """Return what separates cells, judged by the first lines below the names of columns."""
    if lines and (told := re.fullmatch(r"sep=(.)\s*", lines[0])):  # Excel's
        return told[1]
    lines = [line for line in lines if line.strip() and not line.startswith("#")] or lines
    for separator in _SEPARATORS:
        cells = Rows(separator, strict=False).parse(lines[1:] or lines, iter(()))
        widths = Counter(len(row) for _, row in cells).most_common(1)
        if widths and widths[0][0] > 1 and 2 * widths[0][1] > len(cells):
            return separator
    return ","


class Rows:
    """The rows of lines, but no empty ones, and none ``without`` a value below the last with one.

    ``n_lines`` is how many lines were read so far.
    """

    def __init__(self, separator: str, *, strict: bool = True) -> None:
        self.without: list[Row] = []
        self.n_lines = 0
        self._separator, self._strict = separator, strict

    def parse(self, some: list[str], more: Iterator[str]) -> list[Row]:
        """Return the rows of ``some`` lines, and what of ``more`` the last of them goes on in."""
        found: list[Row] = []
        lines: Iterator[str] = chain(some, more)
        if self._separator == " ":
            lines = map(str.strip, lines)
        reader = csv.reader(
            lines, delimiter=self._separator, skipinitialspace=True, strict=self._strict
        )
        while reader.line_num < len(some) and (cells := next(reader, None)) is not None:
            row = self.n_lines + reader.line_num, cells
            if any(cells):
                found += [*self.without, row]
                self.without.clear()
            elif cells:
                self.without.append(row)
        self.n_lines += reader.line_num
        return found
