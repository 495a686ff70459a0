"""Payload bytes by purpose, of the unmodified run and of ours alike: counted where all of them pass, in deepspeed.comm.

Payload is what a rank hands to other ranks; a row that stays on its rank is not counted, padding that is sent is. For an all-reduce it is
what the ring and tree algorithms send per rank, 2 (G - 1) / G of the tensor.

Purposes, with the names of docs/method.md: `attention` (collectives outside MoE layers), `dispatch`, `combine`, `restore` (all
tensor ranks get all rows back), `control` (counts, sizes, indices).
"""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from typing import Any, Callable, Iterator

import deepspeed.comm as dist
import torch
from deepspeed.module_inject.auto_ep_layer import AutoEPMoELayer
from deepspeed.moe.sharded_moe import MOELayer

PURPOSES = ("attention", "dispatch", "combine", "restore", "control")

_purpose: str | None = None


@contextmanager
def purpose(name: str) -> Iterator[None]:
    """Says what the collectives inside are for."""
    global _purpose
    before, _purpose = _purpose, name
    try:
        yield
    finally:
        _purpose = before


class ByteCounts:
    """Bytes and messages of this rank. `messages` counts collectives."""

    def __init__(self) -> None:
        self.bytes: Counter[str] = Counter()
        self.messages: Counter[str] = Counter()

    def summed(self) -> dict[str, dict[str, int]]:
        """Summed over all ranks, on every rank; a collective. `expert` is dispatch + combine, what is given to all-to-all."""
        names = PURPOSES
        device = torch.device(dist_device())
        table = torch.tensor([[self.bytes[name] for name in names], [self.messages[name] for name in names]], device=device)
        torch.distributed.all_reduce(table)
        counted = {"bytes": dict(zip(names, table[0].tolist())), "messages": dict(zip(names, table[1].tolist()))}
        for field in counted.values():
            field["total"] = sum(field.values())
            field["expert"] = field["dispatch"] + field["combine"]
        return counted


def dist_device() -> str:
    """Where tensors of collectives live: the accelerator under NCCL, else the CPU."""
    return f"cuda:{torch.cuda.current_device()}" if torch.distributed.get_backend() == "nccl" else "cpu"


@contextmanager
def count_bytes(model: torch.nn.Module) -> Iterator[ByteCounts]:
    """Counts every collective of `model`'s forward passes inside the block.

    Stock code says nothing of purposes, so inside a MoE layer the first all-to-all of rows is the dispatch and the second the
    combine; a gather of rows restores; integers are control.
    """
    counts = ByteCounts()
    inside: list[int] = []  # all-to-alls of rows so far, for each MoE layer being run

    def classify(kind: str, tensor: torch.Tensor) -> str:
        if _purpose is not None:
            return _purpose
        if not inside:
            return "attention" if tensor.is_floating_point() else "control"
        if not tensor.is_floating_point():
            return "control"
        if kind == "all_to_all":
            inside[-1] += 1
            return "dispatch" if inside[-1] == 1 else "combine"
        return "restore" if kind == "all_gather" else "control"

    def add(kind: str, tensor: torch.Tensor, payload: float) -> None:
        name = classify(kind, tensor)
        counts.bytes[name] += int(payload)
        counts.messages[name] += 1

    def of_all_to_all(arguments: dict[str, Any]) -> None:
        tensor, group, splits = arguments["tensor"], arguments.get("group"), arguments.get("input_split_sizes")
        ranks, rank = dist.get_world_size(group), dist.get_rank(group)
        kept = tensor.shape[0] // ranks if splits is None else splits[rank]
        add("all_to_all", tensor, (tensor.shape[0] - kept) * _row_bytes(tensor))

    def of_gather(arguments: dict[str, Any]) -> None:
        tensor = arguments["tensor"]
        add("all_gather", tensor, _size(tensor) * (dist.get_world_size(arguments.get("group")) - 1))

    def of_reduce(arguments: dict[str, Any]) -> None:
        tensor, ranks = arguments["tensor"], dist.get_world_size(arguments.get("group"))
        add("all_reduce", tensor, 2 * (ranks - 1) / ranks * _size(tensor))

    wrapped: dict[str, tuple[tuple[str, ...], Callable[[dict[str, Any]], None]]] = {
        "all_to_all_single": (("output", "tensor", "output_split_sizes", "input_split_sizes", "group"), of_all_to_all),
        "all_gather": (("tensor_list", "tensor", "group"), of_gather),
        "all_gather_into_tensor": (("output_tensor", "tensor", "group"), of_gather),
        "all_reduce": (("tensor", "op", "group"), of_reduce),
        "inference_all_reduce": (("tensor", "op", "group"), of_reduce),
    }
    originals = {name: getattr(dist, name) for name in wrapped}

    def wrap(name: str) -> Callable[..., Any]:
        names, count = wrapped[name]

        def counted(*positional: Any, **named: Any) -> Any:
            count({**dict(zip(names, positional)), **named})
            return originals[name](*positional, **named)

        return counted

    handles = []
    for module in model.modules():
        if isinstance(module, (AutoEPMoELayer, MOELayer)):
            handles.append(module.register_forward_pre_hook(lambda *_: inside.append(0)))
            handles.append(module.register_forward_hook(lambda *_: (inside.pop(), None)[1]))
    for name in wrapped:
        setattr(dist, name, wrap(name))
    try:
        yield counts
    finally:
        for name, original in originals.items():
            setattr(dist, name, original)
        for handle in handles:
            handle.remove()


def _row_bytes(tensor: torch.Tensor) -> int:
    return _size(tensor) // tensor.shape[0] if tensor.shape[0] else 0


def _size(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()
