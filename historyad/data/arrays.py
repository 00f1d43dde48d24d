"""Arrays from files: .npy and .npz, never with code in them."""

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


def whole_numbers(labels: Any) -> Labels | None:
    """Labels as int64, or None where they are not whole numbers."""
    values = np.asarray(labels)
    if values.dtype.kind not in "buif" or not (values == np.floor(values)).all():
        return None
    whole: Labels = values.astype(np.int64)
    return whole
