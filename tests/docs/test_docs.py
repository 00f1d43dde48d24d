"""The documentation is executed: its commands run, and its numbers are those of the rows."""

import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import TINY_OPTIONS

from benchmarks import pages
from historyad import cli
from historyad.cli import main
from historyad.files import read_rows

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
README = (ROOT / "README.md").read_text()


def blocks(language):
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
    return [text for its_language, text in fenced if its_language == language]


def test_the_commands_of_the_readme_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    commands = [line for block in blocks("") for line in block.splitlines()]
    ours = [shlex.split(line)[1:] for line in commands if line.startswith("historyad ")]
    assert [command[0] for command in ours] == ["fit", "score", "evaluate", "inspect"]
    for command in ours:
        assert main(command) == 0, command
    assert "AUROC" in capsys.readouterr().out
    assert (tmp_path / "scores.csv").read_text().startswith("path,anomaly_score,p_value")


def test_the_commands_of_the_page_on_anomaly_maps_run(tmp_path, monkeypatch):
    random = np.random.default_rng(0)
    folders = {"good": 500, "inbox": 2, "fresh": 4, "defects": 4, "masks": 4}
    for name, n in folders.items():
        (tmp_path / name).mkdir()
        for i in range(n):
            image = random.integers(90, 160, (64, 64)).astype(np.uint8)
            image[30:40, 30:40] = 255 if name == "defects" else image[30:40, 30:40]
            mask = np.zeros_like(image)
            mask[30:40, 30:40] = 255
            Image.fromarray(mask if name == "masks" else image).save(tmp_path / name / f"{i}.png")
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "anomaly-maps.md").read_text()
    commands = [
        shlex.split(line)[1:] for line in page.splitlines() if line.startswith("historyad ")
    ]
    assert [command[0] for command in commands] == ["fit", "score", "evaluate"]
    tiny = [option for option in TINY_OPTIONS if option.partition("=")[0] not in commands[0]]
    for command, options in zip(commands, (tiny, [], []), strict=True):
        assert main([*command, *options]) == 0, command
    assert {file.name for file in (tmp_path / "maps").iterdir()} == {"0.png", "1.png"}


def test_the_python_of_the_readme_runs(tmp_path):
    (script,) = blocks("python")
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)


def test_the_make_targets_of_the_readme_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", README, flags=re.MULTILINE):
        assert f"\n{target}:" in makefile


def test_make_demo_installs_the_package_alone(tmp_path):
    planned = {
        target: subprocess.run(
            ["make", "-n", target, f"VENV={tmp_path}"],
            cwd=ROOT, check=True, capture_output=True, text=True,
        ).stdout
        for target in ("demo", "test")
    }  # fmt: skip
    assert "[dev]" not in planned["demo"]
    assert re.search(
        r"pip install .*constraints\.txt --editable \.$", planned["demo"], re.MULTILINE
    )
    assert "[dev]" in planned["test"]


BENCHMARKS = ROOT / "benchmarks"
SCRIPTS = {
    f"{script.parent.name}.{script.stem}"
    for script in BENCHMARKS.glob("*/*.py")
    if '__name__ == "__main__"' in script.read_text()
}


def test_every_script_of_numbers_stands_in_the_table_of_pages():
    table = (ROOT / "CONTRIBUTING.md").read_text()
    assert set(re.findall(r"`(\w+\.\w+)[ \w]*`", table)) >= SCRIPTS
    for page in DOCS.glob("*.md"):
        used = {name for name in SCRIPTS if f"benchmarks.{name}" in page.read_text()}
        assert f"`{page.name}`" in table or not used, page.name


def test_every_script_that_is_told_of_exists():
    pages = [ROOT / "README.md", *ROOT.glob("*.md"), *DOCS.glob("*.md"), *DOCS.rglob("*.jsonl")]
    for page in pages:
        for name in re.findall(r"python -m benchmarks\.([\w.]*\w)", page.read_text()):
            assert name in {*SCRIPTS, "FOLDER.FILE"}, (page.name, name)


def anchors_of(page):
    """Return the anchors of the headings, as GitHub and the site call them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_lead_somewhere():
    for page in [ROOT / "README.md", *DOCS.glob("*.md")]:
        for target, anchor in re.findall(r"\]\(([^)#]*)#?([^)]*)\)", page.read_text()):
            if "://" not in target:
                file = page.parent / target if target else page
                assert file.exists(), (page.name, target)
                assert not anchor or anchor in anchors_of(file), (page.name, f"{target}#{anchor}")


def test_every_command_is_in_the_documentation():
    pages = README + "".join(page.read_text() for page in (ROOT / "docs").glob("*.md"))
    commands = [name for name in cli.app if not name.startswith("-")]
    assert "fit" in commands
    for name in commands:
        assert f"historyad {name}" in pages, name


def test_functions_in_the_table_of_equations_exist():
    for file, names in re.findall(r"`([\w/]+\.py): ([\w., ]+)`", README):
        code = (ROOT / "historyad" / file).read_text()
        for name in names.split(", "):
            assert re.search(rf"(def|class) {name.split('.')[-1]}\b", code), (file, name)


def test_the_throughput_of_several_processes_is_that_of_the_rows():
    page = (ROOT / "docs" / "distributed.md").read_text()
    rows = read_rows(ROOT / "docs" / "rows" / "distributed" / "rows.jsonl")
    for row in [row for row in rows if row["part"] == "steps"]:
        cells = [f"step {row['step'][-1]}", str(row["batch_size"])]
        cells += [f"{row[key]:.0f} ms" for key in ("one_process_ms", "two_processes_ms")]
        cells += [f"{row['throughput_ratio']:.2f}", f"{row['communication_share']:.0%}"]
        assert "| " + " | ".join(cells).replace("%", " %") + " |" in page


def test_the_memory_of_a_fit_on_shards_is_that_of_the_rows():
    page = " ".join((ROOT / "docs" / "distributed.md").read_text().split())
    rows = read_rows(ROOT / "docs" / "rows" / "distributed" / "rows.jsonl")
    for row in [row for row in rows if row["part"] == "memory"]:
        assert f"{row['n_images']:,} images were found in {row['open_seconds']:.0f} s" in page
        assert f"{row['peak_memory_mb']:.0f} MB" in page


PAGES = [script.parent.name for script in BENCHMARKS.glob("*/page.py")]


@pytest.mark.parametrize("name", PAGES)
def test_a_page_that_is_written_by_a_script_is_up_to_date(name):
    page = importlib.import_module(f"benchmarks.{name}.page")
    assert page.build() == (DOCS / f"{name}.md").read_text()


def test_a_check_of_a_page_says_whether_it_is_up_to_date_and_writes_nothing(tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    assert pages.write_or_check(page, "new") == 0
    monkeypatch.setattr(sys, "argv", ["page.py", "--check"])
    assert pages.write_or_check(page, "new") == 0
    assert pages.write_or_check(page, "newer") == 1
    assert page.read_text() == "new"
