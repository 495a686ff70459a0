from __future__ import annotations

from types import SimpleNamespace

import numpy
import pytest
from demo_plan import PLAN_FILE
from expert_location import physical_to_logical
from smoe_sglang.errors import SetupError
from smoe_sglang.placement import check_expert_location, sparse_layers
from smoe_sglang.plan import read_plan
from smoe_sglang.supported import first_dense_layers

PLAN = read_plan(str(PLAN_FILE))


def test_the_plans_own_placement_passes_also_on_fewer_ranks_and_after_dense_layers() -> None:
    check_expert_location(physical_to_logical(PLAN, 4, 0), 4, PLAN, range(8))
    check_expert_location(physical_to_logical(PLAN, 4, 0), 2, PLAN, range(8))
    check_expert_location(physical_to_logical(PLAN, 4, 2), 4, PLAN, range(2, 10))


def test_experts_elsewhere_are_named() -> None:
    with pytest.raises(SetupError, match="layer 0: expert .* is not on rank"):
        check_expert_location(numpy.tile(numpy.arange(64), (8, 1)), 4, PLAN, range(8))
    moved = physical_to_logical(PLAN, 4, 0)
    first, other = 0, 63
    moved[5, [first, other]] = moved[5, [other, first]]
    with pytest.raises(SetupError, match=r"layer 5: .* \(2 of 64 experts are elsewhere\)"):
        check_expert_location(moved, 4, PLAN, range(8))


def test_another_models_placement_is_refused() -> None:
    with pytest.raises(SetupError, match="do not divide"):
        check_expert_location(numpy.zeros((8, 66), dtype=int), 4, PLAN, range(8))
    with pytest.raises(SetupError, match="numbers experts outside"):
        check_expert_location(numpy.tile(numpy.arange(68), (8, 1)), 4, PLAN, range(8))
    with pytest.raises(SetupError, match="holds 7 layers"):
        check_expert_location(physical_to_logical(PLAN, 4, 0)[:7], 4, PLAN, range(8))
    with pytest.raises(SetupError, match="8 MoE layers; the model has 9"):
        sparse_layers(9, PLAN, 0)
    assert sparse_layers(9, PLAN, 1) == range(1, 9)


def test_dense_layers_are_counted_from_the_models_config() -> None:
    assert first_dense_layers(SimpleNamespace(first_k_dense_replace=1, moe_layer_freq=1)) == 1
    assert first_dense_layers(SimpleNamespace(mlp_only_layers=[], decoder_sparse_step=1)) == 0
    assert first_dense_layers(SimpleNamespace(moe_layer_freq=[0, 0, 1, 1])) == 2
    for config in ({"mlp_only_layers": [3]}, {"decoder_sparse_step": 2}, {"moe_layer_freq": 2}, {"moe_layer_freq": [1, 0, 1]}):
        with pytest.raises(SetupError, match="between sparse ones"):
            first_dense_layers(SimpleNamespace(**config))
