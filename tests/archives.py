"""Tar files of images, for the tests of all who read them."""

import io
import tarfile

from PIL import Image


def png(value, size=(6, 4)):
    stream = io.BytesIO()
    Image.new("L", size, value).save(stream, "PNG")
    return stream.getvalue()


def write_shard(path, members, **arguments):
    """Write a tar file of (name, content)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **arguments) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path
