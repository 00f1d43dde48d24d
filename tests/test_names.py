from pathlib import Path

from historyad.names import as_cell, shown, within


def test_a_name_is_shown_on_one_line_as_text():
    for text in ("a b.png", "Grün/日本.png", "a,b'\"|<b>", "😀", ""):
        assert shown(text) == text
    odd = {
        "\x1b[2J": r"\x1b[2J",
        "a\nhistoryad: all is well": r"a\nhistoryad: all is well",
        "\r\t\x00\x7f\x9b": r"\r\t\x00\x7f\x9b",
        "a\u202egnp.exe": r"a\u202egnp.exe",
        "a\u2028b\ufeff": r"a\u2028b\ufeff",
        "\udcff.png": r"\udcff.png",
    }
    for text, expected in odd.items():
        assert shown(text) == expected
        assert shown(text).isprintable()
    assert shown("a\nb\tc", keep="\n") == "a\nb\\tc"
    assert shown(Path("a\nb")) == r"a\nb"


def test_no_cell_is_a_formula():
    for text in ("=HYPERLINK(1)", "+1", "-1.png", "@SUM(1)", "＝1", "－1", "＋1", "＠1"):
        assert as_cell(text) == "'" + text
    for text in ("a=1", "0001.png", "'=1", "", "/=1"):
        assert as_cell(text) == text
    for text in ("\t=1", "\r=1", "\n=1", "\x00=1"):
        assert as_cell(text).startswith("\\")


def test_a_file_stays_within_its_folder():
    folder = Path("/a/b")
    assert within(folder, "x.tar/c/d.png") == Path("/a/b/x.tar/c/d.png")
    for name in ("../../d.png", "/d.png", "c/../../../d.png", "//d.png"):
        assert within(folder, name).is_relative_to(folder)
        assert ".." not in within(folder, name).parts
