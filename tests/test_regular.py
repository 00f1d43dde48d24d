import os
import socket

import pytest

from historyad.regular import open_regular, read_regular


def test_regular_files_are_read_also_behind_links(tmp_path):
    (tmp_path / "a").write_bytes(b"12345")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    for name in ("a", "link"):
        assert read_regular(tmp_path / name, 5) == b"12345"
        with pytest.raises(OSError, match="it has 5 bytes, more than the 4 that are read"):
            read_regular(tmp_path / name, 4)
    (tmp_path / "a").write_bytes(b"")
    assert read_regular(tmp_path / "a", 0) == b""
    assert b"Name:" in read_regular(tmp_path.__class__("/proc/self/status"), 10_000)  # of size 0


def test_files_that_never_end_are_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        for name in ("pipe", "zero", "socket"):
            with pytest.raises(OSError, match="it is no regular file"):
                open_regular(tmp_path / name)
    with pytest.raises(IsADirectoryError):
        open_regular(tmp_path)
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "none")


def test_what_is_exchanged_for_a_pipe_at_the_last_moment_is_not_read(tmp_path, monkeypatch):
    path = tmp_path / "a"
    path.touch()
    opened = os.open

    def exchange(*arguments):
        path.unlink()
        os.mkfifo(path)
        return opened(*arguments)

    monkeypatch.setattr(os, "open", exchange)
    with pytest.raises(OSError, match="it is no regular file"):
        open_regular(path)
