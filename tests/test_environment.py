"""What every row of a measurement says about where it was taken."""

import os

import torch

from historyad import environment


def test_versions_name_what_a_result_depends_on():
    found = environment.versions()
    assert found["torch"] == torch.__version__
    assert {"historyad", "numpy", "python", "machine", "safetensors"} <= found.keys()


def test_the_machine_is_its_processor_and_its_cores(tmp_path):
    info = tmp_path / "cpuinfo"
    info.write_text("processor\t: 0\nmodel name\t: Some CPU @ 3: fast\n\nmodel name\t: Another\n")
    assert environment.machine(info) == f"Some CPU @ 3: fast, {os.cpu_count()} cores"


def test_a_machine_without_a_list_of_processors_still_has_a_name(tmp_path):
    name, _, cores = environment.machine(tmp_path / "none").rpartition(", ")
    assert name
    assert cores == f"{os.cpu_count()} cores"
