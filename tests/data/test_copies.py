import re
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from test_shards import write_shard
from test_streams import png_of

from historyad.data import streams
from historyad.data.copies import groups_of
from historyad.data.datasets import open_source
from historyad.data.digests import are_among, digests
from historyad.data.sources import Source
from historyad.errors import InputError


def vectors(*rows):
    return np.array(rows, np.float32)


def test_equal_samples_alone_have_equal_digests():
    found = digests(
        vectors(
            [1, 2],
            [2, 1],
            [1, 2],
            [0.0, 2],
            [-0.0, 2],
            [1, np.nextafter(np.float32(2), np.float32(3))],
        )
    )
    assert found.shape == (6, 16)
    assert found.dtype == np.uint8
    same = (found[:, None] == found).all(-1)
    assert np.argwhere(np.triu(same, 1)).tolist() == [[0, 2], [3, 4]]


def test_a_digest_is_kept_from_version_to_version():
    assert digests(np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3)).tobytes().hex() == KNOWN[0]
    assert digests(vectors([1, 2, 3])).tobytes().hex() == KNOWN[1]


KNOWN = ["1a25b21b2fcaff2a8a7ed4f20598f033", "7beee86458e397313d70daff4ae76745"]


def test_shape_and_type_count():
    values = np.arange(24, dtype=np.uint8)
    shapes = [(1, 24), (1, 4, 6, 1), (1, 6, 4, 1), (1, 2, 4, 3)]
    prints = [digests(values.reshape(shape)).tobytes() for shape in shapes]
    prints.append(digests(values.view(np.float32)[None]).tobytes())
    assert len(set(prints)) == 5


def test_digests_are_those_of_the_pixels_wherever_they_are(tmp_path, monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (9, 5, 7, 1), np.uint8)
    expected = digests(images)
    for i, image in enumerate(images):
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.fromarray(image[..., 0]).save(tmp_path / "photos" / f"{i}.png")
    write_shard(tmp_path / "x.tar", [(f"{i}.png", png_of(image)) for i, image in enumerate(images)])
    np.save(tmp_path / "x.npy", images)
    monkeypatch.setattr(streams, "PART_BYTES", 80)
    for name in ("photos", "x.tar", "x.npy"):
        for any_size in (False, True):
            source = open_source(tmp_path / name, any_size=any_size)
            np.testing.assert_array_equal(digests(source.samples), expected)
    backwards = np.asfortranarray(images)[::-1]
    np.testing.assert_array_equal(digests(backwards), expected[::-1])


def test_digests_are_quick():
    images = np.random.default_rng(0).integers(0, 256, (40, 1000, 1000, 1), np.uint8)
    started = time.process_time()
    digests(images)
    seconds = time.process_time() - started
    assert images.nbytes / seconds > 100e6  # about 600e6 where nothing else is done


def test_what_is_among_others():
    some, others = digests(vectors([1], [2], [3])), digests(vectors([3], [9], [1], [1]))
    assert are_among(some, others).tolist() == [True, False, True]
    assert are_among(some, others[:0]).tolist() == [False] * 3


# --- groups


def test_copies_share_a_group_and_groups_are_numbered_as_they_come():
    source = open_source(vectors([5], [1], [5], [2], [1]))
    assert groups_of(source).tolist() == [0, 1, 0, 2, 1]


def named(names, rows=None, groups=()):
    rows = np.arange(len(names)) if rows is None else np.array(rows)
    return replace(open_source(rows[:, None].astype(np.float32)), names=names, groups=groups)


def test_a_pattern_says_which_names_belong_together():
    names = ["a/p1_1.png", "a/p1_2.png", "b/p2_1.png", "b/p1_3.png", "other.png", "other2.png"]
    for pattern, expected in (
        (r"(p\d+)_", [0, 0, 1, 0, 2, 3]),
        (r"^\w/", [0, 0, 1, 1, 2, 3]),
        (r"p(\d)_(\d)", [0, 0, 1, 0, 2, 3]),
        (r"^.*?/|(2)", [0, 1, 2, 3, 4, 5]),  # a group that is not there says nothing
        (r"png", [0] * 6),
    ):
        assert groups_of(named(names), pattern).tolist() == expected, pattern
    with pytest.raises(InputError, match=r"'lot' matches no name of .* the first is 'a/p1_1.png'"):
        groups_of(named(names), "lot")
    with pytest.raises(InputError, match=r"'\(p' is no regular expression \(.*\): write one"):
        groups_of(named(names), "(p")


def test_what_belongs_together_by_way_of_others_is_one_group():
    names = ["p1_1", "p1_2", "p2_1", "p2_2", "p3_1", "p4_1"]
    copies = named(names, rows=[0, 1, 1, 2, 3, 4])  # a photo of part 1 is one of part 2
    assert groups_of(copies, r"(p\d)").tolist() == [0, 0, 0, 0, 1, 2]
    lots = replace(copies, groups=["x", "y", "z", "u", "v", "u"])
    assert groups_of(lots).tolist() == [0, 1, 1, 2, 3, 2]
    assert groups_of(lots, r"(p\d)").tolist() == [0, 0, 0, 0, 1, 0]


def test_a_column_of_a_table_says_what_belongs_together(tmp_path):
    (tmp_path / "x.csv").write_text("lot,a\nu,1\nv,2\nu,3\nw,2\n")
    source = open_source(tmp_path / "x.csv", group_column="lot")
    assert groups_of(source).tolist() == [0, 1, 0, 1]
    assert source.columns == ("a",)


key = st.integers(0, 5)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(key, key, key), min_size=1, max_size=25), st.booleans(), st.booleans())
def test_groups_are_the_least_that_split_no_key(rows, by_column, by_name):
    values, columns, parts = zip(*rows, strict=True)
    names = [f"p{part}" if part else "other" for part in parts]
    source = named(names, values, [f"k{c}" for c in columns] if by_column else ())
    pattern = r"p\d" if by_name and any(parts) else None
    found = groups_of(source, pattern).tolist()

    def together(i, j):
        same_name = pattern and parts[i] == parts[j] and parts[i]
        return values[i] == values[j] or (by_column and columns[i] == columns[j]) or same_name

    expected = list(range(len(rows)))  # by passing the smallest number on, until nothing changes
    for _ in rows:
        for i in range(len(rows)):
            near = [expected[j] for j in range(len(rows)) if together(i, j)]
            expected[i] = min(near)
    order = list(dict.fromkeys(expected))
    assert found == [order.index(group) for group in expected]


@given(st.text(max_size=8), st.lists(st.text(max_size=4), min_size=1, max_size=4))
def test_any_pattern_groups_any_names_or_is_an_input_error(pattern, names):
    source = Source("vector", np.arange(len(names), dtype=np.float32)[:, None], names, "x")
    try:
        groups = groups_of(source, pattern)
    except InputError:
        return
    assert len(groups) == len(names)
    assert any(re.search(pattern, name) for name in names)
