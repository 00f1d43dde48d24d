import io
import tarfile

import numpy as np
import pytest
from archives import png, write_shard
from hypothesis import given
from storing import damages
from tiny import on_disk

from historyad.data.shards import Shards, find_shards
from historyad.errors import InputError


@pytest.fixture
def folder(tmp_path):
    """Three shards of four images each, whose grey value is their number."""
    for shard in range(3):
        numbers = range(4 * shard, 4 * shard + 4)
        members = [
            (f"{n:04}.{end}", b"3" if end == "cls" else png(n))
            for n in numbers
            for end in ("cls", "png")
        ]
        write_shard(tmp_path / "shards" / f"x-{shard:02}.tar", members)
    return tmp_path / "shards"


# --- which files


@pytest.mark.parametrize(
    "pattern", ["", "x-{00..02}.tar", "x-*.tar", "x-0[0-2].tar", "x-0{0..2}.tar"]
)
def test_shards_are_found_in_order(folder, pattern):
    assert [path.name for path in find_shards(folder / pattern)] == [
        f"x-0{shard}.tar" for shard in range(3)
    ]


def test_one_shard_and_other_sources(folder, tmp_path):
    assert find_shards(folder / "x-01.tar") == [folder / "x-01.tar"]
    for other in (tmp_path, tmp_path / "absent", "digits:train", tmp_path / "x.npy"):
        assert find_shards(other) == []


def test_two_ranges_are_all_combinations(tmp_path):
    for name in ("a1-01", "a1-02", "a2-01", "a2-02"):
        write_shard(tmp_path / f"{name}.tar", [])
    found = find_shards(tmp_path / "a{1..2}-{01..02}.tar")
    assert [path.stem for path in found] == ["a1-01", "a1-02", "a2-01", "a2-02"]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("x-{00..03}.tar", "shard .*x-03.tar does not exist"),
        ("y-*.tar", r"no shards match .*y-\*.tar"),
        ("x-{5..1}.tar", r"\{5..1\} in .* is no range"),
        ("x-{0..99999999999}.tar", "is no range of shards"),
        ("absent.tar", "absent.tar does not exist"),
    ],
)
def test_missing_shards_are_named(folder, pattern, message):
    with pytest.raises(InputError, match=message):
        find_shards(folder / pattern)


# --- what is in them


def test_images_are_found_and_read_in_any_order(folder):
    shards = Shards(find_shards(folder))
    assert len(shards) == 12
    for number in (11, 0, 4, 3, 8):
        assert shards.read(number) == png(number)
        assert shards.name(number) == f"x-{number // 4:02}.tar/{number:04}.png"


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_and_foreign_names(tmp_path, form):
    names = ["ü/" + "long" * 60 + ".png", "b.JPEG", "plain.png"]
    path = write_shard(tmp_path / "x.tar", [(n, png(i)) for i, n in enumerate(names)], format=form)
    shards = Shards([path])
    assert [shards.name(i) for i in range(3)] == [f"x.tar/{name}" for name in names]
    assert shards.read(1) == png(1)


def test_what_is_no_image_is_passed_over(tmp_path):
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as tar:
        for name, kind in (("a.png", tarfile.SYMTYPE), ("d.png", tarfile.DIRTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
        for name in ("._b.png", ".hidden/c.png", "e.txt", "f.png"):
            info = tarfile.TarInfo(name)
            info.size = len(png(7))
            tar.addfile(info, io.BytesIO(png(7)))
    shards = Shards([path])
    assert [shards.name(i) for i in range(len(shards))] == ["x.tar/f.png"]


def test_shards_without_images(tmp_path):
    path = write_shard(tmp_path / "x.tar", [("a.txt", b"")])
    with pytest.raises(InputError, match=r"no images in .*x.tar; give tar files"):
        Shards([path])


# --- damage


def damage(path, kind):
    content = path.read_bytes()
    starts = [i for i in range(0, len(content), 512) if content[i : i + 4] == b"0006"]
    if kind == "header":  # which tarfile would take for the end
        content = content[: starts[-1]] + b"\xff" * 512 + content[starts[-1] + 512 :]
    elif kind == "cut":
        content = content[: starts[-1] + 520]
    else:
        content = b"no tar file at all" * 100
    path.write_bytes(content)


@pytest.mark.parametrize(("kind", "left"), [("header", 10), ("cut", 10), ("other", 8)])
def test_a_damaged_shard_is_named_or_left_out_from_the_damage_on(folder, kind, left):
    damage(folder / "x-01.tar", kind)
    with pytest.raises(InputError, match=r"shard .*x-01.tar cannot be read .*--skip-unreadable"):
        Shards(find_shards(folder))
    shards = Shards(find_shards(folder), skip_unreadable=True)
    assert len(shards) == left
    ((name, reason),) = shards.closed
    assert name == "x-01.tar"
    assert "cannot be read" in reason
    assert shards.read(left - 1) == png(11)


def header_of(size, kind=tarfile.REGTYPE):
    """Return the header of a member of any size, also a negative one."""
    header = bytearray(tarfile.TarInfo("a.png").tobuf(tarfile.GNU_FORMAT))
    header[124:136] = tarfile.itn(size, 12, tarfile.GNU_FORMAT)
    header[156:157] = kind
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % tarfile.calc_chksums(bytes(header))[0]
    return bytes(header)


def test_a_negative_size_ends_a_shard(folder):
    path = folder / "x-01.tar"
    whole = path.read_bytes()
    end = whole.rindex(b"0007.png")  # the header of the last of its four images
    kinds = (tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE)
    for size in (-1, -512, -1024, -(2**62)):  # some of which lead to headers that were read
        for kind in kinds:
            path.write_bytes(whole[:end] + header_of(size, kind) + whole[end + 512 :])
            with pytest.raises(InputError, match=rf"x-01.tar cannot be read .*the size {size}\)"):
                Shards(find_shards(folder))
            assert len(Shards(find_shards(folder), skip_unreadable=True)) == 11


def test_a_negative_size_in_an_extended_header_ends_a_shard(tmp_path):
    record = b"12 size=-99\n"
    header = header_of(len(record), tarfile.XHDTYPE) + record.ljust(512, b"\0")
    (tmp_path / "x.tar").write_bytes(header + header_of(0) + bytes(1024))
    with pytest.raises(InputError, match="the size -99"):
        Shards([tmp_path / "x.tar"])


def test_long_names_of_long_names_end_a_shard(tmp_path):
    (tmp_path / "x.tar").write_bytes(3000 * (header_of(1, tarfile.GNUTYPE_LONGNAME) + bytes(512)))
    with pytest.raises(InputError, match=r"cannot be read \(maximum recursion"):
        Shards([tmp_path / "x.tar"])


@on_disk
@given(damage=damages())
def test_a_damaged_shard_is_read_to_the_damage_or_is_an_input_error(tmp_path_factory, damage):
    path = tmp_path_factory.mktemp("shard") / "x.tar"
    write_shard(path, [("a.png", png(1)), ("x" * 150 + ".png", png(2)), ("b.png", png(3))])
    path.write_bytes(damage(path.read_bytes()))
    try:
        shards = Shards([path], skip_unreadable=True)
    except InputError:
        return
    assert 1 <= len(shards) <= 3
    assert all(len(shards.read(i)) <= path.stat().st_size for i in range(len(shards)))


def test_a_compressed_archive_is_refused(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w:gz"):
        pass
    with pytest.raises(InputError, match="cannot be read"):
        Shards([tmp_path / "x.tar"])


def test_an_image_file_has_a_bound(folder, monkeypatch):
    monkeypatch.setattr("historyad.data.shards._MOST_BYTES", 10)
    with pytest.raises(InputError, match="more than the 10 of an image"):
        Shards(find_shards(folder)).read(0)


def test_the_fingerprint_is_that_of_the_content_list(folder, tmp_path):
    prints = {Shards(find_shards(folder)).fingerprint}
    prints.add(Shards(find_shards(folder / "x-{00..02}.tar")).fingerprint)
    assert len(prints) == 1
    write_shard(folder / "x-02.tar", [("0008.png", png(8)), ("0009.png", png(9))])
    prints.add(Shards(find_shards(folder)).fingerprint)
    assert len(prints) == 2
    assert np.isin(len(Shards(find_shards(folder))), [10])
