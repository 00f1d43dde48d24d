"""Names of files as a terminal, a log and a spreadsheet may see them: text, and never a command.

A file may be called anything: an escape sequence that clears the screen, two lines of which the
second looks like a message of ours, or a formula. JSON and Parquet keep a name as it is.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

# What begins a formula; the wide forms are taken for the others where the language has them.
_FORMULA = tuple("=+-@＝＋－＠")


def shown(text: object, keep: str = "") -> str:
    r"""Return a text with what is not printed written as an escape: a newline becomes ``\n``.

    So do control characters, what changes the direction of writing, and bytes of a file name that
    are no UTF-8. Those in ``keep`` stay.
    """
    text = str(text)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else _escape(c) for c in text)


def as_cell(text: str) -> str:
    """Return a name as a cell of a CSV table: as it is `shown`, and after ' where it is a formula.

    The apostrophe is how spreadsheets mark that a cell is text.
    """
    cell = shown(text)
    return "'" + cell if cell.startswith(_FORMULA) else cell


def within(folder: Path, name: str) -> Path:
    """Return where a file of that name belongs in ``folder``: never outside of it.

    A member of a tar file may be called ``../../x.png``.
    """
    parts = (part for part in PurePosixPath(name).parts if part not in ("/", "//", ".."))
    return folder.joinpath(*parts)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()


def without_keys(address: str) -> str:
    """Return an address as it may be shown: keys that stand in it are left out."""
    return re.sub(r"://[^/@]*@", "://", address)
