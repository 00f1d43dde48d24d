"""Which files of a folder are images, in which order, and what of it is left out."""

import os
import re
import stat
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from historyad.data.images import SUFFIXES
from historyad.errors import InputError

_NUMBER = re.compile(r"([0-9]+)")
_LISTED = 8  # reasons in a message


@dataclass(frozen=True)
class Contents:
    """What is in a folder and below it.

    ``images`` are files with the suffix of one, in natural order of their relative paths, in which
    frame_2 comes before frame_10. ``left_out`` counts by reason what is no image, hidden, or no
    regular file, and ``closed`` has the (relative path, reason) of folders that cannot be entered.
    """

    images: list[Path]
    left_out: dict[str, int]
    closed: list[tuple[str, str]]


def look_into(folder: Path) -> Contents:
    """Return what is in ``folder`` and below it, also behind links; nothing is opened.

    Each folder is read once, under its own name rather than that of a link.
    """
    walk = _Walk(folder)
    walk.enter(folder)
    while walk.links:
        # After the folders themselves, so that a link to one of them adds nothing.
        links, walk.links = sorted(walk.links, key=natural), []
        for link in links:
            walk.enter(link)
    images = sorted(walk.images, key=natural)
    closed = sorted(walk.closed, key=lambda found: natural(found[0]))
    return Contents(images, dict(walk.left_out), closed)


def find_images(folder: Path) -> list[Path]:
    """Return the images of `look_into`."""
    return look_into(folder).images


def natural(path: Path | str) -> tuple[list[str | int], str]:
    """Return a key that sorts by numbers where names have them; equal for equal paths alone."""
    text = path if isinstance(path, str) else path.as_posix()
    parts = _NUMBER.split(text)
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], text


def describe(left_out: Mapping[str, int]) -> str:
    """Return ".txt files (3), hidden folders (1)": most first."""
    counts = sorted(left_out.items(), key=lambda item: (-item[1], item[0]))
    more = sum(count for _, count in counts[_LISTED:])
    shown = [f"{reason} ({count:,})" for reason, count in counts[:_LISTED]]
    return ", ".join([*shown, *([f"others ({more:,})"] if more else [])])


class _Walk:
    """A walk through a folder: what was found so far, and ``links`` to folders to enter yet."""

    def __init__(self, folder: Path) -> None:
        self.images: list[Path] = []
        self.links: list[Path] = []
        self.left_out: Counter[str] = Counter()
        self.closed: list[tuple[str, str]] = []
        self._folder = folder
        self._entered: set[tuple[int, int]] = set()

    def enter(self, folder: Path) -> None:
        """Note what is in ``folder`` and below it."""
        pending = [folder]
        while pending:
            here = pending.pop()
            try:
                if self._is_new(here):
                    with os.scandir(here) as entries:
                        pending += self._note(entries)
            except OSError as error:
                name = here.relative_to(self._folder).as_posix()
                self.closed.append((name, f"the folder cannot be entered ({error.strerror})"))

    def _is_new(self, folder: Path) -> bool:
        found = folder.stat()
        place = found.st_dev, found.st_ino
        if place in self._entered:
            self.left_out["links to folders that are read anyway"] += 1
            return False
        self._entered.add(place)
        return True

    def _note(self, entries: Iterator[os.DirEntry[str]]) -> Iterator[Path]:
        """Yield the folders among ``entries``, and note the rest."""
        for entry in entries:
            kind = _kind_of(entry)
            suffix = os.path.splitext(entry.name)[1].lower()  # noqa: PTH122  a Path takes longer
            if entry.name.startswith("."):
                self._note_hidden(kind, suffix)
            elif kind == "folder":
                yield Path(entry)
            elif kind == "link":
                self.links.append(Path(entry))
            elif suffix not in SUFFIXES:
                self.left_out[f"{suffix} files" if suffix else "files without a suffix"] += 1
            elif kind == "file":
                self.images.append(Path(entry))
            else:
                self.left_out["pipes, devices and sockets"] += 1

    def _note_hidden(self, kind: str, suffix: str) -> None:
        if kind == "folder":
            self.left_out["hidden folders"] += 1
        elif suffix in SUFFIXES:  # of others, as .DS_Store, nobody wants to hear
            self.left_out["hidden images"] += 1


def _kind_of(entry: os.DirEntry[str]) -> str:
    """Return file, folder, link (to a folder) or irregular; no call of the system for most."""
    if entry.is_file(follow_symlinks=False):
        return "file"
    if entry.is_dir(follow_symlinks=False):
        return "folder"
    try:
        mode = entry.stat().st_mode
    except OSError:
        return "file"  # a broken link: one that cannot be read
    if stat.S_ISDIR(mode):
        return "link"
    return "file" if stat.S_ISREG(mode) else "irregular"


# --- folders of whole data sets


def normal_part(path: Path) -> Path | None:
    """Return ``train/good`` of a data set in MVTec's layout, where ``path`` is its root."""
    return path / "train" / "good" if _is_root(path) else None


def of_category(path: Path, category: str | None) -> Path:
    """Return the data set called ``category`` in a folder of several, or ``path`` where none is.

    Raises InputError, which lists those that are there, for a folder of several without a category,
    and for one that it has not.
    """
    there = [folder.name for folder in _folders_in(path) if _is_root(folder)]
    if category is None:
        if there and not _is_root(path):
            raise InputError(
                f"{path} holds {_several(there)}: choose with --category, or give its folder"
            )
        return path
    if category in there:
        return path / category
    if _is_root(path):
        raise InputError(f"{path} is one data set itself: leave out --category {category}")
    raise InputError(
        f"{path} has no data set {category}: it holds {_several(there)}"
        if there
        else f"{path} holds no data set in MVTec's layout, NAME/train/good and NAME/test/KIND, of "
        "which --category could choose one"
    )


def _several(names: list[str]) -> str:
    return f"{len(names)} data set{'s' * (len(names) != 1)} ({', '.join(names)})"


def defects_in(root: Path) -> dict[str, tuple[Path, Path]]:
    """Return the kinds of defects of a data set in MVTec's layout: its images, and its masks.

    The folder of masks may be missing. Raises InputError for another layout.
    """
    if not (_is_root(root) and _is_folder(root / "test" / "good")):
        raise InputError(
            f"{root} is no data set in MVTec's layout: give a folder with train/good, test/good "
            "and test/KIND, or --normal and --anomalous"
        )
    kinds = [folder for folder in _folders_in(root / "test") if folder.name != "good"]
    if not kinds:
        raise InputError(f"{root / 'test'} holds no kind of defect: give a folder of some there")
    return {kind.name: (kind, root / "ground_truth" / kind.name) for kind in kinds}


def refuse_dataset_root(path: Path) -> None:
    """Raise InputError for a folder in which normal images lie beside anomalous ones and masks.

    That is the root of a data set in MVTec's layout (``train/good``, ``test``, ``ground_truth``), a
    folder of such roots, and ``test`` or ``ground_truth`` of one.
    """
    parent = path.absolute().parent
    root = next((root for root in (path, parent, *_folders_in(path)) if _is_root(root)), None)
    is_fine = root == parent and path.absolute().name not in ("test", "ground_truth")
    if root is not None and not is_fine:
        raise InputError(
            f"{path} holds anomalous images or masks beside normal ones: what to learn from is in "
            f"{root / 'train' / 'good'}"
        )


def _is_root(path: Path) -> bool:
    others = _is_folder(path / "test") or _is_folder(path / "ground_truth")
    return others and _is_folder(path / "train" / "good")


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # which may not be looked at
        return False


def _folders_in(path: Path) -> list[Path]:
    try:
        with os.scandir(path) as entries:
            return sorted(Path(entry) for entry in entries if _kind_of(entry) in ("folder", "link"))
    except OSError:
        return []
