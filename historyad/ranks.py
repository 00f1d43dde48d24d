"""Training in several processes, on one machine or many: what a step needs of its group.

Every process, a *rank*, takes its part of each global batch, and one sum over all ranks after the
backward pass makes the step that of the whole batch. That is done here and not by
DistributedDataParallel, whose hooks miss gradients of the gradient penalty. In a world of one,
each of these functions does nothing at all.

The group is that of `torch.distributed`, as torchrun describes it in the environment. Nothing but
tensors travels: what torch calls objects would be pickled.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from historyad.config import Config, as_dict
from historyad.environment import versions
from historyad.errors import ConfigError, RunError

# While rank 0 fits the companions and calibrates, the others wait.
_TIMEOUT = timedelta(hours=1)


@contextlib.contextmanager
def launch() -> Iterator[None]:
    """Join the group that torchrun started, for as long as the context lasts.

    CPU tensors travel by gloo, CUDA tensors by NCCL. Without torchrun, or with one process, there
    is no group. Raises RunError when another rank ends before its time: torchrun starts the group
    again or ends it.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    # Adam imports it. Within a group, that would keep the group's threads beyond its end, and now
    # and then abort a process that leaves with them.
    import torch._dynamo

    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        _join(backend)
        yield
    except (dist.DistError, RuntimeError) as error:  # gloo has no exception of its own
        if isinstance(error, dist.DistError) or "gloo" in str(error).lower():
            reason = str(error).splitlines()[0]
            raise RunError(
                f"rank {os.environ['RANK']} lost another rank of the group ({reason}): see what "
                "that one said; the same command continues"
            ) from error
        raise
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def _join(backend: str) -> None:
    """Join the group whose members find each other in torchrun's store.

    torchrun keeps one store when it starts the group again, with the addresses of the dead in it:
    each start has keys of its own.
    """
    store, number, size = next(rendezvous("env://", timeout=_TIMEOUT))
    start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    dist.init_process_group(
        backend,
        store=PrefixStore(f"start {start}", store),
        rank=number,
        world_size=size,
        timeout=_TIMEOUT,
    )


def world_size() -> int:
    """Return the number of processes in the group."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Return the number of this process in the group, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_main() -> bool:
    """Whether this process writes the run: rank 0."""
    return rank() == 0


def local_rank() -> int:
    """Return the number of this process on its machine: which of its accelerators to take."""
    return int(os.environ.get("LOCAL_RANK", "0")) if world_size() > 1 else 0


def own_part(size: int) -> slice:
    """Return which of the ``size`` samples of a global batch are this rank's.

    Parts differ by one sample at most. Raises ConfigError when there are too few for all ranks.
    """
    if size < world_size():
        raise ConfigError(
            f"batch_size is {size}, too small for {world_size()} processes: raise batch_size or "
            "start fewer"
        )
    return slice(size * rank() // world_size(), size * (rank() + 1) // world_size())


def share(size: int) -> float:
    """Return the share of a global batch of ``size`` that is this rank's."""
    part = own_part(size)
    return float(part.stop - part.start) / size


def backward(loss: Tensor, network: nn.Module, size: int) -> None:
    """Set the gradients of ``network`` to those of the loss over the whole batch of ``size``.

    ``loss`` is a mean over this rank's part. It is weighted by the part's share before the
    backward pass, and not after: through batch statistics, a sample acts on the loss of other
    ranks, whose parts may have another size.
    """
    if world_size() == 1:
        loss.backward()  # type: ignore[no-untyped-call]
        return
    (loss * share(size)).backward()  # type: ignore[no-untyped-call]
    average_gradients(network.parameters())


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace each gradient, already weighted by its rank's share, by its sum over all ranks.

    One flat buffer travels. A gradient that is missing on this rank counts as zero.
    """
    if world_size() == 1:
        return
    for parameter in (trained := list(parameters)):
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    gradients = [parameter.grad for parameter in trained if parameter.grad is not None]
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    add_up(flat)
    sizes = [gradient.numel() for gradient in gradients]
    for gradient, summed in zip(gradients, torch.split(flat, sizes), strict=True):
        gradient.copy_(summed.view(gradient.shape))


def add_up(values: Tensor) -> Tensor:
    """Replace ``values`` by their sum over all ranks, and return them."""
    if world_size() > 1:
        dist.all_reduce(values)
    return values


class _Sum(torch.autograd.Function):
    """Sum over all ranks; so is its gradient, since each rank's loss depends on the sum."""

    @staticmethod
    def forward(_: Any, values: Tensor) -> Tensor:
        return add_up(values.clone())

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> Tensor:
        return add_up(gradients[0].clone())


def total(values: Tensor) -> Tensor:
    """Return the sum of ``values`` over all ranks, through which gradients flow."""
    return values if world_size() == 1 else _Sum.apply(values)  # type: ignore[no-untyped-call]


def average(value: Tensor, size: int) -> Tensor:
    """Return the mean over a batch of ``size``, given this rank's mean over its part."""
    return value if world_size() == 1 else total(value * share(size))


def broadcast(networks: Iterable[nn.Module]) -> None:
    """Give every rank the parameters and buffers of rank 0."""
    if world_size() == 1:
        return
    for network in networks:
        for tensor in network.state_dict().values():
            sent = tensor.detach().contiguous()  # of channels last, a copy
            dist.broadcast(sent, 0)
            tensor.copy_(sent)


def barrier() -> None:
    """Wait until every rank is here."""
    if world_size() > 1:
        gather(torch.zeros(1))  # unlike dist.barrier, on the CPU and thus by gloo


def gather(values: Tensor) -> Tensor:
    """Return the CPU tensor ``values`` of every rank, (world size, *shape)."""
    if world_size() == 1:
        return values[None]
    found = [torch.empty_like(values) for _ in range(world_size())]
    dist.all_gather(found, values)
    return torch.stack(found)


def union(numbers: Iterable[int]) -> list[int]:
    """Return the numbers, 0 or above, that any rank has."""
    own = torch.tensor(sorted(numbers), dtype=torch.int64)
    most = int(gather(torch.tensor([len(own)])).max())
    filled = torch.full((most,), -1)
    filled[: len(own)] = own
    return sorted({n for n in gather(filled).flatten().tolist() if n >= 0})


def fingerprint(value: Any) -> str:
    """Return the SHA-256 of what JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def agree(fingerprints: Mapping[str, str], advice: str) -> None:
    """Raise RunError, on every rank, unless all ranks have the same ``fingerprints``.

    They are SHA-256 in hexadecimal, by the name of what they stand for.
    """
    own = torch.tensor([list(bytes.fromhex(text)) for text in fingerprints.values()])
    everyones = gather(own.to(torch.uint8))
    for number, name in enumerate(fingerprints):
        first, *others = (bytes(row[number].tolist()).hex() for row in everyones)
        for other, found in enumerate(others, start=1):
            if found != first:
                raise RunError(
                    f"rank {other} has another {name} than rank 0 (fingerprint {found}, not "
                    f"{first}): {advice}"
                )


def agree_on_fit(config: Config, data: str) -> None:
    """Raise RunError when another rank was started with another config or on other data.

    ``data`` is its fingerprint.
    """
    own_part(config.batch_size)
    agree(
        {
            "config": fingerprint(as_dict(config)),
            "data": data,
            "set of versions": fingerprint(versions()),
        },
        "give every process the same command and data, in the same environment",
    )


def choose_device(name: str) -> torch.device:
    """Return the device called ``name``; auto is an accelerator where there is one.

    Of several processes on a machine, each takes the CUDA device of its number. Raises ConfigError
    when the device is not there.
    """
    if name == "auto":
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        name = accelerator.type if accelerator else "cpu"
    if name == "cuda" and world_size() > 1:
        name = f"cuda:{local_rank()}"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device '{name}' cannot be used here: take auto or cpu") from error
    return device
