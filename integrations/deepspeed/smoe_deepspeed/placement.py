"""Moves experts to the devices a plan names, by renumbering them: expert weights and router rows permute together, so the
model computes what it did (docs/method.md; ownership in DeepSpeed is `expert // num_local_experts` everywhere).

`order` [N]: the checkpoint's expert id at each placed position; position p is on rank p // (N / ranks).
"""

from __future__ import annotations

from typing import Any, Callable

import deepspeed.comm as dist
import torch
from deepspeed.moe.ep_count import count_tokens_per_expert
from torch import Tensor

from .errors import SmoeError
from .plan import Plan

EXPERT_WEIGHTS = ("w1", "w2", "w3")


def placed_order(plan: Plan, layer: int) -> Tensor:
    """[N] experts by owner, ascending within one; PLAN_UNEQUAL unless every device owns as many."""
    counts = [len(plan.experts_of(layer, device)) for device in range(plan.devices)]
    if len(set(counts)) != 1:
        raise SmoeError(
            "PLAN_UNEQUAL",
            f"{plan.where}, layer {layer}: devices own {counts} experts; DeepSpeed gives every rank {plan.experts / plan.devices:g}",
            "solve the plan without unequal device sizes",
        )
    return torch.cat([torch.from_numpy(plan.experts_of(layer, device)) for device in range(plan.devices)])


def place(layer: Any, order: Tensor) -> Callable[[], None]:
    """Places an AutoEP layer's experts in `order`; a collective over its expert-parallel group. Returns what undoes it.

    Router rows stay, and ids are mapped after top-k, where permuting them could change the choice: with group-limited routing, whose
    groups are neighbouring rows; and in 16 bits, where scores at the k-th place often are equal and top-k takes the first.
    """
    identity = torch.arange(order.shape[0])
    router = layer.router
    _exchange_experts(layer, identity, order)
    mapped = router.num_expert_groups is not None or router.gate.weight.element_size() < 4
    if mapped:
        position = torch.empty_like(order)
        position[order] = identity
        _map_after_top_k(router, position.to(router.gate.weight.device))
    else:
        _permute_router(layer, order)

    def restore() -> None:
        _exchange_experts(layer, order, identity)
        if mapped:
            del router.forward
        else:
            _permute_router(layer, order.argsort())

    return restore


def _exchange_experts(layer: Any, held: Tensor, wanted: Tensor) -> None:
    """All-to-all of whole experts between the placements `held` and `wanted`, both [N]."""
    ranks, rank, local = layer.ep_size, layer.ep_rank, layer.num_local_experts
    mine, target = held[rank * local :][:local], wanted[rank * local :][:local]
    sends = [[int((mine == expert).nonzero()) for expert in part if expert in mine] for part in wanted.split(local)]
    receives = [[expert for expert in target.tolist() if expert in part] for part in held.split(local)]
    arrived = [expert for part in receives for expert in part]
    back = torch.tensor([arrived.index(expert) for expert in target.tolist()])
    for name in EXPERT_WEIGHTS:
        weight = getattr(layer.experts, name).data
        flat = weight.reshape(local, -1)
        outgoing = flat[torch.tensor([index for part in sends for index in part], device=flat.device)]
        incoming = torch.empty_like(flat)
        if ranks == 1:
            incoming.copy_(outgoing)
        else:
            dist.all_to_all_single(
                incoming,
                outgoing,
                output_split_sizes=[len(part) for part in receives],
                input_split_sizes=[len(part) for part in sends],
                group=layer.ep_group,
            )
        weight.copy_(incoming[back.to(flat.device)].reshape(weight.shape))


def _permute_router(layer: Any, order: Tensor) -> None:
    router = layer.router
    tensors = [router.gate.weight, router.gate.bias, router.e_score_correction_bias, layer.expert_bias, layer.tokens_per_expert]
    for tensor in tensors:
        if tensor is not None:
            tensor.data.copy_(tensor.data[order.to(tensor.device)])


def _map_after_top_k(router: Any, position: Tensor) -> None:
    stock = router.forward

    def mapped(x: Tensor, expert_bias: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        scores, selected, _ = stock(x, expert_bias)
        selected = position[selected]
        return scores, selected, count_tokens_per_expert(selected, router.num_experts)

    router.forward = mapped
