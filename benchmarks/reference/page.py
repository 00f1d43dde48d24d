"""Write docs/reference.md from the command line and its settings; `--check` only compares."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import Any

from benchmarks.pages import DOCS, write_or_check
from historyad.cli import app
from historyad.config import OF_CELLS, PRESETS, settings
from historyad.research.markdown import table

HEAD = """# Commands and settings

<!-- Written by `python -m benchmarks.reference.page` from what `historyad --help` and the package
itself know; do not edit. -->

What `historyad COMMAND --help` says. The settings stand in [a table of their own](#settings); what
is called from Python has [a page of its own](api.md). With `--quiet`, every command shows results
and errors alone.

A score of about -1 for normal samples is that of D<sub>TV</sub> alone, `--views history`. With the
default, in which other views count too, normal samples come to about -0.8.
"""

SETTINGS = """## Settings

Every one is an option of `historyad fit` (`--n-epochs 3`), an argument of Python's `HistoryAD`
(`n_epochs=3`) and a line of `inspect`. A preset is a set of them. An epoch is `epoch_images` images
seen by the critic. [How it works](how-it-works.md) explains the symbols.

"""


def build() -> str:
    """Return the page."""
    return f"{HEAD}\n{_commands()}\n\n{SETTINGS}{_settings()}"


def _commands() -> str:
    """Return what --help says of every command, without the settings that the table shows."""
    text = app.generate_docs(output_format="markdown", heading_level=1)
    text = text[text.index("## historyad ") :]
    text = re.sub(r"^\*\*Settings .*?(?=^## )", _POINTER, text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"^\*\*(\w+)\*\*:$", r"\1:", text, flags=re.MULTILINE)
    # Where a command is called, cyclopts puts what is running: python -m MODULE.
    text = re.sub(r"^(historyad \S+) -m \S+", r"\1", text, flags=re.MULTILINE)
    return _with_examples(text.replace("```console", "```text").strip())


def _with_examples(text: str) -> str:
    """Put the example of each command, which ends its help, after its usage."""
    for name in app:
        if example := app[name].help_epilogue:
            start = text.index(f"```text\nhistoryad {name} ")
            end = text.index("```\n", start + 1) + len("```\n")
            head, _, command = example.partition(": ")
            text = f"{text[:end]}\n{head}: `{command}`\n{text[end:]}"
    return text


_UNBOUNDED = 10**12
_POINTER = "And every one of the [settings](#settings).\n\n"


def _settings() -> str:
    rows = []
    for name, setting in settings().items():
        presets = ", ".join(
            f"{preset}&nbsp;`{values[name]}`"
            for preset, values in PRESETS.items()
            if values.get(name, setting.default) != setting.default
        )
        default = f"`{setting.default}`" if setting.default != "" else "none"
        meaning = setting.metadata["help"] + _range(setting.metadata)
        rows.append([f"`{name}`", default, presets, meaning])
    of_cells = ", ".join(f"`{name}` {value}" for name, value in OF_CELLS["default"].items())
    return table(["setting", "default", "presets", "meaning"], rows) + (
        f"\nWith a `backbone`, the preset `default` learns the history of cells instead, with "
        f"{of_cells}; `quick` is that with half as many steps.\n"
    )


def _range(metadata: Mapping[str, Any]) -> str:
    low, high, choices = (metadata[key] for key in ("low", "high", "choices"))
    if choices:
        return f" *One of {', '.join(choice or 'empty' for choice in choices)}.*"
    if low is None:
        return ""
    # A bound that only keeps numbers within what files and counters hold says nothing.
    return f" *At least {low:,g}.*" if high >= _UNBOUNDED else f" *From {low:,g} to {high:,g}.*"


if __name__ == "__main__":
    sys.exit(write_or_check(DOCS / "reference.md", build()))
