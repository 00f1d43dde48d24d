"""Write docs/reliability.md from the rows in docs/rows/reliability; `--check` only compares."""

from __future__ import annotations

import sys

from benchmarks.pages import DOCS, ROWS, Row, commands, write_or_check
from historyad.files import read_rows
from historyad.research.markdown import table

LEAST_SHARE = 0.8  # of what `historyad score` manages: the target

HEAD = """# What the service survives

<!-- Written by `python -m benchmarks.reliability.page` from the rows in docs/rows/reliability; do
not edit. -->

**In short.** Everything that a client may send is bounded, in time and in memory; what is too much
is refused with a status that says so. Broken requests, an overload of twice what the machine
manages and thousands of altered model files were tried: what is answered is right, and nothing
that is loaded is executed. One target was missed: the service takes on less than `historyad score`
manages by itself ([measured](#what-was-measured)).

`historyad serve RUN` answers on `127.0.0.1` unless told otherwise, and asks for a bearer token
where `HISTORYAD_TOKEN` is set. It is made for a trusted network: put a reverse proxy with TLS in
front of it before others can reach it.

## How it bounds time and memory

| limit | default | beyond it |
| --- | --- | --- |
| request body, counted as it comes | 32 MB (JSON: 4 MB) | 413 |
| files or vectors in one request | 64 | 400, 413 |
| pixels of an image, read from its header before decoding | 25 million | an error for that file |
| formats | PNG, JPEG, TIFF, WebP, BMP, GIF, PPM | an error for that file |
| pixels of a detector of crops that are worked on at the same time | 4 million (2²²) | 503 with \
`Retry-After`; 413 for a request, an error for an image, that has more by itself |
| samples taken on and not yet answered | 256 | 503 with `Retry-After` |
| requests worked on at the same time | 32 | 503 with `Retry-After` |
| connections | 512 | the one without a request for longest is closed |
| time for the headers of a request, for its answer, and for reading that | 20 s each (twice the \
deadline) | closed |
| headers of a request that are still incomplete | 32 kB | 400 |
| time for the body, and time for the answer | 10 s in all | 408, 503 |

One thread owns the model and scores what waits in one call. No request waits for more samples
than may be taken on, so that under overload the wait stays short and the rest is refused at once.
A detector of crops (`--patch`) looks at every pixel, so that its pixels are counted, too, by the
images' headers and before anything is decoded; `--max-work-pixels` should be what the machine
scores within the deadline, and an image as large as those of the fit is always taken. While a
batch is at work for longer than the deadline, `/readyz` answers 503. Connections that send no
whole request cost nothing but their place, which they lose in 20 s, or at once when others need it.
On SIGTERM the service stops accepting, answers what it accepted and exits with status 0.
"""

MEASURED = """## What was measured

Machine: {machines}, no accelerator, `OMP_WAIT_POLICY=PASSIVE`. The clients ran on the
same cores. Two fits were made for it:

```
historyad fit fashion-mnist:train --out runs/fashion --epoch-images 16000 --n-epochs 2 \
--detector-epochs 1
historyad fit digits:train:!0 --out runs/digits --preset quick --views all --epoch-images 20000
```
"""

LOAD = """### Overload
{commands}{clients} clients for {seconds:.0f} s, asking for twice what `historyad score`
manages on the same 2,000 PNG files, decoding included. Every accepted answer is compared
with Python: the score within 1e-5, p-value and verdict exactly. Since then, small requests wait for
others that are on their way: [today's rates](performance.md#the-service), of another model.

"""

SHARED = """
The clients share the cores with the service, while `score` has them for itself: what the service
takes for an image is better compared by its CPU time, which includes what refusing takes.

With one image in a request each of the clients waits for its answer before it asks again, so that
they never offer more than is accepted, and a batch holds a few images and is filled up to 16, so
that a score is the same in any batch. **Send several images in a request** when
throughput counts; the page sends 16.
"""

# What the statuses of each kind of malformed request stand for.
REQUESTS = {
    "mutated image": "mutated images of seven formats; 200: still images",
    "truncated image": "truncated images; 200: only trailing bytes were missing",
    "not an image": "not images",
    "bomb": "bombs: up to 2.1 billion pixels in a few kB",
    "mutated form": "mutated forms; 200: some file was still an image",
    "mutated JSON": "mutated JSON",
    "wrong type": "wrong content types",
    "wrong length": "wrong content lengths; closed: by the client's end",
    "huge headers": "huge headers; 200 and 422: valid below the limit",
    "broken HTTP": "broken HTTP; closed: by the client's end",
}

FILES = {
    "json bytes": "bytes of `detector.json`",
    "tensor bytes": "bytes of `detector.safetensors`",
    "json, checksum mended": "values of `detector.json`, checksum mended",
    "header, mended": "header of `detector.safetensors`, checksums mended",
}

FOUND = """
A crash, another exception or another score: {others}. Code executed, by an audit hook: {code}. The
slowest took {slowest:.2f} s. *Refuses these images*: the model then says that it was fitted on
images of another shape.
"""


def build() -> str:
    """Return the page."""
    parts: dict[str, list[Row]] = {"requests": [], "load": [], "files": []}
    for row in read_rows(ROWS / "reliability" / "rows.jsonl"):
        parts[row["part"]].append(row)
    machines = "; ".join(sorted({row["machine"] for rows in parts.values() for row in rows}))
    sections = [
        HEAD,
        MEASURED.format(machines=machines),
        "### Malformed requests\n" + commands(parts["requests"]) + _requests(parts["requests"][-1]),
        _load(parts["load"][-2:]),
        "### Altered model files\n" + commands(parts["files"]) + _files(parts["files"][-1]),
    ]
    return "\n".join(sections)


def _requests(row: Row) -> str:
    lines = [[REQUESTS[kind], _statuses(row[kind])] for kind in REQUESTS]
    growth = f"{row['memory growth, MB']} MB, {row['memory growth at its peak, MB']} MB"
    lines += [
        ["**5xx other than 503**", f"**{row['5xx other than 503']}**"],
        ["**memory growth: at the end, at its peak**", f"**{growth}** (target: under 100 MB)"],
        ["right answer afterwards", "yes" if row["right answer afterwards"] else "**no**"],
        ["exit status on SIGTERM", str(row["exit status after SIGTERM"])],
    ]
    return table([row["check"], "answers"], lines)


def _statuses(counts: dict[str, int]) -> str:
    return ", ".join(f"{n:,} × {status}" for status, n in counts.items())


def _load(rows: list[Row]) -> str:
    """Return what came of twice the load, a column for each number of images in a request."""

    def line(name: str, key: str, form: str = "{:,}", target: str = "") -> list[str]:
        return [name, *(form.format(row[key]) for row in rows), target]

    lines = [
        line("images/s: `score` alone", "score's rate, images/s"),
        line("images/s: offered", "offered, images/s"),
        line("images/s: accepted", "accepted, images/s"),
        ["**accepted / `score`**", *map(_share, rows), f"at least {LEAST_SHARE}"],
        line("CPU per image: `score`", "score's CPU, ms/image", "{:.2f} ms"),
        line("CPU per image: service", "service's CPU, ms/image", "{:.2f} ms"),
        line("median time of the accepted", "median of the accepted, s", "{:.3f} s"),
        line("**p99 of the accepted**", "p99 of the accepted, s", "**{:.3f} s**", "under 1 s"),
        line("requests answered", "answered"),
        line("requests refused with 503", "answered 503"),
        line("wrong answers", "wrong answers", target="0"),
        line("memory growth at its peak", "memory growth at its peak, MB", "{} MB", "under 100 MB"),
        line("exit status on SIGTERM", "exit status after SIGTERM", target="0"),
    ]
    clients, seconds = rows[0]["clients"], rows[0]["seconds"]
    head = ["", *(f"{row['images in a request']} in a request" for row in rows), "target"]
    return (
        LOAD.format(commands=commands(rows), clients=clients, seconds=seconds)
        + table(head, lines)
        + SHARED
    )


def _share(row: Row) -> str:
    share = row["accepted / score's rate"]
    return f"**{share:.2f}**" + (", missed" if share < LEAST_SHARE else "")


def _files(row: Row) -> str:
    outcomes = ["refused", "refuses these images", "same scores"]
    lines = [
        [FILES[kind], *(f"{row[kind].get(outcome, 0):,}" for outcome in outcomes)] for kind in FILES
    ]
    others = {outcome for kind in FILES for outcome in row[kind]} - set(outcomes)
    return table([row["check"], *outcomes], lines) + FOUND.format(
        others=", ".join(sorted(others)) or "none",
        code=row["code executed"] or "none",
        slowest=row["slowest, s"],
    )


if __name__ == "__main__":
    sys.exit(write_or_check(DOCS / "reliability.md", build()))
