"""What the service and the model files survive: malformed requests, overload, altered files.

    python -m benchmarks.reliability.measure RUN SOURCE [--check requests|load|files]
        [--out rows.jsonl]

RUN is a finished fit on images and SOURCE holds images that it accepts; all traffic stays on
127.0.0.1. Prints, and appends, one row of JSON for each check; `benchmarks.reliability.page` makes
docs/reliability.md of these rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.measuring import Row, keep, parser_for
from benchmarks.pages import ROWS
from benchmarks.reliability.altered_files import check_files
from benchmarks.reliability.malformed_requests import check_requests
from benchmarks.reliability.overload import check_load
from historyad.data.datasets import open_source
from historyad.model.files import VERSION

N_FILES = 2000
CHECKS: dict[str, Callable[..., Iterator[Row]]] = {
    "requests": check_requests,
    "load": check_load,
    "files": check_files,
}


def main() -> None:
    """Make the checks that are asked for."""
    parser = parser_for(__doc__, ROWS / "reliability" / "rows.jsonl")
    parser.add_argument("run", type=Path)
    parser.add_argument("source")
    parser.add_argument("--check", choices=CHECKS, action="append")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--files", type=int, default=5_000)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--clients", type=int, default=16)
    options = parser.parse_args()
    images = open_source(options.source).samples[:N_FILES]
    for name in options.check or CHECKS:
        for measured in CHECKS[name](options, images):
            keep(options.out, {"part": name, **measured, "model_version": VERSION})


if __name__ == "__main__":
    main()
