"""Write docs/scaling.md from the rows in docs/rows/scaling; `--check` only compares.

    python -m benchmarks.scaling.page [--check]
    python -m benchmarks.scaling.page --kind NAME:CORES:GBIT_PER_SECOND [--price PER_MACHINE_HOUR]

The second prints the tables for a kind of machine of yours. The latest row of each part counts.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

import numpy as np

from benchmarks.pages import DOCS, ROWS, Row, write_or_check
from benchmarks.scaling.simulation import (
    Estimate,
    Kind,
    simulate_scoring,
    simulate_training,
    steps_of_a_fit,
)
from historyad.data.sources import CHUNK
from historyad.files import read_rows
from historyad.research.markdown import table

MEASURED = ROWS / "scaling" / "rows.jsonl"
TRAIN, SCORE = 100_000_000, 10_000_000_000
MACHINES = (1, 4, 16, 64)
KINDS = (
    Kind("2 cores, 1 Gbit/s", 2, 1e9 / 8),
    Kind("64 cores, 10 Gbit/s", 64, 10e9 / 8),
    Kind("64 cores, 100 Gbit/s", 64, 100e9 / 8),
)

HEAD = """# Beyond one machine

<!-- Written by `python -m benchmarks.scaling.page` from the rows in docs/rows/scaling; do not
edit. -->

**In short.** `historyad score --engine ray` scores in parts on all cores or machines, and
`--shard 3/10` does one of ten parts without Ray; both continue after an interruption, and give the
same files. A machine more is a machine's worth of speed as long as parts take longer than the start
of a worker. Training is bound by the network between the machines.

What is measured is one core and two processes of one machine; everything about several machines is
a simulation with those constants, by `benchmarks/scaling/simulation.py`.

Machine: {machine}, {cores} cores, no accelerator. Load average when the constants were measured:
{load:.1f}. **Above {cores}, others were using the machine, and times are too long**: measure again
on an idle one with the command below.
"""

SCORING = """## Score in parts

```text
historyad score RUN SOURCE --out DIR --engine ray                    every core of this machine
historyad score RUN SOURCE --out DIR --engine ray --address HOST:PORT        a Ray cluster
historyad score RUN SOURCE --out DIR --shard 3/10                    one of ten, without Ray
```

Both write the same files: `part-00003-of-00010.parquet` with the columns of `historyad score`, and
beside it `_part-00003-of-00010.json` with its counts and the names of what had to be set aside. A
part gets its name when it is complete. After an interruption the same command scores the parts
that are missing and no others, and a folder that was begun with another model, source or option is
refused. Ray hands out numbers of parts and no pixels: each worker loads the model once, reads a
part where it scores it, and writes it there. So all machines must have `historyad[ray]` installed
and see RUN, SOURCE and DIR under the same paths. A worker that is killed is replaced and its part
scored again; a part that ends its worker three times is reported. `pandas.read_parquet(DIR)` reads
all of them.

### From an object store

```text
historyad score RUN s3://bucket/images --out s3://bucket/scores --engine ray
```

What has an address (`s3://`, `gs://`, `file://`, whatever pyarrow knows) is read by Ray Data
itself, so that only RUN has to lie on all machines: `read_binary_files`, `map_batches` with a pool
of actors that keep the model, `write_parquet`. Images are decoded where they are scored, as from
any folder, and a column `error` says why one has no score. Of rows, `read_parquet` reads the files,
and their columns stand before the verdict. What a dead worker had is scored again; but an
interrupted command begins anew, into another `--out`. Keys come from the environment, or stand in
the address (`s3://KEY:SECRET@bucket/...`), as does a server of your own
(`?endpoint_override=HOST:PORT&scheme=http`). Arrays (`.npy`) and shards are read from disks alone.

`historyad benchmark ... --engine ray` runs each fit of a grid as a task, and `historyad reproduce
WHAT --engine ray` fits all that figures need as tasks before it draws them.
"""


def main() -> int:
    """Print the tables of one kind of machine, or write or compare the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kind", help="NAME:CORES:GBIT_PER_SECOND")
    parser.add_argument("--price", type=float, help="of one machine for one hour, in any currency")
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    if arguments.kind:
        name, cores, gbits = arguments.kind.rsplit(":", 2)
        kind = Kind(name, int(cores), float(gbits) * 1e9 / 8)
        constants = _latest(read_rows(MEASURED), "constants")
        print(_plans(constants, (kind,), arguments.price))
        return 0
    return write_or_check(DOCS / "scaling.md", build())


def build() -> str:
    """Return the page."""
    rows = read_rows(MEASURED)
    constants, ray = _latest(rows, "constants"), _latest(rows, "ray")
    commands = "\n".join(dict.fromkeys([ray["command"], constants["command"]]))
    name = constants["machine"].rpartition(",")[0]
    head = HEAD.format(machine=name, cores=constants["cores"], load=constants["load"])
    sections = [
        head + f"\n```\n{commands}\n```\n",
        SCORING + "\n" + _ray(ray),
        "## What one core does\n\n" + _constants(constants),
        "## Where the bound is\n\n" + _bounds(constants),
        _plans(constants, KINDS, None),
        "## What breaks first\n\n" + _breaks(constants),
    ]
    return "\n".join(sections)


def _latest(rows: list[Row], part: str) -> Row:
    return [row for row in rows if row["part"] == part][-1]


def _ray(row: Row) -> str:
    single, parallel, working = (
        float(np.median(row[f"{how}_seconds"])) for how in ("single", "ray", "ray_worker")
    )
    working /= row["cores"]
    return (
        f"{row['n_images']:,} images of 28 x 28 pixels in a `.npy` file, {row['cores']} cores, "
        f"median of {row['rounds']} rounds in turns, from loading the model to the last "
        f"file and with the start of Ray's workers, load average {row['load']:.1f}: "
        "one process "
        f"{row['n_images'] / single:,.0f} images/s, Ray "
        f"{row['n_images'] / parallel:,.0f} images/s, **ratio {row['ratio']:.2f}** (asked for: at "
        f"least 0.85 on 50,000 images). Of Ray's {parallel:.0f} s, the workers scored for "
        f"{working:.0f} s, {single / working:.2f} of the rate of one process; the other "
        f"{parallel - working:.0f} s are their start, which does not grow with the images: a "
        "million images would be scored at "
        f"{_ratio_of(1_000_000, row, single, parallel, working):.2f} of it. To start Ray took "
        f"{row['ray_start_seconds']:.0f} s more.\n"
    )


def _ratio_of(n_images: int, row: Row, single: float, parallel: float, working: float) -> float:
    """Return the ratio of throughputs for so many images, if the workers' start stays as it is."""
    grown: float = n_images / row["n_images"]
    return grown * single / (grown * working + parallel - working)


def _constants(row: Row) -> str:
    n = row["batch_size"]
    lines = [
        [_STEPS[kind], *(f"{1e3 * np.median(seconds) / k:,.2f} ms" for k in (1, n))]
        for kind, seconds in row["step_seconds"].items()
    ]
    per_image = np.median(row["score_seconds"]) / row["score_images"]
    lines += [
        [f"scoring {row['score_images']:,} images", f"{np.median(row['score_seconds']):.2f} s",
         f"{1e3 * per_image:.2f} ms"],
        ["decoding a PNG of 28 x 28", "", f"{1e3 * row['decode_seconds_per_image']:.2f} ms"],
        ["listing a file in a folder", "", f"{1e3 * row['list_seconds_per_file']:.3f} ms, "
         f"{row['list_bytes_per_file']:,.0f} bytes of memory"],
    ]  # fmt: skip
    gradients = row["gradient_bytes"]
    return (
        table([f"default, 32 x 32 grey, batches of {n}", "together", "per image"], lines)
        + f"\nGradients to average: {gradients['critic'] / 1e6:.1f} MB in a critic step, "
        f"{gradients['generator'] / 1e6:.1f} MB in a generator step, "
        f"{gradients['detector'] / 1e6:.1f} MB in a step of D_TV. Two processes average "
        f"{row['reduce_bytes_per_second'] / 1e6:,.0f} MB/s (gloo, one machine) after "
        f"{1e3 * row['reduce_latency_seconds']:.2f} ms for each message. One reader gets "
        f"{row['read_bytes_per_second'] / 1e6:,.0f} MB/s from the disk.\n"
    )


_STEPS = {
    "critic": "critic step",
    "penalised": "critic step with gradient penalty",
    "generator": "generator step",
    "detector": "step of D_TV",
}


def _bounds(row: Row) -> str:
    score = float(np.median(row["score_seconds"])) / row["score_images"]
    per_image = {"arithmetic": score, "decoding": row["decode_seconds_per_image"]}
    per_image["reading"] = row["image_bytes"] / row["read_bytes_per_second"]
    total = sum(per_image.values())
    shares = ", ".join(f"{name} {100 * v / total:.1f} %" for name, v in per_image.items())
    critic = float(np.median(row["step_seconds"]["critic"]))
    kind = KINDS[1]
    rate = kind.link_bytes_per_second
    cores = rate / (row["image_bytes"] / score)
    most = _critic_steps(TRAIN) // _critic_steps(60_000)
    transfer = 2 * row["gradient_bytes"]["critic"] / rate
    return (
        f"* **Scoring**: of the time of one image on one core, {shares}. An array needs no "
        f"decoding; a link of 10 Gbit/s feeds {cores:,.0f} such cores.\n"
        f"* **Training**: a critic step computes for {1e3 * critic:,.0f} ms; its gradients "
        f"pass a link of 10 Gbit/s twice in {1e3 * transfer:.1f} ms. Batches stay at "
        f"{row['batch_size']} a process, so that more processes take fewer steps of more images, "
        "and the share of "
        "communication stays the same with their number but for the number of messages.\n"
        f"* **Steps**: the default takes {_critic_steps(60_000):,} critic steps on 60,000 images. "
        f"Above {most:,} processes, {TRAIN:,} images give fewer than that, of "
        f"{most * row['batch_size']:,} images each: whether such batches train as well was not "
        "measured, and more processes than that are not worth planning with.\n"
        f"* **Memory**: a worker that scores holds the model, {CHUNK:,} images and the scores "
        "of its part, whatever the source, if that is a `.npy` file or a folder.\n"
    )


def _critic_steps(n_images: int) -> int:
    steps = steps_of_a_fit(n_images, 1)
    return steps["critic"] + steps["penalised"]


def _plans(row: Row, kinds: tuple[Kind, ...], price: float | None) -> str:
    def training(kind: Kind, machines: int) -> Estimate:
        return simulate_training(row, kind, machines, TRAIN)

    def arrays(kind: Kind, machines: int) -> Estimate:
        return simulate_scoring(row, kind, machines, SCORE, files=False)

    def files(kind: Kind, machines: int) -> Estimate:
        return simulate_scoring(row, kind, machines, SCORE, files=True)

    note = (
        "A core of each kind is the measured one, a link is its nominal rate: both are assumed. No "
        "process averages faster than the two measured ones, whatever its link: where two kinds "
        "take the same time, the link is not the bound. "
        "The cores of a full processor share its memory and are slower than one alone, which was "
        "not measured. No accelerator was at hand; measure on one before you plan with it. Prices "
        "are left to you: machine hours times the price of an hour (`--price`).\n"
    )
    return (
        f"## Train on {TRAIN:,} images\n\nThe default, {TRAIN:,} images of 32 x 32 trained on.\n\n"
        + _plan(training, kinds, price)
        + f"\n## Score {SCORE:,} images\n\nFrom arrays of 28 x 28 pixels:\n\n"
        + _plan(arrays, kinds, price)
        + "\nFrom as many PNG files, decoding included:\n\n"
        + _plan(files, kinds, price)
        + "\n"
        + note
    )


def _plan(
    simulate: Callable[[Kind, int], Estimate], kinds: tuple[Kind, ...], price: float | None
) -> str:
    lines = []
    for kind in kinds:
        for machines in MACHINES:
            found = simulate(kind, machines)
            lines.append(
                [
                    kind.name,
                    str(machines),
                    f"{found.hours:,.1f}",
                    f"{found.machine_hours:,.0f}",
                    f"{100 * found.communication:.0f} %",
                    f"{100 * found.waiting:.0f} %",
                    *([] if price is None else [f"{price * found.machine_hours:,.0f}"]),
                ]
            )
    head = "machine|how many|hours|machine hours|network|waiting for the slowest"
    return table([*head.split("|"), *([] if price is None else ["cost"])], lines)


def _breaks(row: Row) -> str:
    hours = SCORE * row["list_seconds_per_file"] / 3600
    memory = SCORE * row["list_bytes_per_file"] / 1e9
    return (
        f"1. **One file for each image.** To list {SCORE:,} files takes {hours:,.0f} hours and "
        f"{memory:,.0f} GB of memory in the process that hands out the parts. Above some tens of "
        "millions, put images into `.npy` files, or score folder by folder into a DIR of its own.\n"
        "2. **Named sets and `.npz` files**, which every worker holds as a whole. A `.npy` file "
        "of bytes is memory-mapped, and shared by the workers of a machine.\n"
        "3. **The slowest of many.** Training waits for it in every step (the last column): "
        "machines that are shared with others cost more than they bring. Scoring waits only for "
        "the last parts.\n"
        "4. **Small links.** See the column of the network: with 1 Gbit/s, machines of few cores "
        "wait for gradients.\n"
        "5. **The files of a part**: at most 10,000 parts, so that one of "
        f"{SCORE:,} images holds {SCORE // 10_000:,}; a worker that dies loses at most that much "
        "work.\n"
    )


if __name__ == "__main__":
    sys.exit(main())
