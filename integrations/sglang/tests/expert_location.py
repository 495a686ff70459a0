"""A plan's placement as SGLang's physical_to_logical_map, as `smoe export PLAN --to sglang` writes it."""

from __future__ import annotations

import numpy
from smoe_sglang.plan import Plan


def physical_to_logical(plan: Plan, ranks: int, first_dense: int) -> numpy.ndarray:
    """[first_dense + L, N]; a rank's slots are its experts in ascending order, and dense layers count through."""
    owner = plan.expert_owner // (plan.devices // ranks)
    sparse = [numpy.argsort(layer, kind="stable") for layer in owner]
    return numpy.stack([numpy.arange(plan.experts)] * first_dense + sparse)
