"""The page on photos is executed on the cookies, where they are: it shows what the page shows."""

from pathlib import Path

import pytest
from followed import assert_shown, follow, needs_curl

from historyad.backbones.lite0 import is_installed

PAGE = Path(__file__).parents[2] / "docs" / "photos.md"


@pytest.fixture(scope="module")
def session(data_root, tmp_path_factory):
    cookies = data_root / "industrial" / "cookies"
    if not (cookies.is_dir() and is_installed()):
        pytest.skip("the cookies or the weights of lite0 are not there")
    folder = tmp_path_factory.mktemp("photos")
    (folder / "cookies").symlink_to(cookies)
    return follow(PAGE, folder)


@needs_curl
def test_every_command_shows_what_the_page_shows(session):
    assert_shown(session)


@needs_curl
def test_most_broken_cookies_are_found(session):
    (table,) = (output for command, _, output in session if " evaluate " in command)
    (line,) = (line.split() for line in table.splitlines() if line.startswith("all "))
    assert float(line[2]) > 0.9  # AUROC
    maps = [command for command, _, output in session if '"map": "data:image/png' in output]
    assert len(maps) == 1
