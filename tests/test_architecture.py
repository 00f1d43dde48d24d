"""What holds for the package as a whole, judged by its source."""

import ast
import importlib
import re
from pathlib import Path

import pytest

import historyad

PACKAGE = Path(historyad.__file__).parent
TESTS = Path(__file__).parent

# The table of contents: a module imports only from modules above it. A folder counts as one.
ORDER = [
    *("errors", "config", "randomness", "theory", "losses", "metrics", "distributed"),
    *("images", "contrast", "shards", "streams", "tables", "sources", "in_memory", "named_sets"),
    "datasets",
    "preprocessing",
    *("networks", "batches", "environment", "files", "storage", "history"),
    *("training", "gan", "detector"),
    *(
        "gaussian",
        "neighbours",
        "blocks",
        "companions",
        "views",
        "cells",
        "patches",
        "calibration",
        "model_files",
        "model",
        "fitting",
        "estimator",
        "explain",
        "evaluation",
        "drift",
        "corruptions",
    ),
    *("probe", "export", "console", "cluster", "parts", "scale"),
    *("peers", "splits", "benchmark", "standings", "charts", "report", "reproduce", "service"),
    *("demo", "cli", "__main__"),
]
# Modules that are tested with another one, by its name.
TESTED_WITH = {
    "errors": "config",
    "cluster": "scale",
    "parts": "scale",
    "sources": "datasets",
    "tables": "datasets",
    "in_memory": "datasets",
    "named_sets": "datasets",
    "companions": "views",
    "model_files": "model",
    "charts": "report",
    "demo": "cli",
    "console": "cli",
    "service.bodies": "service_app",
    "service.connections": "service_server",
    "service.metrics": "service_app",
    "service.schema": "service_app",
    "service.scorer": "service_app",
    "service.settings": "service_app",
    "__main__": "cli",
}

FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE / "__pycache__")
MODULES = [path for path in FILES if path != PACKAGE / "__init__.py"]


def name_of(path):
    """Return ``gan`` for gan.py and ``peers.features`` for peers/features.py."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


def place_of(name):
    return ORDER.index(name.partition(".")[0])


def imported_by(path):
    """Yield the modules of the package that a file imports, at its top or within a function."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names = [node.module]
            if node.module in ("historyad", "historyad.reproduce"):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            head, _, rest = name.partition(".")
            if head == "historyad" and rest not in ("", "__version__"):
                yield rest


def test_every_module_has_a_place_in_the_order():
    assert {name_of(path).partition(".")[0] for path in MODULES} == set(ORDER)
    assert len(ORDER) == len(set(ORDER))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_imports_only_from_modules_above_it(path):
    here = name_of(path)
    for other in imported_by(path):
        same_folder = "." in here and other.partition(".")[0] == here.partition(".")[0]
        is_folder = place_of(other) == place_of(here) and (PACKAGE / ORDER[place_of(here)]).is_dir()
        assert place_of(other) < place_of(here) or same_folder or is_folder, f"imports {other}"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_every_module_says_what_it_is_for(path):
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    assert docstring, f"{path} has no docstring"
    assert docstring.splitlines()[0].rstrip().endswith((".", ":"))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_module_has_tests(path):
    name = name_of(path)
    if path.name == "__init__.py":
        return
    tested = {path.stem.removeprefix("test_") for path in TESTS.glob("test_*.py")}
    folder, _, module = name.rpartition(".")
    candidates = {TESTED_WITH.get(name, name), module, folder, f"{folder}_{module}"}
    assert candidates & tested, f"no test file named after {name}"


def test_public_names_are_complete_and_importable():
    assert sorted(historyad.__all__) == sorted(historyad._HOMES)
    for name, home in historyad._HOMES.items():
        assert getattr(historyad, name) is getattr(
            importlib.import_module(f"historyad.{home}"), name
        )
    with pytest.raises(AttributeError, match="module 'historyad' has no attribute 'Nothing'"):
        historyad.Nothing  # noqa: B018


FORBIDDEN = {
    "a pickle": r"\b(?:import|from) (?:pickle|cPickle|dill|cloudpickle|joblib|marshal|shelve)\b",
    "evaluated text": r"(?<![\w.])(?:eval|exec)\(",
    "torch.load": r"(?<!safetensors\.)\btorch\.(?:load|save)\(",
    "allow_pickle": r"allow_pickle\s*=\s*True",
    "a shell": r"shell\s*=\s*True|os\.system\(",
    "a global seed": r"torch\.manual_seed\(|np\.random\.seed\(|(?<![\w.])random\.seed\(",
}


@pytest.mark.parametrize("pattern", FORBIDDEN.values(), ids=FORBIDDEN)
@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_nothing_that_is_loaded_can_execute_and_nothing_seeds_globals(path, pattern):
    assert not re.search(pattern, path.read_text())


def test_the_package_says_that_it_is_typed():
    assert (PACKAGE / "py.typed").exists()
