"""A placement file through SGLang's own loader, and its ranks as SGLang sees them."""

from __future__ import annotations

from pathlib import Path

import pytest
from demo_plan import PLAN_FILE
from sglang_process import run_python

pytest.importorskip("sglang", reason="needs the pinned SGLang (requirements.txt)")

LOAD = """
import newer_transformers
import json, os, sys
from types import SimpleNamespace
from unittest import mock
import numpy
import sglang.srt.eplb.expert_location as expert_location
from sglang.srt.eplb.expert_location import ModelConfigForExpertLocation, compute_initial_expert_location_metadata
from smoe_sglang.errors import SetupError
from smoe_sglang.placement import check_expert_location
from smoe_sglang.plan import read_plan
import sglang.srt.runtime_context as runtime_context
from expert_location import physical_to_logical

plan = read_plan(os.environ['PLAN'])
file = os.environ['FILE']
with open(file, 'w') as out:
    json.dump({'physical_to_logical_map': physical_to_logical(plan, 4, 1).tolist()}, out)

# What SGLang would know from the model's class and the launch flags; the loader itself is SGLang's.
shape = ModelConfigForExpertLocation(num_layers=9, num_logical_experts=64, num_groups=None)
parallel = SimpleNamespace(ep_size=4, nnodes=1, elastic_ep_initial_size=None)
moe = SimpleNamespace(ep_num_redundant_experts=0, moe_a2a_backend='deepep', ep_dispatch_algorithm='static', ep_join_mode=None)
with (
    mock.patch.object(ModelConfigForExpertLocation, 'from_model_config', staticmethod(lambda config: shape)),
    mock.patch.object(runtime_context, 'get_parallel', lambda: parallel),
    mock.patch.object(runtime_context, 'get_exec', lambda: SimpleNamespace(moe=moe)),
    mock.patch.object(expert_location, '_prefer_same_node_experts', lambda: True),
):
    def load(location):
        return compute_initial_expert_location_metadata(SimpleNamespace(init_expert_location=location, device='cpu'), None, 2)

    placed = load(file)
    check_expert_location(placed.physical_to_logical_map_cpu.numpy(), 4, plan, range(1, 9))
    assert placed.num_local_physical_experts == 16
    # SGLang's dispatch table sends every expert to the rank the plan says.
    dispatch = placed.logical_to_rank_dispatch_physical_map.numpy()
    assert (dispatch[1:] // 16 == plan.expert_owner).all()
    trivial = load('trivial')
    try:
        check_expert_location(trivial.physical_to_logical_map_cpu.numpy(), 4, plan, range(1, 9))
        raise AssertionError('the trivial placement passed for the plan')
    except SetupError as error:
        assert 'smoe export' in str(error)
    # Any other key is passed on as a keyword, and refused by SGLang itself: metadata belongs in a sidecar.
    with open(file, 'w') as out:
        json.dump({'physical_to_logical_map': physical_to_logical(plan, 4, 1).tolist(), 'plan': 'x'}, out)
    try:
        load(file)
        raise AssertionError('an extra key was accepted')
    except TypeError:
        pass
print('location fine')
"""


def test_sglangs_loader_puts_experts_where_the_plan_says(tmp_path: Path) -> None:
    result = run_python(LOAD, tmp_path, PLAN=str(PLAN_FILE), FILE=str(tmp_path / "location.json"))
    assert result.returncode == 0 and "location fine" in result.stdout, result.stderr[-3000:]
