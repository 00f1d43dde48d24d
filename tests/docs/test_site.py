"""The site is built strictly, asks nobody else for anything, and its pages are up to date."""

import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
# Attributes that make a browser fetch something, by element; a link is the reader's own choice.
FETCHED = {
    "script": ("src",),
    "link": ("href",),
    "img": ("src", "srcset"),
    "source": ("src", "srcset"),
    "iframe": ("src",),
    "video": ("src", "poster"),
    "object": ("data",),
    "form": ("action",),
}


class Assets(HTMLParser):
    def __init__(self):
        super().__init__()
        self.addresses = []

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if given.get("rel") in ("canonical", "next", "prev", "license"):
            return
        self.addresses += [given[name] for name in FETCHED.get(tag, ()) if given.get(name)]


def build(project, out):
    """Build as `make docs` does. Not quietly: then mkdocs counts no warning, and fails for none."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", out]
    return subprocess.run(command, cwd=project, check=False, capture_output=True, text=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    out = tmp_path_factory.mktemp("site")
    built = build(ROOT, out)
    assert built.returncode == 0, built.stderr
    return out


@pytest.mark.parametrize(
    ("page", "text", "words"),
    [
        ("index.md", "[page](nowhere.md)", "'nowhere.md'"),
        ("index.md", "[part](guide.md#nowhere)", "'#nowhere'"),
        ("lost.md", "# A page that the navigation lacks", "lost.md"),
    ],
)
def test_what_leads_nowhere_fails_the_build(tmp_path, page, text, words):
    shutil.copytree(DOCS, tmp_path / "docs")
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    with (tmp_path / "docs" / page).open("a") as file:
        file.write(f"\n{text}\n")
    built = build(tmp_path, tmp_path / "site")
    assert built.returncode != 0
    assert words in built.stderr


def test_every_page_is_there(site):
    for page in DOCS.glob("*.md"):
        assert (site / f"{page.stem}.html").exists()
    assert not list(site.rglob("*.py"))
    assert not list(site.rglob("*.jsonl"))


def test_no_page_asks_another_server(site):
    for page in site.rglob("*.html"):
        assets = Assets()
        assets.feed(page.read_text())
        assert assets.addresses
        for address in assets.addresses:
            assert not re.match(r"(\w+:)?//", address), (page.name, address)
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*['\"]?(\w+:)?//", sheet.read_text()), sheet


PICTURE = re.compile(r"!\[([^]]*)\]\((pictures/[^)]+)\)")


def test_every_picture_is_shown_on_the_site_when_it_comes_near(site):
    for page in DOCS.glob("*.md"):
        html = (site / f"{page.stem}.html").read_text()
        for _, address in PICTURE.findall(page.read_text()):
            (tag,) = re.findall(rf'<img [^>]*src="{address}"[^>]*>', html)
            assert 'loading="lazy"' in tag


def test_every_picture_is_shown_by_a_viewer_of_plain_markdown():
    for page in DOCS.glob("*.md"):
        html = MarkdownIt("commonmark").render(page.read_text())
        for _, address in PICTURE.findall(page.read_text()):
            assert f'<img src="{address}"' in html, (page.name, address)
        assert "loading=" not in html, page.name


def test_equations_are_mathml(site):
    page = (site / "how-it-works.html").read_text()
    assert page.count("<math") == (DOCS / "how-it-works.md").read_text().count("```math")


def test_pictures_are_small_and_all_shown():
    pages = "".join(page.read_text() for page in DOCS.glob("*.md"))
    pages += (ROOT / "mkdocs.yml").read_text()
    pictures = list((DOCS / "pictures").iterdir())
    assert pictures
    for picture in pictures:
        assert picture.stat().st_size <= 150_000, picture
        assert f"pictures/{picture.name}" in pages, picture


def test_the_reference_says_ranges_and_choices_as_people_do():
    page = (DOCS / "reference.md").read_text()
    assert not re.search(r"e\+\d|One of ,", page)
    for setting, default, presets, _ in re.findall(
        r"^\| `(\w+)` \| (.*?) \| (.*?) \| (.*)$", page, re.M
    ):
        assert default not in presets.replace("&nbsp;", " ").split(), setting
