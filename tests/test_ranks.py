"""Several processes take the steps of one: gloo groups, started for real on this machine."""

import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny import TINY, TINY_OPTIONS, TRAINED, batches_of, networks_for, tiny_config
from torch import nn

from historyad import ranks
from historyad.cli import main
from historyad.data import streams
from historyad.data.datasets import open_source
from historyad.errors import ConfigError, RunError
from historyad.judge.evaluation import evaluate_model
from historyad.layers import WholeBatchNorm2d
from historyad.method.detector import detector_step
from historyad.method.gan import build_gan, critic_step, generator_step, make_adam
from historyad.method.history import History
from historyad.model.model import Model
from historyad.randomness import Stream, torch_generator

BATCH = 16  # of three ranks: 5, 5 and 6


# --- one step, against that of the whole batch


def steps(digits):
    """Return gradients and statistics after one step of each kind, of all ranks together."""
    config = tiny_config(batch_size=BATCH, augment="flip,rotate90", penalty_interval=4)
    batches = batches_of(digits, config)
    part, found = ranks.own_part(BATCH), {}
    for penalised in (True, False):  # of a lazy penalty, the step with and that without
        gan = build_gan(batches.networks, config, "cpu")
        random = torch_generator(0, Stream.GAN)
        real = batches.at(0, BATCH, part)
        distance = critic_step(gan, real, random, config, penalised=penalised)
        found[f"distance {penalised}"] = ranks.average(distance, BATCH)
        found |= named(f"critic {penalised}", gan.critic)
    # Each from the start: Adam's first step is the sign of a gradient, which rounding decides
    # where it should be 0.
    gan = build_gan(batches.networks, config, "cpu")
    generator_step(gan, torch_generator(0, Stream.GAN), config)
    found |= named("generator", gan.generator)
    detector = build_gan(batches.networks, config, "cpu").critic
    generated = batches.at(BATCH, BATCH, part)
    estimate = detector_step(
        detector, make_adam(detector, 1e-3, (0.5, 0.9)), real, generated, config
    )
    found["estimate"] = ranks.average(estimate, BATCH)
    return {**found, **named("detector", detector)}


def named(name, network):
    gradients = {f"{name} grad {k}": p.grad.clone() for k, p in network.named_parameters()}
    state = network.state_dict().items()
    kept = {f"{name} {k}": v.clone() for k, v in state if "running" in k or "tracked" in k}
    return gradients | kept


def drawn(folder):
    """Return samples of the histories in a folder, which all ranks draw together."""
    return {
        name: torch.from_numpy(history.sample(40, 64))
        for name, history in histories(folder).items()
    }


def histories(folder):
    config = tiny_config(decay=0.0)
    shapes = {"images": (2, 8, 8), "vectors": (5,)}
    return {
        name: History(folder / name, config, networks_for(shape, config))
        for name, shape in shapes.items()
    }


def record_snapshots(folder):
    """Record more snapshots than there are ranks."""
    for history in histories(folder).values():
        for number in range(7):
            gan = build_gan(history.networks, tiny_config(seed=number), "cpu")
            history.record(512 + 64 * number, gan.generator, gan.critic)


def missing_gradients():
    """Average the gradients of a network of which each rank uses another half."""
    halves = nn.ModuleList([nn.Linear(2, 1, bias=False), nn.Linear(2, 1, bias=False)])
    for parameter in halves.parameters():
        nn.init.ones_(parameter)
    halves[ranks.rank() % 2](torch.ones(2)).sum().backward()
    ranks.average_gradients(halves.parameters())
    return torch.cat([p.grad.flatten() for p in halves.parameters()])


def whole_batch_norm():
    """Return output, gradient and statistics of a batch norm of ranks with unequal parts."""
    x = torch.randn(BATCH, 3, 2, 2, generator=torch.Generator().manual_seed(1)) * 3 + 10
    own = x[ranks.own_part(BATCH)].requires_grad_()
    norm = WholeBatchNorm2d(3)
    y = norm(own)
    y.square().mul(own.detach()).sum().backward()
    return {"y": y.detach(), "grad": own.grad, "mean": norm.running_mean, "var": norm.running_var}


def work(rank, size, folder, digits):
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": (folder / "port").read_text()}
    with ranks.launch():
        save_file(steps(digits), folder / f"steps-{rank}")
        save_file(drawn(folder), folder / f"drawn-{rank}")
        norm = {k: v.contiguous() for k, v in whole_batch_norm().items()}
        save_file(norm, folder / f"norm-{rank}")
        network = nn.Linear(2, 2)
        nn.init.constant_(network.weight, rank)
        ranks.broadcast([network])
        streams.IN_MEMORY_BYTES = 0
        source = open_source(folder / "photos", skip_unreadable=True)
        source.samples.look_at([rank])  # which nobody else reads
        source.share_unreadable()
        several = {
            "unreadable": torch.tensor(sorted(source.samples.unreadable_rows)),
            "missing": missing_gradients(),
            "broadcast": network.weight.detach(),
            "gathered": ranks.gather(torch.tensor([rank, 10 * rank])),
            "parts": torch.tensor([ranks.share(n) for n in (size, 7, 100)]),
        }
        save_file(several, folder / f"several-{rank}")
        refused = []
        for size_of_batch in (size - 1, BATCH):
            try:
                ranks.own_part(size_of_batch)
                prints = {"config": "ab" * 32, "data": f"{rank:064x}"}
                ranks.agree(prints, "mend it")
            except (ConfigError, RunError) as error:
                refused.append(f"{type(error).__name__} {error}")
        (folder / f"refused-{rank}").write_text("\n".join(refused))
    assert not dist.is_initialized()


@pytest.fixture(scope="module", params=[2, 3])
def group(request, tmp_path_factory, digits):
    """Number of ranks, and the folder of what they found."""
    folder = tmp_path_factory.mktemp("group")
    record_snapshots(folder)
    (folder / "photos").mkdir()
    for number in range(5):
        Image.new("L", (4, 4)).save(folder / "photos" / f"{number}.png")
        if number < request.param:
            (folder / "photos" / f"{number}.png").write_bytes(b"damaged")
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    (folder / "port").write_text(str(store.port))
    os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "True"  # the store is there, as with torchrun
    try:
        torch.multiprocessing.spawn(work, (request.param, folder, digits[0][:200]), request.param)
    finally:
        del os.environ["TORCHELASTIC_USE_AGENT_STORE"]
    return request.param, folder


def test_one_step_is_that_of_the_whole_batch(group, digits):
    size, folder = group
    expected = steps(digits[0][:200])
    assert sum(tensor.abs().max() > 1e-3 for tensor in expected.values()) > 20
    for rank in range(size):
        found = load_file(folder / f"steps-{rank}")
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            torch.testing.assert_close(found[name], tensor, rtol=1e-5, atol=1e-5, msg=name)


def test_ranks_agree_to_the_last_bit(group):
    size, folder = group
    first, *others = (load_file(folder / f"steps-{rank}") for rank in range(size))
    for other in others:
        assert all(torch.equal(first[name], other[name]) for name in first)


def test_all_ranks_get_all_samples_of_the_history(group):
    """Each makes those of some generators."""
    size, folder = group
    expected = drawn(folder)
    assert (expected["vectors"] != 0).all()
    for rank in range(size):
        found = load_file(folder / f"drawn-{rank}")
        assert all(torch.equal(found[name], samples) for name, samples in expected.items())


def test_batch_norm_is_torchs_over_all_ranks(group):
    size, folder = group
    found = [load_file(folder / f"norm-{rank}") for rank in range(size)]
    x = torch.randn(BATCH, 3, 2, 2, generator=torch.Generator().manual_seed(1)) * 3 + 10
    x.requires_grad_()
    norm = nn.BatchNorm2d(3)
    y = norm(x)
    y.square().mul(x.detach()).sum().backward()
    for name, expected in (("y", y), ("grad", x.grad)):
        together = torch.cat([rank[name] for rank in found])
        torch.testing.assert_close(together, expected, rtol=1e-4, atol=1e-4)
    for rank in found:
        torch.testing.assert_close(rank["mean"], norm.running_mean)
        torch.testing.assert_close(rank["var"], norm.running_var)


def test_missing_gradients_count_as_zero_and_the_rest_travels(group):
    size, folder = group
    for rank in range(size):
        several = load_file(folder / f"several-{rank}")
        assert several["missing"].tolist() == [[1, 1, 1, 1], [2, 2, 1, 1]][size - 2]
        assert (several["broadcast"] == 0).all()
        assert several["unreadable"].tolist() == list(range(size))
        assert several["gathered"].tolist() == [[i, 10 * i] for i in range(size)]
    shares = sum(load_file(folder / f"several-{rank}")["parts"] for rank in range(size))
    assert shares.tolist() == pytest.approx([1, 1, 1])


def test_every_rank_says_what_is_refused(group):
    size, folder = group
    for rank in range(size):
        small, other = (folder / f"refused-{rank}").read_text().splitlines()
        assert small.startswith(f"ConfigError batch_size is {size - 1}, too small for {size} proce")
        assert f"rank 1 has another data than rank 0 (fingerprint {1:064x}, not {0:064x})" in other


# --- alone


def test_a_world_of_one_does_nothing():
    with ranks.launch():
        assert (ranks.rank(), ranks.world_size(), ranks.is_main()) == (0, 1, True)
    values = torch.ones(3)
    assert ranks.total(values) is values
    assert ranks.average(values, 7) is values
    assert ranks.add_up(values) is values
    assert ranks.own_part(5) == slice(0, 5)
    ranks.agree({"data": "00"}, "")
    ranks.barrier()


@pytest.mark.parametrize("name", ["cpu", "auto"])
def test_a_device_that_is_there_is_taken(name):
    device = ranks.choose_device(name)
    assert isinstance(device, torch.device)
    assert name == "auto" or device == torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu", "", "cuda:99", "cpu:x"])
def test_a_device_that_is_not_there_is_a_config_error(name):
    with pytest.raises(ConfigError, match=f"device '{name}'.*take auto or cpu"):
        ranks.choose_device(name)


# --- torchrun


OTHERS = [option for option in TINY_OPTIONS if not option.startswith("--views")]
OTHERS.append("--views=history")


def torchrun(*arguments, n=2, script=("-m", "historyad"), restarts=0, **environment):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    command += [str(n), f"--max-restarts={restarts}", *script, *map(str, arguments)]
    return subprocess.run(
        command,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )


def test_two_processes_reach_the_quality_of_one(tmp_path):
    options = [f"--{name.replace('_', '-')}={value}" for name, value in TRAINED.items()]
    fit = ["fit", "digits:train:!0", *options]
    assert main([*fit, "--out", str(tmp_path / "one")]) == 0
    done = torchrun(*fit, "--out", tmp_path / "two")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("normal samples") == 1  # of rank 0 alone
    normal, anomalous = open_source("digits:test:!0"), open_source("digits:test:0")
    aurocs = [
        evaluate_model(Model.load(tmp_path / name, torch.device("cpu")), normal, anomalous)["auroc"]
        for name in ("one", "two")
    ]
    assert aurocs[1] > max(0.8, aurocs[0] - 0.03)


KILLED_FIT = """
    import json, os, signal, sys
    from pathlib import Path
    from historyad import ranks
    from historyad.config import make_config
    from historyad.data.datasets import open_source
    from historyad.method import detector, gan
    from historyad.model.fit import fit_model
    from historyad.model.run import RunDirectory

    marks, run, settings, rank = Path(sys.argv[1]), *sys.argv[2:], os.environ["RANK"]

    def mortal(step, name, fatal):
        count = 0
        def stepping(*arguments, **named):
            nonlocal count
            count += 1
            mark = marks / name
            if count == fatal and rank == "1" and not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return step(*arguments, **named)
        return stepping

    if marks.exists():
        gan.critic_step = mortal(gan.critic_step, "gan", 11)
        detector.detector_step = mortal(detector.detector_step, "detector", 5)
    config = make_config(**json.loads(settings))
    with ranks.launch():
        source = open_source("digits:train:!0")
        fit_model(source, config, RunDirectory(run, checkpoint_seconds=-1.0))
"""


def test_a_killed_worker_costs_nothing_but_time(tmp_path):
    """The group starts again, twice, and ends in the bytes of one that was left alone."""
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(KILLED_FIT))
    settings = json.dumps({**TINY, "views": "history"})
    (tmp_path / "marks").mkdir()
    killed = torchrun(
        tmp_path / "marks", tmp_path / "killed", settings, script=[str(script)], restarts=2
    )
    assert killed.returncode == 0, killed.stderr
    assert {mark.name for mark in (tmp_path / "marks").iterdir()} == {"gan", "detector"}
    alone = torchrun(tmp_path / "none", tmp_path / "alone", settings, script=[str(script)])
    assert alone.returncode == 0, alone.stderr
    for name in ("detector.safetensors", "history/manifest.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are listed by Linux")
def test_no_thread_of_the_group_outlives_it(tmp_path):
    """A process that leaves while one runs is aborted now and then."""
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
        from pathlib import Path
        import torch
        from historyad import ranks
        from historyad.method.gan import make_adam

        with ranks.launch():
            ranks.barrier()
            make_adam(torch.nn.Linear(2, 1), 1e-3, (0.9, 0.999))
        print([task.read_text() for task in Path("/proc/self/task").glob("*/comm")])
        """)
    )
    done = torchrun(script=[str(script)])
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("python") == 2
    assert "gloo" not in done.stdout


@pytest.mark.parametrize("what", ["config", "data"])
def test_a_rank_that_disagrees_is_refused_at_the_start(tmp_path, what):
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
        import os, sys
        from historyad.cli import main
        if os.environ["RANK"] == "1":
            old, new = sys.argv[1:3]
            sys.argv = [new if argument == old else argument for argument in sys.argv]
        del sys.argv[1:3]
        sys.exit(main())
        """)
    )
    x = np.random.default_rng(0).integers(0, 255, (300, 8, 8), dtype=np.uint8)
    for name, value in (("a.npy", 0), ("b.npy", 1)):
        np.save(tmp_path / name, x + value)
    here, there = (tmp_path / "a.npy", tmp_path / "b.npy")
    change = ["--seed=0", "--seed=1"] if what == "config" else [here, there]
    out = tmp_path / "run"
    done = torchrun(*change, "fit", here, "--seed=0", *OTHERS, "--out", out, script=[str(script)])
    assert done.returncode != 0
    found = re.search(
        rf"historyad: rank 1 has another {what} than rank 0 \(fingerprint (\w+), not (\w+)\)",
        done.stderr,
    )
    assert found, done.stderr
    assert found[1] != found[2]
    assert {len(found[1]), len(found[2])} == {64}
    assert not out.exists()


# --- the page


def test_the_commands_of_the_page_show_what_it_shows(tmp_path):
    page = (Path(__file__).parents[1] / "docs" / "distributed.md").read_text()
    blocks = re.findall(
        r'^```(\w+)(?: title="([\w.]+)")?\n(.*?)^```$', page, flags=re.MULTILINE | re.DOTALL
    )
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"}
    ran = []
    for language, title, text in blocks:
        if language == "python":
            (tmp_path / title).write_text(text)
        elif language == "console":
            for command, shown in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", text, re.MULTILINE):
                done = subprocess.run(
                    ["bash", "-c", command],
                    cwd=tmp_path,
                    env=environment,
                    capture_output=True,
                    text=True,
                    check=False,
                )
                assert done.returncode == 0, (command, done.stderr)
                ran.append(command)
                output = {
                    _without_numbers(line) for line in (done.stderr + done.stdout).splitlines()
                }
                wanted = {_without_numbers(line) for line in shown.splitlines()} - {"..."}
                assert wanted <= output, (command, wanted - output)
    assert [command.split()[0] for command in ran] == [
        "torchrun",
        "python",
        "historyad",
        "historyad",
    ]


def _without_numbers(line):
    return re.sub(r"[+-]?\d[\d.,]*", "#", line)
