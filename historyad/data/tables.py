"""Arrays and tables from files: .npy, .npz and .csv, never with code in them."""

import csv
import math
from array import array
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from historyad.errors import InputError

Labels = NDArray[np.int64]
Samples = np.ndarray[Any, Any]  # whatever the file holds; `datasets` makes samples of it


def load_npy(path: Path) -> Samples:
    """Memory-map an array, so that its size does not matter."""
    try:
        loaded = np.load(path, mmap_mode="r", allow_pickle=False)
    # numpy answers a damaged file with ValueError, EOFError, OSError, SyntaxError, ...
    except Exception as error:
        raise InputError(_unusable(path, error)) from error
    if not isinstance(loaded, np.ndarray):
        loaded.close()
        raise InputError(f"{path} is an archive of arrays; rename it to end in .npz")
    return loaded


def load_npz(path: Path, key: str) -> tuple[Samples, Labels | None]:
    """Return the array ``key``, or the only candidate, and the file's labels if they fit it."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            key = key or _only_candidate(path, archive)
            if key not in archive.files:
                raise InputError(f"{path} has no array '{key}'; it has {', '.join(archive.files)}")
            samples = archive[key]
            labels = next((archive[name] for name in ("y", "labels") if name in archive), None)
    except InputError:
        raise
    except Exception as error:
        raise InputError(_unusable(path, error)) from error
    fits = labels is not None and samples.ndim > 0 and labels.shape == samples.shape[:1]
    return samples, whole_numbers(labels) if fits else None


def _unusable(path: Path, error: Exception) -> str:
    return (
        f"{path} cannot be read as arrays of numbers ({error or type(error).__name__}); "
        "write it again with numpy.save or numpy.savez, without Python objects"
    )


def _only_candidate(path: Path, archive: Any) -> str:
    """Name the one array that can be samples, judged by headers alone."""
    keys = [key for key in archive.files if len(_npz_shape(archive, key)) in (2, 3, 4)]
    if len(keys) == 1:
        return str(keys[0])
    raise InputError(
        f"{path} holds {len(keys)} arrays that could be samples, of {', '.join(archive.files)}; "
        f"name one, as in {path.name}:KEY"
    )


def _npz_shape(archive: Any, key: str) -> tuple[int, ...]:
    with archive.zip.open(key + ".npy") as member:
        major, _ = np.lib.format.read_magic(member)
        read = (
            np.lib.format.read_array_header_1_0
            if major == 1
            else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = read(member)
    return shape if dtype.kind in "buif" else ()


def load_csv(path: Path) -> Samples:
    """Read a comma-separated table as float64 (N, F); the first line may be a header.

    Raises InputError for what is no table of finite numbers, and for names or numbers of rows and
    columns that would pass for data.
    """
    values = array("d")
    width = 0
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            lines = csv.reader(stream)
            for cells in lines:
                where = f"{path}, line {lines.line_num}"
                if lines.line_num == 1:
                    _refuse_numbering(cells, where)
                if not cells or (lines.line_num == 1 and _is_header(cells)):
                    continue
                width = width or len(cells)
                if len(cells) != width:
                    raise InputError(f"{where}: {len(cells)} cells, {width} expected")
                values.extend(_numbers(cells, where))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"{path} cannot be read as a table ({error}); save it as comma-separated UTF-8 text"
        ) from error
    if not width:
        raise InputError(f"{path} holds no rows of numbers; give one line per sample")
    return np.frombuffer(values).reshape(-1, width)


def _refuse_numbering(cells: list[str], where: str) -> None:
    """Refuse a first line of pandas' that numbers rows or columns: the numbers look like data."""
    if len(cells) > 1 and not cells[0] and all(cells[1:]):
        raise InputError(
            f"{where}: column 1 has no name and looks like row numbers: write the file with "
            "index=False, or name the column if it is data"
        )
    if len(cells) > 1 and cells == list(map(str, range(len(cells)))):
        raise InputError(
            f"{where}: 0 to {len(cells) - 1} looks like column numbers: write the file with "
            "header=False, or put a line of names above it if it is data"
        )


def _is_header(cells: list[str]) -> bool:
    """Whether no cell is a number: one that is speaks for data with a bad cell."""
    return not any(map(_is_number, cells))


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _numbers(cells: list[str], where: str) -> list[float]:
    try:
        numbers = [float(cell) for cell in cells]
    except ValueError:
        numbers = [float(cell) if _is_number(cell) else math.nan for cell in cells]
    for column, number in enumerate(numbers, start=1):
        if not math.isfinite(number):
            raise InputError(
                f"{where}, column {column}: '{cells[column - 1]}' is not a finite number; "
                f"{_remedy(cells)}"
            )
    return numbers


def _remedy(cells: list[str]) -> str:
    """Say what to do about a line with a cell that is no number."""
    if len(cells) == 1:
        for separator, name in ((";", "semicolons"), ("\t", "tabs"), (" ", "spaces")):
            if separator in cells[0].strip():
                return f"the line is separated by {name}: separate cells by commas"
    return "fill or remove it"


def whole_numbers(labels: Any) -> Labels | None:
    """Labels as int64, or None where they are not whole numbers."""
    values = np.asarray(labels)
    if values.dtype.kind not in "buif" or not (values == np.floor(values)).all():
        return None
    whole: Labels = values.astype(np.int64)
    return whole
