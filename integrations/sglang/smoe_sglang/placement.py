"""Checks that the experts SGLang loaded are where the plan says: predictions for another placement would move tokens for nothing."""

from __future__ import annotations

import numpy

from .errors import SetupError
from .plan import Plan


def sparse_layers(model_layers: int, plan: Plan, first_dense: int) -> range:
    """Ids of the model's layers that the plan's layers are: the last ones, after ``first_dense`` dense ones."""
    if first_dense + plan.layers != model_layers:
        raise SetupError(
            f"the plan has {plan.layers} MoE layers; the model has {model_layers} layers, the first {first_dense} dense",
            "use a plan made for this model; models with dense layers between sparse ones are not supported",
        )
    return range(first_dense, model_layers)


def check_expert_location(physical_to_logical: numpy.ndarray, ranks: int, plan: Plan, layers: range) -> None:
    """physical_to_logical: [model layers, slots] as SGLang holds it; slot p is on rank p // (slots / ranks).

    Every expert must be on its owner's rank; a rank holds a contiguous block of the plan's devices.
    """
    model_layers, slots = physical_to_logical.shape
    if slots % ranks or plan.devices % ranks:
        raise SetupError(f"{slots} expert slots or {plan.devices} plan devices do not divide by {ranks} ranks", "use the exported file")
    if layers.stop > model_layers:
        raise SetupError(f"SGLang holds {model_layers} layers, the plan wants layer {layers.stop - 1}", "use a plan for this model")
    rank_of_slot = numpy.arange(slots) // (slots // ranks)
    owner_rank = plan.expert_owner // (plan.devices // ranks)
    for index, layer in enumerate(layers):
        held = numpy.zeros((ranks, plan.experts), dtype=bool)
        experts = physical_to_logical[layer]
        if experts.min() < 0 or experts.max() >= plan.experts:
            raise SetupError(f"layer {layer}: SGLang numbers experts outside 0 to {plan.experts - 1}", "use a plan for this model")
        held[rank_of_slot, experts] = True
        astray = numpy.flatnonzero(~held[owner_rank[index], numpy.arange(plan.experts)])
        if astray.size:
            raise SetupError(
                f"layer {layer}: expert {astray[0]} is not on rank {owner_rank[index][astray[0]]} as the plan says "
                f"({astray.size} of {plan.experts} experts are elsewhere)",
                "start SGLang with --init-expert-location and the file that `smoe export PLAN --to sglang` wrote for this plan",
            )
