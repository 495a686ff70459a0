"""A forward pass through SGLang's own communicator functions on several processes, hooked and not: same rows out."""

from __future__ import annotations

from pathlib import Path

import pytest
from demo_plan import PLAN_FILE
from sglang_process import run_python

pytest.importorskip("sglang", reason="needs the pinned SGLang (requirements.txt)")

# Two processes over gloo; Triton's interpreter runs the kernels. The parent imports SGLang once and forks.
PASS = """
import newer_transformers
import os, socket, sys
from types import SimpleNamespace
os.environ['TRITON_INTERPRET'] = '1'
import numpy, torch, torch.distributed as dist
import sglang.srt.layers.communicator as communicator
import sglang.srt.plugins as plugins

RANKS, HIDDEN, TOKENS, VALID, LAYERS = 2, 16, 12, 11, 4
mode = communicator.ScatterMode

def reduce_scatter(output, source):
    # Gloo may lack reduce-scatter: the same sum by all-reduce.
    total = source.clone()
    dist.all_reduce(total)
    output.copy_(total.tensor_split(RANKS)[dist.get_rank()])

def all_gather(output, source):
    dist.all_gather(list(output.tensor_split(RANKS)), source.contiguous())

def layernorm(hidden, residual):
    residual += hidden
    return torch.nn.functional.rms_norm(residual, (HIDDEN,)), residual

def forward(rank, batch, seen):
    '''Layer 0 dense, 1 and 2 sparse, 3 dense: what the plan of layers asks of every function, in SGLang's order.'''
    context = SimpleNamespace(attn_tp_size=RANKS, attn_tp_rank=rank, attn_dp_size=1, tp_size=RANKS, tp_rank=rank, cache=None)
    weights = torch.Generator().manual_seed(10 + rank)
    full = torch.randn(TOKENS, HIDDEN, generator=torch.Generator().manual_seed(1))
    residual = full.clone()
    normed = torch.nn.functional.rms_norm(full, (HIDDEN,))
    incoming = mode.TP_ATTN_FULL
    norms, simple = communicator.CommunicateWithAllReduceAndLayerNormFn, communicator.CommunicateSimpleFn
    for layer in range(3):
        # Attention: in original order, each row from all before it, summed over ranks.
        partial = normed.cumsum(0) @ torch.randn(HIDDEN, HIDDEN, generator=weights)
        rows, residual = norms._scatter_hidden_states_and_residual(
            partial, residual, batch, layernorm, context, residual_input_mode=incoming)
        incoming = mode.SCATTERED
        seen.append(rows.clone())
        rows = torch.tanh(rows * 3)
        if layer < 2:
            rows, residual = layernorm(rows, residual)
            normed = simple._scattered_to_tp_attn_full(rows, batch, context)
    out, none = communicator.CommunicateSummableTensorPairFn._gather(rows, residual.clone(), batch, context)
    assert none is None
    # A dense layer after sparse ones gathers the residual instead; same batch, its own branch.
    partial = normed @ torch.randn(HIDDEN, HIDDEN, generator=weights)
    dense, residual = norms._gather_hidden_states_and_residual(
        partial, residual, batch, layernorm, context, residual_input_mode=mode.SCATTERED)
    return out, dense, residual

def worker(rank, port):
    os.environ.update(MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port))
    dist.init_process_group('gloo', rank=rank, world_size=RANKS)
    communicator.attn_tp_reduce_scatter_tensor = reduce_scatter
    communicator.attn_tp_all_gather_into_tensor = all_gather
    communicator.get_local_dp_buffer = lambda group: torch.empty(TOKENS, HIDDEN)
    def all_reduce(rows):
        dist.all_reduce(rows)
        return rows
    communicator.attention_tensor_model_parallel_all_reduce = all_reduce
    communicator.apply_flashinfer_allreduce_fusion = communicator.apply_aiter_all_reduce_fusion = lambda rows: False
    communicator.get_parallel = lambda: SimpleNamespace(attn_tp_group=None)
    communicator.get_attn_tp_context = lambda: SimpleNamespace(input_scattered=False)
    communicator.get_exec = lambda: SimpleNamespace(comm=SimpleNamespace(enable_quant_communications=False))

    ids = torch.from_numpy(numpy.random.default_rng(5).integers(0, 16384, TOKENS))
    slots = torch.arange(1, TOKENS + 1)
    slots[VALID:] = 0
    def batch():
        forward_mode = SimpleNamespace(is_decode_or_idle=lambda: False)
        return SimpleNamespace(input_ids=ids, out_cache_loc=slots, forward_mode=forward_mode)

    plain_rows, shuffled_rows = [], []
    plain = forward(rank, batch(), plain_rows)
    plugins.load_plugins()

    from sglang.srt.plugins.hook_registry import HookRegistry
    from smoe_sglang.collectives import LibraryCollectives
    from smoe_sglang.kernels.assignment import pack_entries
    from smoe_sglang.plan import read_plan
    from smoe_sglang.shuffle import TokenShuffle
    hook = HookRegistry._hooks['sglang.srt.model_executor.model_runner.ModelRunner.load_model'][0][1]
    plugin = hook.__self__
    # Hooked but not set up (attention-DP): SGLang's own path.
    untouched = forward(rank, batch(), [])
    assert all(torch.equal(a, b) for a, b in zip(untouched, plain))

    devices, confidences = plugin.plan.token_predictions(RANKS)
    table = pack_entries(torch.from_numpy(devices), torch.from_numpy(confidences))
    plugin._shuffle = TokenShuffle(table, rank, RANKS, LibraryCollectives(RANKS, reduce_scatter, all_gather), mode.SCATTERED)
    shuffled_batch = batch()
    shuffled = forward(rank, shuffled_batch, shuffled_rows)
    # Two ranks: a sum of two terms does not depend on which rank adds them.
    for name, a, b in zip(('output', 'dense', 'residual'), shuffled, plain):
        assert torch.equal(a, b), (name, (a - b).abs().max())
    assert plugin._shuffle.passes == 1

    # Between the layers the rows are where the table says, not where they were.
    mine = shuffled_batch._smoe_shuffle.mine.long()
    capacity = TOKENS // RANKS
    everywhere = [torch.empty(capacity, HIDDEN) for _ in range(RANKS)]
    for before, after in zip(plain_rows, shuffled_rows):
        dist.all_gather(everywhere, before)
        assert torch.equal(torch.cat(everywhere)[mine], after)
    moved = (mine // capacity != rank).sum().item()
    assert moved > 0
    wanted = torch.from_numpy(devices)[ids]
    at_home = (wanted[mine[mine < VALID]] == rank).sum().item()
    if (wanted[:VALID] == rank).sum() >= capacity and rank == 0:
        assert at_home == capacity
    # Padding stays where SGLang counts it.
    padding = range(max(VALID, rank * capacity), (rank + 1) * capacity)
    assert mine[[token - rank * capacity for token in padding]].tolist() == list(padding)
    print(f'rank {rank}: moved {moved}, pass fine', flush=True)

with socket.socket() as probe:
    probe.bind(('127.0.0.1', 0))
    port = probe.getsockname()[1]
child = os.fork()
if child == 0:
    try:
        worker(1, port)
    except BaseException:
        import traceback
        traceback.print_exc()
        os._exit(1)
    os._exit(0)
worker(0, port)
_, status = os.waitpid(child, 0)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def test_a_pass_through_the_hooked_communicator_equals_the_plain_one(tmp_path: Path) -> None:
    result = run_python(PASS, tmp_path, SMOE_SGLANG="1", SMOE_SGLANG_PLAN=str(PLAN_FILE))
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.count("pass fine") == 2
