"""The plug-in inside the real SGLang package: found by its entry point, hooks held by its registry, loud when anything is off."""

from __future__ import annotations

from pathlib import Path

import pytest
from demo_plan import PLAN_FILE
from sglang_process import run_python

pytest.importorskip("sglang", reason="needs the pinned SGLang (requirements.txt)")

# One process for what leaves SGLang untouched or restores it: importing SGLang takes seconds.
REFUSALS = """
import newer_transformers
import os
from unittest import mock
import sglang.srt.plugins as plugins
from sglang.srt.plugins.hook_registry import HookRegistry
import sglang.srt.layers.communicator as communicator

def load():
    plugins._plugins_loaded = False
    plugins.load_plugins()

def refused(message):
    try:
        load()
    except SystemExit as exit:
        assert message in str(exit), (message, str(exit))
        return
    raise AssertionError(f'not refused: {message}')

# Off unless switched on.
before = communicator.CommunicateSummableTensorPairFn._gather
load()
assert not HookRegistry._hooks and communicator.CommunicateSummableTensorPairFn._gather is before
os.environ['SMOE_SGLANG'] = 'yes'
refused('SMOE_SGLANG=yes')
os.environ['SMOE_SGLANG'] = '1'
plan = os.environ.pop('SMOE_SGLANG_PLAN')
refused('no plan')
os.environ['SMOE_SGLANG_PLAN'] = '/nowhere'
refused('/nowhere: No such file')
os.environ['SMOE_SGLANG_PLAN'] = plan
with mock.patch('importlib.metadata.version', return_value='0.5.23'):
    refused('SGLang 0.5.23 is installed; the hooks are for 0.5.17')
assert not HookRegistry._hooks

# Another signature than the one read: refused before anything is hooked, whatever the version says.
def gather(hidden_states, residual): ...
with mock.patch.object(communicator.CommunicateSummableTensorPairFn, '_gather', gather):
    os.environ['SMOE_SGLANG_ANY_VERSION'] = '1'
    with mock.patch('importlib.metadata.version', return_value='0.5.18'):
        refused('_gather takes (hidden_states, residual), not (hidden_states, residual, forward_batch')
assert not HookRegistry._hooks

# A hook that SGLang's registry fails to apply is only logged there.
apply_target = HookRegistry._apply_target.__func__
def fail(registry, target, hooks):
    if target.endswith('_scattered_to_tp_attn_full'):
        raise OSError('sabotage')
    apply_target(registry, target, hooks)
with mock.patch.object(HookRegistry, '_apply_target', classmethod(fail)):
    refused('did not take hold on sglang.srt.layers.communicator.CommunicateSimpleFn._scattered_to_tp_attn_full')
print('refusals fine')
"""

HOOKED = """
import newer_transformers
import json, os
from array import array
from types import SimpleNamespace
import sglang.srt.plugins as plugins
from sglang.srt.plugins.hook_registry import HookRegistry
import sglang.srt.layers.communicator as communicator
import sglang.srt.managers.tokenizer_manager as tokenizer_manager
from sglang.srt.managers import data_parallel_controller as controllers
from sglang.srt.managers.io_struct import AbortReq, TokenizedGenerateReqInput
from sglang.srt.sampling.sampling_params import SamplingParams

plugins.load_plugins()
from smoe_sglang.hooks import holds, Hook
from smoe_sglang.plan import read_plan
targets = sorted(HookRegistry._hooks)
print(json.dumps(targets))
for target, hooks in HookRegistry._hooks.items():
    assert [source.plugin_name for _, _, source in hooks] == ['smoe']
    for kind, function, _ in hooks:
        assert holds(Hook(target, kind.name, function, ()))
        assert not holds(Hook(target, kind.name, print, ()))

# The layer communicator picks its functions by name when a model is built: it must pick the hooked ones.
mode = communicator.ScatterMode
context = SimpleNamespace(is_same_group_size=lambda a, b: a == b, attn_tp_size=4)
chosen = communicator.CommunicateSimpleFn.get_fn(mode.SCATTERED, mode.TP_ATTN_FULL, context)
assert chosen.__wrapped__ is not None and chosen is communicator.CommunicateSimpleFn._scattered_to_tp_attn_full
chosen = communicator.CommunicateWithAllReduceAndLayerNormFn.get_fn(
    mode.TP_ATTN_FULL, mode.SCATTERED, mode.SCATTERED, mode.SCATTERED, context)
assert chosen.func is communicator.CommunicateWithAllReduceAndLayerNormFn._scatter_hidden_states_and_residual

# Requests: through SGLang's own tokenizer manager and data-parallel controller, with the sockets' ends held here.
sent = []
tokenizer_manager.sock_send = lambda socket, request: sent.append(request)
delivered = []
controllers.sock_send = lambda worker, request: delivered.append((worker, request.rid))
manager = object.__new__(tokenizer_manager.TokenizerManager)
manager.server_args = SimpleNamespace(enable_dp_attention=True, dp_size=4, tokenizer_worker_num=1)
manager.tokenizer_ipc_name, manager.send_to_scheduler = None, None
manager.rid_to_state = {}
controller = object.__new__(controllers.DataParallelController)
controller.workers, controller._active_workers = ['w0', 'w1', 'w2', 'w3'], [0, 1, 2, 3]

def request(rid, ids, rank=None):
    fields = {name: None for name in TokenizedGenerateReqInput.__struct_fields__}
    values = {**fields, 'rid': rid, 'input_ids': array('q', ids), 'sampling_params': SamplingParams(), 'routed_dp_rank': rank}
    return TokenizedGenerateReqInput(**values)

needs = read_plan(os.environ['SMOE_SGLANG_PLAN']).needs_by_rank(4)
prompts = [[5, 9, 700], [16000, 3], [42], [8, 8, 8, 100]]
unserved, expected = {0, 1, 2, 3}, []
for number, ids in enumerate(prompts):
    score = needs[ids].sum(axis=0)
    best = max(sorted(unserved), key=lambda rank: (score[rank], -rank))
    unserved.discard(best)
    expected.append(best)
    manager.rid_to_state[str(number)] = None
    manager._dispatch_to_scheduler(request(str(number), ids))
    controller.round_robin_scheduler(sent[-1])
assert [rank.routed_dp_rank for rank in sent] == expected, ([rank.routed_dp_rank for rank in sent], expected)
assert delivered == [(f'w{rank}', str(number)) for number, rank in enumerate(expected)]
manager._dispatch_to_scheduler(request('chosen', [1], rank=2))
assert sent[-1].routed_dp_rank == 2
manager._dispatch_to_scheduler(AbortReq(rid='0'))
assert isinstance(sent[-1], AbortReq)
manager.server_args = SimpleNamespace(enable_dp_attention=False, dp_size=4, tokenizer_worker_num=1)
manager._dispatch_to_scheduler(request('plain', [1]))
assert sent[-1].routed_dp_rank is None
print('hooked fine')
"""


def test_refusals_are_loud_and_leave_sglang_untouched(tmp_path: Path) -> None:
    result = run_python(REFUSALS, tmp_path, SMOE_SGLANG_PLAN=str(PLAN_FILE))
    assert result.returncode == 0 and "refusals fine" in result.stdout, result.stderr[-3000:]


def test_hooks_hold_and_requests_reach_the_chosen_rank(tmp_path: Path) -> None:
    result = run_python(HOOKED, tmp_path, SMOE_SGLANG="1", SMOE_SGLANG_PLAN=str(PLAN_FILE))
    assert result.returncode == 0 and "hooked fine" in result.stdout, result.stderr[-3000:]
    for target in ("_scatter_hidden_states_and_residual", "ModelRunner.load_model", "_dispatch_to_scheduler"):
        assert target in result.stdout
