"""The shuffle around real collectives and a sparse layer, one process per GPU: equal outputs, bytes, time.

    python integrations/sglang/bench/distributed.py --out distributed.json

Needs two or more GPUs of one host with peer access, torch, triton and numpy; not SGLang.

Runs a few blocks of (token-mixing stand-in for attention, tensor-parallel; reduce-scatter; residual; norm; MoE layer on the
rank's slice; all-gather), with the residual staying sharded as SGLang keeps it. Once in the original order and once shuffled by the kernels,
with NCCL and with shared-memory collectives. Every rank holds all experts: here the shuffle must change nothing, and what it
saves in dispatch depends on a trained router, which random weights do not have.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from pathlib import Path

import numpy
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]
from moe_layer import SHAPES, MoeLayer  # noqa: E402
from smoe_sglang.collectives import LibraryCollectives, SharedMemoryCollectives  # noqa: E402
from smoe_sglang.kernels import assignment  # noqa: E402

BLOCKS = 3
CHECK_TOKENS = (64, 1024)
TIME_TOKENS = (64, 256, 1024, 4096, 16384)
HIDDEN = (2048, 7168)
VOCABULARY = 50_000


class PlainCollectives:
    """NCCL in the original order: what runs without the shuffle."""

    def __init__(self, ranks: int) -> None:
        self._ranks = ranks

    def reduce_scatter(self, partial: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
        slice_rows = partial.new_empty((len(partial) // self._ranks, partial.shape[1]))
        dist.reduce_scatter_tensor(slice_rows, partial)
        return slice_rows

    def all_gather(self, slice_rows: torch.Tensor, order: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        full = slice_rows.new_empty((len(slice_rows) * self._ranks, slice_rows.shape[1]))
        dist.all_gather_into_tensor(full, slice_rows)
        return full


def norm(rows: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.rms_norm(rows, (rows.shape[-1],))


def run_blocks(hidden, projections, layer, collectives, order, position, rank, ranks) -> torch.Tensor:
    """hidden: [T, H] in the original order on every rank -> the same after BLOCKS blocks."""
    count = len(hidden) // ranks
    mine = order[rank * count : (rank + 1) * count].long()
    residual = hidden[mine]
    full = hidden
    steps = torch.arange(1, len(hidden) + 1, device="cuda").unsqueeze(1)
    for block in range(BLOCKS):
        # A running mean mixes each row with all before it: wrong order cannot go unseen.
        mixed = (full.float().cumsum(0) / steps).to(full.dtype)
        slice_rows = collectives.reduce_scatter(mixed @ projections[block], order)
        residual = residual + slice_rows
        residual = residual + layer(norm(residual))
        full = collectives.all_gather(norm(residual), order, position).clone()
    return full


def graph_microseconds(call, repeats: int, replays: int = 9) -> float:
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.synchronize()
    dist.barrier()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(repeats):
            call()
    graph.replay()
    samples = []
    for _ in range(replays):
        torch.cuda.synchronize()
        dist.barrier()
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        samples.append(begin.elapsed_time(end) * 1000 / repeats)
    slowest = torch.tensor([statistics.median(samples)], device="cuda")
    dist.all_reduce(slowest, op=dist.ReduceOp.MAX)
    return slowest.item()


def shuffle_of(seed: int, tokens: int, ranks: int) -> assignment.AssignmentBuffers:
    random = numpy.random.default_rng(seed)
    buffers = assignment.AssignmentBuffers(tokens, ranks, "cuda")
    entries = assignment.pack_entries(
        torch.from_numpy(random.integers(0, ranks, VOCABULARY)), torch.from_numpy(random.integers(0, 256, VOCABULARY))
    )
    ids = torch.from_numpy(numpy.minimum(random.zipf(1.1, tokens) - 1, VOCABULARY - 1)).cuda()
    assignment.assign(buffers, ids, torch.tensor([tokens], dtype=torch.int32, device="cuda"), entries.cuda())
    everywhere = [torch.empty_like(buffers.position) for _ in range(ranks)]
    dist.all_gather(everywhere, buffers.position)
    if not all(torch.equal(other, buffers.position) for other in everywhere):
        raise AssertionError("ranks computed different permutations")
    return buffers


def difference(left: torch.Tensor, right: torch.Tensor) -> dict:
    return {"equalBits": torch.equal(left, right), "maxAbsDifference": (left.float() - right.float()).abs().max().item()}


def check(rank: int, ranks: int, tokens: int, seed: int) -> dict:
    shape = SHAPES[0]
    layer = MoeLayer(shape, torch.Generator("cuda").manual_seed(seed))
    common = torch.Generator("cuda").manual_seed(seed + 1)
    hidden = torch.randn(tokens, shape.hidden, generator=common, device="cuda", dtype=torch.bfloat16)
    own = torch.Generator("cuda").manual_seed(seed + 2 + rank)
    projections = torch.randn(BLOCKS, shape.hidden, shape.hidden, generator=own, device="cuda").to(torch.bfloat16) * 0.02
    buffers = shuffle_of(seed, tokens, ranks)
    plain = torch.arange(tokens, dtype=torch.int32, device="cuda")
    library = LibraryCollectives(ranks, dist.reduce_scatter_tensor, dist.all_gather_into_tensor)
    shared = SharedMemoryCollectives(dist.group.WORLD, tokens, shape.hidden, torch.bfloat16, torch.device("cuda", rank))

    def run(collectives, order, position):
        return run_blocks(hidden, projections, layer, collectives, order, position, rank, ranks)

    nccl = run(PlainCollectives(ranks), plain, plain)
    nccl_shuffled = run(library, buffers.order, buffers.position)
    shared_plain = run(shared, plain, plain)
    shared_shuffled = run(shared, buffers.order, buffers.position)
    torch.cuda.synchronize()
    result = {
        "tokens": tokens,
        "hidden": shape.hidden,
        "movedRows": int((buffers.home != torch.arange(tokens, device="cuda") // (tokens // ranks)).sum()),
        "ncclShuffledAgainstNccl": difference(nccl_shuffled, nccl),
        "sharedShuffledAgainstShared": difference(shared_shuffled, shared_plain),
        "sharedAgainstNccl": difference(shared_plain, nccl),
        "largestOutput": nccl.float().abs().max().item(),
    }
    if not result["sharedShuffledAgainstShared"]["equalBits"]:
        raise AssertionError(f"shared-memory collectives: the shuffle changed the output: {result}")
    if ranks == 2 and not result["ncclShuffledAgainstNccl"]["equalBits"]:
        raise AssertionError(f"NCCL with two ranks: the shuffle changed the output: {result}")
    return result


def time_collectives(rank: int, ranks: int, tokens: int, hidden: int, seed: int) -> dict:
    buffers = shuffle_of(seed, tokens, ranks)
    plain = torch.arange(tokens, dtype=torch.int32, device="cuda")
    partial = torch.randn(tokens, hidden, device="cuda", dtype=torch.bfloat16)
    library = LibraryCollectives(ranks, dist.reduce_scatter_tensor, dist.all_gather_into_tensor)
    shared = SharedMemoryCollectives(dist.group.WORLD, tokens, hidden, torch.bfloat16, torch.device("cuda", rank))
    repeats = 20 if tokens <= 4096 else 5

    def pair(collectives, order, position) -> float:
        def call() -> None:
            collectives.all_gather(collectives.reduce_scatter(partial, order), order, position)

        return graph_microseconds(call, repeats)

    return {
        "tokens": tokens,
        "hidden": hidden,
        # Payload each rank sends: the other ranks' slices, then its slice to the other ranks. The shuffle adds none.
        "bytesPerRank": 2 * (ranks - 1) * (tokens // ranks) * hidden * 2,
        "nccl": pair(PlainCollectives(ranks), plain, plain),
        "ncclShuffled": pair(library, buffers.order, buffers.position),
        "shared": pair(shared, plain, plain),
        "sharedShuffled": pair(shared, buffers.order, buffers.position),
    }


def worker(rank: int, ranks: int, port: int, seed: int, out: str) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.cuda.set_device(rank)
    dist.init_process_group("nccl", rank=rank, world_size=ranks, device_id=torch.device("cuda", rank))
    checks = [check(rank, ranks, tokens, seed + tokens) for tokens in CHECK_TOKENS]
    times = []
    for hidden in HIDDEN:
        for tokens in TIME_TOKENS:
            times.append(time_collectives(rank, ranks, tokens, hidden, seed))
    if rank == 0:
        machine = {"gpu": torch.cuda.get_device_name(), "gpus": ranks, "torch": torch.__version__, "nccl": torch.cuda.nccl.version()}
        report = {"machine": machine, "seed": seed, "unit": "microseconds", "checks": checks, "times": times}
        Path(out).write_text(json.dumps(report, indent=1))
        print(json.dumps(machine))
        for result in checks:
            print(json.dumps(result))
        print("\nReduce-scatter and all-gather, us in a graph, slowest rank")
        print(" tokens hidden bytes per rank |    NCCL  NCCL shuffled | shared  shared shuffled")
        for row in times:
            print(
                f"{row['tokens']:7d} {row['hidden']:6d} {row['bytesPerRank']:14d} | {row['nccl']:7.1f} {row['ncclShuffled']:14.1f} | "
                f"{row['shared']:6.1f} {row['sharedShuffled']:16.1f}"
            )
    dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, help="JSON file to write")
    parser.add_argument("--port", type=int, default=29533)
    arguments = parser.parse_args()
    ranks = torch.cuda.device_count()
    if ranks < 2:
        parser.error(f"{ranks} GPU here; the collectives need two or more")
    seed = numpy.random.SeedSequence().entropy % 2**31
    multiprocessing.spawn(worker, (ranks, arguments.port, seed, arguments.out), nprocs=ranks)


if __name__ == "__main__":
    main()
