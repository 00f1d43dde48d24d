"""The documentation is executed: its commands run, and its numbers are those of the rows."""

import ast
import importlib
import importlib.util
import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import TINY_OPTIONS

import historyad
from benchmarks import pages
from benchmarks.speed import page as performance
from historyad import Config, cli
from historyad.cli import main
from historyad.files import read_rows
from historyad.model.split import number_of_folds, promised_rate, split_rows

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
README = (ROOT / "README.md").read_text()


def blocks(language, page=README):
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
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


def test_the_readme_is_short_and_the_home_page_begins_likewise():
    assert len(README.partition("## Read on")[0].split()) <= 500
    home = (DOCS / "index.md").read_text()
    assert blocks("python", home) == blocks("python")
    assert README.split("\n\n")[1] == home.split("\n\n")[1]


def test_the_readme_says_what_a_fit_costs_as_the_rows_do():
    rows = read_rows(DOCS / "rows" / "speed" / "rows.jsonl")
    whole = [row for row in rows if row.get("images", 60_000) == 60_000]
    parts = (
        [row for row in whole if row["part"] in part] for part in ("fits reference", "scoring")
    )
    said = performance.in_short(*parts)
    for preset, memory in (("quick", "quick_memory"), ("default", "memory")):
        assert f" | {said[preset].removesuffix(' s')} | {said[memory]} | " in README


def test_the_examples_of_the_page_on_python_run(tmp_path):
    script = "\n".join(blocks("python", (DOCS / "api.md").read_text()))
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert "unknown preset 'quik': did you mean 'quick'?" in done.stdout
    assert "historyad model" in done.stdout


def test_every_public_name_is_on_the_page_on_python():
    page = (DOCS / "api.md").read_text()
    for name in historyad.__all__:
        assert re.search(rf"^(## .*\b{name}\b.*|::: [\w.]*\b{name})$", page, re.MULTILINE), name
    for path in re.findall(r"^::: (historyad\.\S+)$", page, flags=re.MULTILINE):
        module, _, name = path.rpartition(".")
        assert (
            importlib.util.find_spec(path)
            if name.islower() and module == "historyad"
            else (getattr(importlib.import_module(module), name))
        ), path


def test_the_rates_that_few_samples_promise_are_those_of_the_code():
    page = (DOCS / "choose.md").read_text()
    lines = re.findall(r"^\| (\d+)[ a-z]* \| ([\d.]+) % \| ([\d.]+) % \|$", page, re.MULTILINE)
    assert len(lines) == 4
    for n, untrained, trained in lines:
        for trains, said in ((False, untrained), (True, trained)):
            config = Config()
            if number_of_folds(int(n), config, trains=trains) > 1:
                held_out = int(n)
            else:
                held_out = len(split_rows(int(n), config)[1])
            assert f"{promised_rate(config, held_out):.1%}" == f"{said}%", (n, trains)


def test_the_container_asks_for_what_exists():
    (text,) = blocks("dockerfile", (DOCS / "deploy.md").read_text())
    entry = json.loads(re.search(r"^ENTRYPOINT (.*)$", text, re.MULTILINE)[1])
    cli.app.parse_args(entry[1:], exit_on_error=False, print_error=False)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for extra in re.search(r"/src\[([\w,]+)\]", text)[1].split(","):
        assert extra in extras["optional-dependencies"]
    assert {"detector.json", "detector.safetensors"} <= {*re.findall(r"detector\.\w+", text)}


def said_in(path):
    """Yield every text in a module, with … for what stands in it only when it runs."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.JoinedStr):
            yield "".join(
                getattr(value, "value", "…") if isinstance(value, ast.Constant) else "…"
                for value in node.values
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_every_message_on_the_page_of_errors_is_one_of_the_program():
    texts = [
        text for path in Path(historyad.__file__).parent.rglob("*.py") for text in said_in(path)
    ]
    page = (DOCS / "questions.md").read_text()
    messages = re.findall(r"^`(.*)`\n:   ", page, flags=re.MULTILINE)
    assert len(messages) > 20
    for message in messages:
        assert any(message in text for text in texts), message


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
    table = re.findall(r"`([\w/]+\.py): ([\w., ]+)`", (DOCS / "paper.md").read_text())
    assert len(table) > 10
    for file, names in table:
        code = (ROOT / "historyad" / file).read_text()
        for name in names.split(", "):
            assert re.search(rf"(def|class) {name.split('.')[-1]}\b", code), (file, name)


def test_the_throughput_of_several_processes_is_that_of_the_rows():
    page = (ROOT / "docs" / "distributed.md").read_text()
    text = page.partition("What two processes bring")[2].partition("\n#")[0]
    rows = read_rows(ROOT / "docs" / "rows" / "speed" / "rows.jsonl")
    found = [row for row in rows if row["part"] == "processes"]
    assert {(row["step"], row["batch_size"]) for row in found} == {
        (step, size) for step in ("step1", "step3") for size in (64, 512)
    }
    for row in found:
        assert f"{row['throughput_ratio']:.2f}" in text


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
    written = {"speed": "performance"}.get(name, name)
    assert page.build() == (DOCS / f"{written}.md").read_text()


def test_a_check_of_a_page_says_whether_it_is_up_to_date_and_writes_nothing(tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    assert pages.write_or_check(page, "new") == 0
    monkeypatch.setattr(sys, "argv", ["page.py", "--check"])
    assert pages.write_or_check(page, "new") == 0
    assert pages.write_or_check(page, "newer") == 1
    assert page.read_text() == "new"
