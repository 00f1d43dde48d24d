"""What holds for the package as a whole, judged by its source."""

import ast
import importlib
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import historyad

PACKAGE = Path(historyad.__file__).parent
TESTS = Path(__file__).parent

# The table of contents: a file imports only from its own part and from those above it.
PARTS = [
    *("errors", "constants", "hyperparameters", "validation", "config", "randomness"),
    *("names", "regular", "files", "checkpoints", "extras", "environment", "ranks", "layers"),
    *("progress", "data", "backbones", "method", "score", "kinds", "model", "judge", "deploy"),
    *("research", "cli", "__main__"),
]

FILES = sorted(PACKAGE.rglob("*.py"))
MODULES = [path for path in FILES if path != PACKAGE / "__init__.py"]


def name_of(path):
    """Return ``method.gan`` for method/gan.py and ``data`` for data/__init__.py."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


NAMES = {name_of(path): path for path in MODULES}


def imported_by(path):
    """Yield the modules of the package that a file imports, at its top or within a function."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found = [node.module]
            # What is imported from a folder may be one of its files.
            found += [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in found:
            head, _, rest = name.partition(".")
            if head == "historyad" and rest in NAMES:
                yield rest


def test_every_module_has_a_place_in_the_order():
    assert {name.partition(".")[0] for name in NAMES} == set(PARTS)
    assert len(PARTS) == len(set(PARTS))


def test_a_module_imports_only_from_its_own_part_and_those_above():
    for name, path in NAMES.items():
        here = PARTS.index(name.partition(".")[0])
        for other in imported_by(path):
            assert PARTS.index(other.partition(".")[0]) <= here, f"{name} imports {other}"


def test_no_imports_go_round_in_a_circle():
    graph = {
        name: {other for other in imported_by(path) if other != name and not is_within(name, other)}
        for name, path in NAMES.items()
    }
    assert len([*TopologicalSorter(graph).static_order()]) == len(NAMES)


def is_within(name, folder):
    """Whether a module lies in a folder, which it may import from by the folder's name."""
    return name.startswith(folder + ".")


def test_only_its_own_commands_import_research():
    for name, path in NAMES.items():
        if name.partition(".")[0] != "research" and name != "cli.research":
            assert not [other for other in imported_by(path) if other.startswith("research")], name


ASKED = "|".join(
    [
        r"isinstance\([^)]*\b(?:Whole|Crops|Features|Columns|Windows|ImageKind)\b",
        r"\.kind\.name\b",
        r"\.kind [!=]=",
        r"len\([\w.]*shape\)",
        r"\bcenter is (?:not )?None",
    ]
)


def test_only_kinds_and_data_ask_what_kind_of_input_there_is():
    for name, path in NAMES.items():
        if name.partition(".")[0] in ("kinds", "data"):
            continue
        asked = re.search(ASKED, path.read_text())
        assert not asked, f"{name} asks {asked[0]}"
        names = ("whole", "sounds", "crops", "features", "columns", "windows", "images")
        kinds = {f"kinds.{kind}" for kind in names}
        assert not kinds.intersection(imported_by(path)), name


def test_every_module_says_what_it_is_for():
    for path in FILES:
        docstring = ast.get_docstring(ast.parse(path.read_text()))
        assert docstring, f"{path} has no docstring"
        assert docstring.splitlines()[0].rstrip().endswith((".", ":")), path


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
def test_nothing_that_is_loaded_can_execute_and_nothing_seeds_globals(pattern):
    for path in FILES:
        text = path.read_text()
        if path.name == "lite0.py":  # one file of a third party, behind its pinned checksum
            text = text.replace(
                'torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)', ""
            )
        assert not re.search(pattern, text), path


def test_the_package_says_that_it_is_typed():
    assert (PACKAGE / "py.typed").exists()
