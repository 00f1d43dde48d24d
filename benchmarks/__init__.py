"""The numbers in the documentation: a folder for each page, of what measures and what writes it.

From the root of the repository, `python -m benchmarks.NAME.page` writes docs/NAME.md from the rows
in docs/rows, and with `--check` only compares; `python -m benchmarks.NAME.measure` appends rows.
"""
