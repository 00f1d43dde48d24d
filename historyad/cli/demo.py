"""The command that shows the whole path, on data that come with scikit-learn."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from historyad.cli.console import print_table, progress

_ADVICE = """
Try next, on your own data:
  historyad fit FOLDER_OF_GOOD_IMAGES --out runs/mine
  historyad score runs/mine FOLDER_OF_NEW_IMAGES
or on MNIST against handwritten Japanese characters:
  historyad fit mnist:train --out runs/mnist
  historyad evaluate runs/mnist --normal mnist:test --anomalous kmnist:test"""


def demo(
    *,
    anomaly: Annotated[
        Literal[0, 1, 2, 3, 4, 5, 6, 7, 8, 9], Parameter(help="The digit that is the anomaly.")
    ] = 0,
    out: Annotated[Path | None, Parameter(help="Keep the run in this directory.")] = None,
) -> None:
    """Run the whole path on embedded data: digits of 8 x 8 pixels, one of them the anomaly."""
    with progress():
        rows = _fit_and_evaluate(anomaly, out)
    print_table(rows)
    print(_ADVICE)


def _fit_and_evaluate(anomaly: int, out: Path | None) -> list[tuple[str, str]]:
    """Fit on nine digits, test on all ten; return the rows of a table.

    ``anomaly`` is the digit left out; with ``out``, the run is kept there.
    """
    from historyad.config import make_config
    from historyad.data.datasets import open_source
    from historyad.judge.evaluation import evaluate_model, table_of
    from historyad.model.fit import fit_model
    from historyad.model.run import RunDirectory

    started = time.monotonic()
    normal = open_source(f"digits:train:!{anomaly}")
    with tempfile.TemporaryDirectory(prefix="historyad-") as temporary:
        run = RunDirectory(temporary if out is None else out)
        model = fit_model(normal, make_config(), run, command="historyad demo")
    seconds = time.monotonic() - started
    figures = evaluate_model(
        model, open_source(f"digits:test:!{anomaly}"), open_source(f"digits:test:{anomaly}")
    )
    task = f"nine digits are normal, digit {anomaly} is the anomaly; 8 x 8 pixels"
    return [("task", task), *table_of(figures), ("fit", f"{seconds:.0f} s")]
