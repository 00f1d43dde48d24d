"""What may happen to files: damage, and a disk that is full or read-only."""

import errno
import os
import resource
import subprocess
from pathlib import Path

from hypothesis import strategies as st


@st.composite
def damages(draw):
    """Return a function that damages bytes: cuts, flips, inserts or replaces some of them."""
    kind = draw(st.sampled_from(["cut", "flip", "insert", "replace"]))
    place = draw(st.floats(0, 1, exclude_max=True))
    new = draw(st.binary(min_size=1, max_size=12))

    def damage(data):
        i = int(place * len(data))
        return {
            "cut": data[:i],
            "flip": data[:i] + bytes([data[i] ^ new[0]]) + data[i + 1 :],
            "insert": data[:i] + new + data[i:],
            "replace": new + data[:i],
        }[kind]

    return damage


class Disk:
    """A small disk. Root gets a real one, others a limit on file sizes and a mode."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        self.is_real = self._mount("-t", "tmpfs", "-o", "size=8m", "tmpfs")

    def _mount(self, *arguments: str) -> bool:
        command = ["mount", *arguments, str(self.path)]
        return os.getuid() == 0 and subprocess.run(command, check=False).returncode == 0

    def fill(self) -> None:
        if not self.is_real:
            _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
            return
        with (self.path / ".filler").open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError as error:
                assert error.errno == errno.ENOSPC  # noqa: PT017

    def free(self) -> None:
        if self.is_real:
            (self.path / ".filler").unlink()
        else:
            _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))

    def write_protect(self, on: bool) -> None:
        if self.is_real:
            assert self._mount("-o", f"remount,{'ro' if on else 'rw'}")
        else:
            for folder in [self.path, *filter(Path.is_dir, self.path.rglob("*"))]:
                folder.chmod(0o555 if on else 0o755)

    def close(self) -> None:
        if self.is_real:
            subprocess.run(["umount", str(self.path)], check=True)
        else:
            self.free()
            self.write_protect(False)


def too_deep(folder: Path) -> str:
    """Make folders in each other, so deep that nobody enters the last by its path, nor root.

    Return what the first that cannot be entered is called, from the parent of ``folder``.
    """
    folder.mkdir()
    name, path = "x" * 250, folder
    here = os.open(folder, os.O_RDONLY)
    while len(str(path)) < 4096:
        os.mkdir(name, dir_fd=here)
        below = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here, path = below, path / name
    os.close(here)
    return path.relative_to(folder.parent).as_posix()
