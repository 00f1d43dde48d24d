"""The page that compares methods: it is what the rows say, and its ranks and losses are right."""

import shlex
from pathlib import Path

from tiny import row_of

from benchmarks.comparison import families as numbers
from benchmarks.comparison import page
from benchmarks.comparison.cost import cost_section
from benchmarks.pages import ROWS, commands, merged
from historyad.files import append_rows
from historyad.research import standings


def test_the_readme_says_what_the_rows_say():
    readme = " ".join((Path(__file__).parents[2] / "README.md").read_text().split())
    standing = " ".join(page.standing(numbers.read_all(ROWS)).split())
    assert standing.removeprefix("`historyad` ").rstrip(".") in readme


def test_commands_that_differ_in_their_splits_alone_are_shown_as_one():
    lines = [f"historyad benchmark --split mnist-only-{d} --seeds 1" for d in range(10)]
    lines += ["historyad benchmark --seeds 1 --split a b --split 'c|d|e'", "python other.py"]
    two = "historyad benchmark --seeds 1 --split mnist-only-0 mnist-only-1"
    assert merged(lines[:2], "--split") == [two]
    assert merged(lines, "--split") == [
        "historyad benchmark --seeds 1 --split a b 'c|d|e' 'mnist-only-*'",
        "python other.py",
    ]
    apart = ["historyad benchmark --seeds 2", "historyad benchmark --split a --seeds 1"]
    assert [set(shlex.split(line)) for line in merged(apart, "--split")] == [
        set(shlex.split(line)) for line in apart
    ]


def test_a_wildcard_stands_for_what_it_matches():
    lines = ["benchmark --split 'a-*' b", "benchmark --split 'a-[4-9]' a-1 c"]
    assert merged(lines, "--split") == ["benchmark --split 'a-*' b c"]
    halves = ["benchmark --split 'a-[0-4]' b", "benchmark --split 'a-[5-9]'"]
    assert merged(halves, "--split") == ["benchmark --split 'a-*' b"]
    assert merged(halves[:1], "--split") == halves[:1]


def test_a_command_names_only_what_is_wanted_of_it():
    lines = [
        "benchmark --split 'a-*' b --seeds 1 --jobs 2",
        "benchmark --jobs 2 --seeds 1 --split c",
    ]
    assert merged(lines, "--split", {"a-1", "c"}) == [
        "benchmark --jobs 2 --seeds 1 --split c 'a-*'"
    ]
    assert merged(lines[1:], "--split", {"d"}) == ["benchmark --jobs 2 --seeds 1 --split c"]


def test_commands_of_a_section_are_few():
    rows = [
        {"command": f"historyad benchmark --method {method} --split mnist-only-{digit} --seeds 1"}
        for method in ("vae", "memae")
        for digit in range(10)
    ]
    text = commands(rows).split("```")[1].strip()
    assert text == "historyad benchmark --seeds 1 --split 'mnist-only-*' --method memae vae"


def test_a_command_names_only_the_methods_whose_rows_it_gave():
    first, second = (f"historyad benchmark --jobs {n} --method vae memae" for n in (1, 2))
    rows = [{"command": first, "method": "vae"}, {"command": second, "method": "memae"}]
    assert commands(rows).split("\n")[2:4] == [
        "historyad benchmark --jobs 1 --method vae",
        "historyad benchmark --jobs 2 --method memae",
    ]


def test_losses_name_what_is_better_and_by_how_much():
    rows = [
        row_of("historyad", "mnist-vs-kmnist", 0.9),
        row_of("historyad", "mnist-vs-fashion", 0.99),
    ]
    rows += [
        row_of("vae", "mnist-vs-kmnist", 0.92),
        row_of("memae", "mnist-vs-kmnist", 0.95),
    ]
    rows += [
        row_of("historyad-paper", "mnist-vs-kmnist", 0.97),
        row_of("vae", "mnist-vs-fashion", 0.5),
    ]
    text = page.losses_section(numbers.measured(rows))
    assert "| mnist-vs-kmnist | 0.9000 | `memae` +0.0500, `vae` +0.0200 |" in text
    assert "on 1 of the 2 splits" in page.standing(numbers.measured(rows))
    assert "mnist-vs-fashion |" not in text


def test_a_peer_is_ahead_by_more_than_chance_where_its_interval_begins_beyond_ours():
    ours = row_of("historyad", "s", 0.90) | {"auroc_low": 0.88, "auroc_high": 0.92}
    vae = row_of("vae", "s", 0.94) | {"auroc_low": 0.93, "auroc_high": 0.95}
    memae = row_of("memae", "s", 0.93) | {"auroc_low": 0.91, "auroc_high": 0.95}
    worse = row_of("egbad", "s", 0.80) | {"auroc_low": 0.79, "auroc_high": 0.81}
    rows = numbers.measured([ours, vae, memae, worse])
    assert numbers.clearly_better(rows, "s", "historyad") == ["vae"]


def test_splits_on_which_settings_were_chosen_stand_apart():
    splits = numbers.ONE_GARMENT.splits  # on the first five of these, settings were chosen
    rows = [row_of("historyad", split, 0.9 - 0.1 * (i > 4)) for i, split in enumerate(splits)]
    rows += [row_of("vae", split, 0.7) for split in splits]
    text = page.tuned(numbers.measured(rows))
    assert "| One kind of clothing (5) | chosen on | 0.9000 | 0.7000 `vae` | +0.2000 |" in text
    assert "| One kind of clothing (5) | not | 0.8000 | 0.7000 `vae` | +0.1000 |" in text


def test_losses_on_a_table_compare_the_same_halves():
    rows = [row_of("historyad", "t", auroc, seed) for seed, auroc in ((1, 0.9), (2, 0.7))]
    rows += [row_of("vae", "t", auroc, seed) for seed, auroc in ((1, 0.8), (2, 0.8), (3, 1.0))]
    assert numbers.better_peers(numbers.measured(rows), "t", "historyad").empty


def test_one_seed_on_a_table_is_compared_with_the_same_half():
    split = numbers.TABLES.splits[0]
    rows = [row_of("historyad", split, auroc, seed) for seed, auroc in ((3, 0.9), (4, 0.6))]
    frame = numbers.measured([*rows, row_of("vae", split, 0.8, 3)])
    assert numbers.better_peers(frame, split, "historyad").empty


def test_a_seed_on_which_settings_were_chosen_does_not_count(tmp_path):
    rows = [
        row_of("historyad", "vectors-cable", auroc, seed) for seed, auroc in ((2, 0.9), (3, 0.7))
    ]
    append_rows(tmp_path / "comparison" / "a.jsonl", rows)
    frame = numbers.read_all(tmp_path)
    assert standings.means(frame, ["vectors-cable"], "auroc")["historyad"] == 0.7


def test_what_verdicts_find_is_told():
    found = {"detection_rate": 0.25, "false_positive_rate": 0.0125}
    rows = [row_of("historyad", "magnetic-tile", 0.9, **found)]
    text = page.family_section(numbers.measured(rows), numbers.TILES)
    assert "`historyad` finds 25.0 % of the anomalies\nand flags 1.2 % of the normal" in text
    assert "At its threshold" not in page.family_section(
        numbers.measured([row_of("vae", "magnetic-tile", 0.9)]), numbers.TILES
    )


def test_what_is_missing_is_a_dash():
    rows = [row_of("vae", "mnist-vs-kmnist", 0.9), row_of("memae", "mnist-vs-kmnist", 0.95)]
    rows += [row_of("memae", "mnist-vs-fashion", 0.95)]
    text = page.page_of(numbers.measured(rows))
    assert "| `vae` | 1 | 0.9000 | 0.4500 | – | – |" in text
    assert "| `memae` | 1 | **0.9500** | **0.4750** | **0.9500** | **0.4750** |" in text
    assert text.count("*Not measured yet.*") == len(numbers.FAMILIES) - 1


def test_the_last_row_of_all_files_counts(tmp_path):
    for name, auroc in (("a", 0.5), ("b", 0.7)):
        append_rows(tmp_path / "comparison" / f"{name}.jsonl", [row_of("vae", "s", auroc)])
    frame = numbers.read_all(tmp_path)
    assert standings.means(frame, ["s"], "auroc")["vae"] == 0.7


def test_a_row_of_all_test_samples_goes_before_one_of_a_part(tmp_path):
    whole, part = (
        row_of("vae", "mnist-vs-kmnist", 0.9),
        row_of("vae", "mnist-vs-kmnist", 0.8, most=2),
    )
    slow = row_of("anogan", "mnist-vs-kmnist", 0.7, most=2, n_normal=2, n_anomalous=2)
    append_rows(tmp_path / "comparison" / "a.jsonl", [whole, part, slow])
    frame = numbers.read_all(tmp_path)
    assert standings.means(frame, ["mnist-vs-kmnist"], "auroc")["vae"] == 0.9
    text = page.page_of(frame)
    assert "9 training samples; 5 normal and 5 anomalous ones test." in text
    assert "drawn by the seed: `anogan` (2).\n" in text


def test_the_reproduction_at_full_size_is_a_row_of_the_paper():
    found = row_of("paper", "svhn-vs-cifar10", 0.8, seed=3) | {"train": {"n": 7000}}
    rows = [found | {"size": "full"}, found | {"size": "quick"}]
    rows.append(found | {"size": "full", "method": "default"})
    (kept,) = numbers.rows_of_paper(rows)
    assert kept["method"] == "historyad-paper"
    assert (kept["seed"], kept["n_train"], kept["auroc"]) == (3, 7000, 0.8)


def test_one_digit_at_full_size_is_a_row_that_says_how_it_was_drawn():
    found = row_of("case 1", "", 0.7, seed=1) | {"size": "full", "train": {"n": 50_000}}
    rows = [found | {"digit": 3}, found | {"digit": 3, "method": "case 2"}]
    (kept,) = numbers.rows_of_paper(rows)
    assert (kept["method"], kept["split"]) == ("historyad-paper", "mnist-without-3")
    frame = numbers.measured([kept, row_of("vae", "mnist-without-3", 0.8)])
    text = page.family_section(frame, numbers.WITHOUT)
    assert "\n9 training samples; 5 normal" in text
    assert "`historyad-paper`: from [figure 7]" in text


def test_a_whole_fit_of_the_default_is_a_row_for_each_far_split():
    verdict = {"auroc": 0.9, "n_normal": 6, "n_anomalous": 4, "score_seconds": 5.0}
    fit = {"recipe": "default", "seed": 2, "threads": 2, "n_train": 60, "command": "speed"}
    fit |= {"seconds": 7.0, "peak_memory_mb": 8.0, "detector_parameters": 9}
    fit |= dict.fromkeys(numbers.FAR.splits, verdict)
    rows = [*numbers.rows_of_fits([fit, {**fit, "recipe": "quick"}, {"part": "growth"}])]
    assert [row["split"] for row in rows] == [*numbers.FAR.splits]
    for row in rows:
        assert (row["method"], row["seed"], row["auroc"]) == ("historyad", 2, 0.9)
        assert (row["fit_seconds"], row["images_per_second"]) == (7.0, 2.0)


def test_times_are_of_the_machine_where_most_were_measured():
    measured = [("historyad", "old", 900.0), ("historyad", "new", 300.0), ("vae", "old", 1.0)]
    measured += [("vae", "new", 150.0), ("memae", "new", 100.0), ("egbad", "new", 60.0)]
    measured += [("anogan", "old", 1.0)]
    rows = [
        row_of(method, "mnist-vs-kmnist", 0.9, seed, machine=machine, images_per_second=speed)
        for seed, (method, machine, speed) in enumerate(measured)
    ]
    section = cost_section(numbers.measured(rows))
    assert "* new: `egbad`, `historyad`, `memae`, `vae`\n* old: `anogan`\n" in section
    for method, ratio in {"vae": "2", "memae": "3", "anogan": "300"}.items():
        line = next(line for line in section.splitlines() if line.startswith(f"| `{method}`"))
        assert line.split(" | ")[4] == ratio
