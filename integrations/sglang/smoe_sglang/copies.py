"""Which copy of an expert serves a token: the one on the token's own rank, else the owner's, as plans count copies.

SGLang 0.5.17 (srt/eplb/expert_location.py) takes the copy on the rank too, but then, over several hosts, the first one on the same host, and
else deals the copies out to the ranks at random: experts that one owner serves together would be split over several ranks.
"""

from __future__ import annotations

import numpy

from .errors import SetupError
from .plan import Plan


def owner_first(physical_to_logical: numpy.ndarray, ranks: int, rank: int, plan: Plan, layers: range) -> numpy.ndarray:
    """[L, N] the slot to which tokens of ``rank`` go for each expert; the lowest where a rank holds an expert more than once.

    physical_to_logical: [model layers, slots], every expert on its owner's rank (``check_expert_location``).
    """
    slots = physical_to_logical.shape[1]
    slot = numpy.arange(slots)
    owner_rank = _owner_rank(plan, ranks)
    table = numpy.empty((plan.layers, plan.experts), dtype=numpy.int64)
    for index, layer in enumerate(layers):
        lowest = numpy.full((ranks, plan.experts), slots)
        numpy.minimum.at(lowest, (slot // (slots // ranks), physical_to_logical[layer]), slot)
        at_owner = lowest[owner_rank[index], numpy.arange(plan.experts)]
        table[index] = numpy.where(lowest[rank] < slots, lowest[rank], at_owner)
    return table


def check_dispatch(
    table: numpy.ndarray, physical_to_logical: numpy.ndarray, ranks: int, rank: int, plan: Plan, layers: range
) -> None:
    """table: [model layers, N] as SGLang holds it. Raises unless every expert is served on ``rank`` where that holds it, else by its owner."""
    per_rank = physical_to_logical.shape[1] // ranks
    owner_rank = _owner_rank(plan, ranks)
    experts = numpy.arange(plan.experts)
    for index, layer in enumerate(layers):
        slots = table[layer]
        at_home = numpy.isin(experts, physical_to_logical[layer, rank * per_rank : (rank + 1) * per_rank])
        wanted = numpy.where(at_home, rank, owner_rank[index])
        wrong = numpy.flatnonzero((physical_to_logical[layer, slots] != experts) | (slots // per_rank != wanted))
        if wrong.size:
            raise SetupError(
                f"layer {layer}: SGLang sends tokens of rank {rank} for expert {wrong[0]} to slot {slots[wrong[0]]}, not to rank "
                f"{wanted[wrong[0]]} ({wrong.size} of {plan.experts} experts go elsewhere)",
                "another plug-in may have changed SGLang's dispatch table; SMOE_SGLANG_OWNER_FIRST=0 leaves copies to SGLang",
            )


def held_copies(physical_to_logical: numpy.ndarray, ranks: int, plan: Plan, layers: range) -> tuple[int, int]:
    """How many of the plan's copies are where it wants them, and how many it wants: exports may leave them out."""
    per_rank = physical_to_logical.shape[1] // ranks
    devices = plan.devices // ranks
    held = wanted = 0
    for index, layer in enumerate(layers):
        for device, copies in enumerate(plan.replicas[index]):
            rank = device // devices
            held += int(numpy.isin(copies, physical_to_logical[layer, rank * per_rank : (rank + 1) * per_rank]).sum())
            wanted += len(copies)
    return held, wanted


def _owner_rank(plan: Plan, ranks: int) -> numpy.ndarray:
    """[L, N]: a rank holds a contiguous block of the plan's devices."""
    return plan.expert_owner // (plan.devices // ranks)
