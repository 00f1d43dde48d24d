"""What the service and the model files survive: malformed requests, overload, altered files.

    python benchmarks/service_load.py RUN SOURCE [--check requests|load|files] [--out rows.jsonl]

RUN is a finished fit on images and SOURCE holds images that it accepts; all traffic stays on
127.0.0.1. Prints a table and appends one row of JSON for each check.
benchmarks/reliability_page.py makes docs/reliability.md of these rows.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from altered_files import check_files
from malformed_requests import check_requests
from service_overload import check_load
from service_process import Row

from historyad.data.datasets import open_source
from historyad.environment import machine, versions
from historyad.model.files import VERSION

N_FILES = 2000
CHECKS: dict[str, Callable[..., Iterator[Row]]] = {
    "requests": check_requests,
    "load": check_load,
    "files": check_files,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("source")
    parser.add_argument("--check", choices=CHECKS, action="append")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--files", type=int, default=5_000)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--clients", type=int, default=16)
    options = parser.parse_args()
    command = shlex.join(["python", "benchmarks/service_load.py", *sys.argv[1:]])
    images = open_source(options.source).samples[:N_FILES]
    where = {"machine": machine(), "versions": versions(), "model_version": VERSION}
    for name in options.check or CHECKS:
        for measured in CHECKS[name](options, images):
            row = {"part": name, **measured, **where, "command": command}
            print_row(row)
            if options.out:
                options.out.parent.mkdir(parents=True, exist_ok=True)
                with options.out.open("a") as file:
                    file.write(json.dumps(row) + "\n")


def print_row(row: Row) -> None:
    width = max(map(len, row))
    for key, value in row.items():
        print(f"{key:<{width}}  {value}")
    print(flush=True)


if __name__ == "__main__":
    main()
