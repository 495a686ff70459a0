"""Times the shuffle's kernels against straightforward PyTorch operations and against the MoE layer they serve, on one GPU.

    python integrations/sglang/bench/shuffle.py --out shuffle.json

Needs torch, triton and numpy; not SGLang. Every size is first checked against the NumPy reference on fresh random inputs.
Times are microseconds: `graph` is per call inside a replayed CUDA graph (the GPU's work alone), `eager` is per call as Python
enqueues it. Medians. The collectives are timed on one GPU with G local buffers in place of the peers': that shows what the shuffle
adds to them, not what a link costs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy
import torch
import triton

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]
import argsort_baseline  # noqa: E402
from moe_layer import SHAPES, MoeLayer  # noqa: E402
from smoe_sglang import reference  # noqa: E402
from smoe_sglang.kernels import assignment, rows  # noqa: E402

TOKENS = (64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
DEVICES = (4, 8, 16, 32, 64)
HIDDEN = (2048, 4096, 7168)
VOCABULARY = 151_936
REPEATS, REPLAYS = 20, 11


def graph_microseconds(call, repeats: int = REPEATS, replays: int = REPLAYS) -> float:
    """Median over replays of a CUDA graph that holds `repeats` calls, per call."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(repeats):
            call()
    graph.replay()
    samples = []
    for _ in range(replays):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        samples.append(begin.elapsed_time(end) * 1000 / repeats)
    return statistics.median(samples)


def eager_microseconds(call, repeats: int = 20, samples: int = 5) -> float:
    """Median wall time of enqueueing and finishing `repeats` calls, per call."""
    call()
    torch.cuda.synchronize()
    times = []
    for _ in range(samples):
        begin = time.perf_counter()
        for _ in range(repeats):
            call()
        torch.cuda.synchronize()
        times.append((time.perf_counter() - begin) * 1e6 / repeats)
    return statistics.median(times)


class Batch:
    """Random ids, tables and homes of one size, on the GPU for both implementations and on the CPU for the reference."""

    def __init__(self, random: numpy.random.Generator, tokens: int, devices: int) -> None:
        self.tokens, self.devices = tokens, devices
        # Word frequencies fall off as a power of the rank: few ids make up most of the text, so slices overflow.
        self.ids = numpy.minimum(random.zipf(1.1, tokens) - 1, VOCABULARY - 1)
        self.token_device = random.integers(0, devices, VOCABULARY)
        self.token_confidence = random.integers(0, 256, VOCABULARY)
        self.moves_device = random.integers(0, devices, (devices, devices))
        self.moves_confidence = random.integers(0, 256, (devices, devices))
        self.before, self.two_before = random.integers(0, devices, (2, tokens))

        def gpu(values: numpy.ndarray, kind: torch.dtype) -> torch.Tensor:
            return torch.from_numpy(values).to(kind).cuda()

        entries = assignment.pack_entries(torch.from_numpy(self.token_device), torch.from_numpy(self.token_confidence))
        moves = assignment.pack_entries(torch.from_numpy(self.moves_device), torch.from_numpy(self.moves_confidence))
        self.buffers = assignment.AssignmentBuffers(tokens, devices, "cuda")
        self.kernel_inputs = (
            gpu(self.ids, torch.int64), torch.tensor([tokens], dtype=torch.int32, device="cuda"), entries.cuda(),
            moves.flatten().cuda(), gpu(self.before, torch.uint8), gpu(self.two_before, torch.uint8),
        )  # fmt: skip
        self.baseline_inputs = (
            gpu(self.ids, torch.int64), gpu(self.token_device, torch.int64), gpu(self.token_confidence, torch.int64),
            gpu(self.moves_device.ravel(), torch.int64), gpu(self.moves_confidence.ravel(), torch.int64),
            gpu(self.before, torch.int64), gpu(self.two_before, torch.int64), devices,
        )  # fmt: skip

    def kernels(self) -> None:
        assignment.assign(self.buffers, *self.kernel_inputs)

    def baseline(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return argsort_baseline.assign(*self.baseline_inputs)

    def expected(self, valid: int) -> numpy.ndarray:
        predictions = reference.predict(
            self.ids, valid, self.token_device, self.token_confidence, self.moves_device, self.moves_confidence,
            self.before, self.two_before,
        )  # fmt: skip
        return reference.balance(*predictions, self.devices, valid)

    def check(self) -> None:
        """Raises unless kernels and baseline give the reference's answer; the kernels also with a quarter of padding."""
        where = f"{self.tokens} tokens, {self.devices} devices"
        padded = self.tokens - self.tokens // 4
        assignment.assign(self.buffers, self.kernel_inputs[0], self.kernel_inputs[1] * 0 + padded, *self.kernel_inputs[2:])
        numpy.testing.assert_array_equal(self.buffers.position.cpu().numpy(), self.expected(padded), f"padded, {where}")
        expected = self.expected(self.tokens)
        for _ in range(3):
            self.kernels()
            numpy.testing.assert_array_equal(self.buffers.position.cpu().numpy(), expected, f"position, {where}")
            order = self.buffers.order.cpu().numpy()
            numpy.testing.assert_array_equal(order[expected], numpy.arange(self.tokens), f"order, {where}")
            home = self.buffers.home.cpu().numpy()
            numpy.testing.assert_array_equal(home, expected // (self.tokens // self.devices), f"home, {where}")
        position, order, home = self.baseline()
        numpy.testing.assert_array_equal(position.cpu().numpy(), expected, f"baseline position, {where}")
        numpy.testing.assert_array_equal(order.cpu().numpy()[expected], numpy.arange(self.tokens), "baseline order")


def time_index(batch: Batch) -> dict:
    return {
        "tokens": batch.tokens,
        "devices": batch.devices,
        "kernelsGraph": graph_microseconds(batch.kernels),
        "pytorchGraph": graph_microseconds(batch.baseline),
        "kernelsEager": eager_microseconds(batch.kernels),
        "pytorchEager": eager_microseconds(batch.baseline),
    }


def time_whole(batch: Batch, hidden: int) -> dict:
    """Index, pack and unpack: what a layer that shuffles anew does around a library's reduce-scatter and all-gather."""
    source = torch.randn(batch.tokens, hidden, device="cuda", dtype=torch.bfloat16)
    packed, unpacked = torch.empty_like(source), torch.empty_like(source)

    def kernels() -> None:
        batch.kernels()
        rows.gather_rows(source, batch.buffers.order, packed)
        rows.gather_rows(packed, batch.buffers.position, unpacked)

    def pytorch() -> torch.Tensor:
        position, order, _ = batch.baseline()
        return source[order][position]

    kernels()
    if not torch.equal(unpacked, source) or not torch.equal(pytorch(), source):
        raise AssertionError(f"rows did not come back in order: {batch.tokens} tokens, hidden {hidden}")
    return {
        "tokens": batch.tokens,
        "devices": batch.devices,
        "hidden": hidden,
        "kernelsGraph": graph_microseconds(kernels),
        "pytorchGraph": graph_microseconds(pytorch),
        "kernelsEager": eager_microseconds(kernels),
        "pytorchEager": eager_microseconds(pytorch),
    }


def time_rows(tokens: int, hidden: int) -> dict:
    """One pass of row movement against PyTorch's and against a plain copy of as many bytes."""
    source = torch.randn(tokens, hidden, device="cuda", dtype=torch.bfloat16)
    target = torch.empty_like(source)
    order = torch.randperm(tokens, device="cuda")
    order32 = order.to(torch.int32)
    return {
        "tokens": tokens,
        "hidden": hidden,
        "kernelGraph": graph_microseconds(lambda: rows.gather_rows(source, order32, target)),
        "pytorchGraph": graph_microseconds(lambda: torch.index_select(source, 0, order)),
        "copyGraph": graph_microseconds(lambda: target.copy_(source)),
    }


def time_collectives(batch: Batch, hidden: int) -> dict:
    """Reduce-scatter and all-gather with the rows in shuffled and in original order: the difference is the shuffle."""
    tokens, devices = batch.tokens, batch.devices
    peers = [torch.randn(tokens, hidden, device="cuda", dtype=torch.bfloat16) for _ in range(devices)]
    addresses = torch.tensor([peer.data_ptr() for peer in peers], dtype=torch.int64, device="cuda")
    slice_rows = torch.empty(tokens // devices, hidden, device="cuda", dtype=torch.bfloat16)
    plain = torch.arange(tokens, dtype=torch.int32, device="cuda")
    batch.kernels()
    order = batch.buffers.order
    rank = devices // 2

    rows.shuffled_reduce_scatter(addresses, order, slice_rows, rank, devices)
    wanted = order[rank * (tokens // devices) : (rank + 1) * (tokens // devices)].long()
    total = torch.zeros(len(wanted), hidden, device="cuda")
    for peer in peers:
        total += peer[wanted].float()
    if not torch.equal(slice_rows, total.to(torch.bfloat16)):
        raise AssertionError(f"shuffled reduce-scatter: {tokens} tokens, {devices} devices, hidden {hidden}")

    def both(with_order: torch.Tensor) -> tuple[float, float]:
        return (
            graph_microseconds(lambda: rows.shuffled_reduce_scatter(addresses, with_order, slice_rows, rank, devices)),
            graph_microseconds(lambda: rows.shuffled_all_gather(addresses, with_order, slice_rows, rank, devices)),
        )

    shuffled, ordered, again = both(order), both(plain), both(order)
    rows.shuffled_all_gather(addresses, order, slice_rows, rank, devices)
    if not all(torch.equal(peer[wanted], slice_rows) for peer in peers):
        raise AssertionError(f"shuffled all-gather: {tokens} tokens, {devices} devices, hidden {hidden}")
    return {
        "tokens": tokens,
        "devices": devices,
        "hidden": hidden,
        "reduceScatterShuffled": min(shuffled[0], again[0]),
        "reduceScatterOrdered": ordered[0],
        "allGatherShuffled": min(shuffled[1], again[1]),
        "allGatherOrdered": ordered[1],
    }


def time_layers(tokens_list: tuple[int, ...]) -> list[dict]:
    results = []
    generator = torch.Generator("cuda").manual_seed(torch.seed() % 2**31)
    for shape in SHAPES:
        layer = MoeLayer(shape, generator)
        for tokens in tokens_list:
            hidden = torch.randn(tokens, shape.hidden, generator=generator, device="cuda", dtype=torch.bfloat16)
            pairs = torch.randn(tokens * shape.top_k, shape.hidden, device="cuda", dtype=torch.bfloat16)
            # Pairs spread over experts as a random router spreads them.
            expert = torch.randint(0, shape.experts, (tokens * shape.top_k,), device="cuda")
            ends = torch.bincount(expert, minlength=shape.experts).cumsum(0).to(torch.int32)
            few = 3 if tokens > 2048 else 10
            results.append(
                {
                    "layer": shape.name,
                    "tokens": tokens,
                    "layerGraph": graph_microseconds(lambda: layer(hidden), few, 7),
                    "expertsOnlyGraph": graph_microseconds(lambda: layer.experts_only(pairs, ends), few, 7),
                }
            )
        del layer
        torch.cuda.empty_cache()
    return results


def machine() -> dict:
    driver = subprocess.run(
        ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"], capture_output=True, text=True, check=False
    )
    return {
        "gpu": torch.cuda.get_device_name(),
        "driver": driver.stdout.split("\n")[0].strip(),
        "cuda": torch.version.cuda,
        "torch": torch.__version__,
        "triton": triton.__version__,
        "python": sys.version.split()[0],
    }


def less(kernels: float, pytorch: float) -> str:
    return f"{(1 - kernels / pytorch) * 100:5.1f} %"


def print_tables(report: dict) -> None:
    print("\nIndex computation, us per call")
    print(" tokens devices |  graph: kernels  pytorch   less |  eager: kernels  pytorch   less")
    for row in report["index"]:
        print(
            f"{row['tokens']:7d} {row['devices']:7d} | {row['kernelsGraph']:15.2f} {row['pytorchGraph']:8.1f} "
            f"{less(row['kernelsGraph'], row['pytorchGraph'])} | {row['kernelsEager']:15.1f} {row['pytorchEager']:8.1f} "
            f"{less(row['kernelsEager'], row['pytorchEager'])}"
        )
    print("\nIndex, pack and unpack, us per call; the least and the most over the devices")
    print(" tokens  hidden |  graph: kernels         pytorch    least less |  eager least less")
    for tokens in sorted({row["tokens"] for row in report["whole"]}):
        for hidden in HIDDEN:
            cases = [row for row in report["whole"] if (row["tokens"], row["hidden"]) == (tokens, hidden)]
            if not cases:
                continue
            ours, theirs = [row["kernelsGraph"] for row in cases], [row["pytorchGraph"] for row in cases]
            graph = min(1 - row["kernelsGraph"] / row["pytorchGraph"] for row in cases)
            eager = min(1 - row["kernelsEager"] / row["pytorchEager"] for row in cases)
            print(
                f"{tokens:7d} {hidden:7d} | {min(ours):7.1f} - {max(ours):6.1f} {min(theirs):7.1f} - {max(theirs):6.1f} "
                f"{graph * 100:8.1f} % | {eager * 100:10.1f} %"
            )
    print("\nOne pass over the rows, us in a graph")
    print(" tokens  hidden |  kernel  pytorch  plain copy")
    for row in report["rows"]:
        print(
            f"{row['tokens']:7d} {row['hidden']:7d} | {row['kernelGraph']:7.1f} {row['pytorchGraph']:8.1f} {row['copyGraph']:9.1f}"
        )
    print("\nCollectives over shared memory, stand-in peers, us in a graph")
    print(" tokens devices hidden | reduce-scatter: shuffled  ordered | all-gather: shuffled  ordered")
    for row in report["collectives"]:
        print(
            f"{row['tokens']:7d} {row['devices']:7d} {row['hidden']:6d} | {row['reduceScatterShuffled']:15.1f} "
            f"{row['reduceScatterOrdered']:12.1f} | {row['allGatherShuffled']:15.1f} {row['allGatherOrdered']:12.1f}"
        )
    print("\nShare of the MoE layer's time (hidden 2048, in a graph; the most over the devices)")
    print("Index: computed for this layer alone. Once a pass: a 48th of it. In collectives: what the shuffle adds to them.")
    print("           layer  tokens |  layer us  experts us |   index  in collectives  index+pack+unpack  pack+unpack, index once a pass")
    for layer in report["layers"]:
        tokens = layer["tokens"]
        whole = layer["layerGraph"]
        index = max(row["kernelsGraph"] for row in report["index"] if row["tokens"] == tokens)
        copies = max(
            (row["kernelsGraph"] for row in report["whole"] if row["tokens"] == tokens and row["hidden"] == 2048),
            default=float("nan"),
        )
        inside = max(
            (
                row["reduceScatterShuffled"] - row["reduceScatterOrdered"] + row["allGatherShuffled"] - row["allGatherOrdered"]
                for row in report["collectives"]
                if row["tokens"] == tokens and row["hidden"] == 2048
            ),
            default=float("nan"),
        )
        pass_over_rows = next(row["kernelGraph"] for row in report["rows"] if (row["tokens"], row["hidden"]) == (tokens, 2048))
        once = index / 48 + 2 * pass_over_rows
        print(
            f"{layer['layer']:>16s} {tokens:7d} | {whole:9.1f} {layer['expertsOnlyGraph']:11.1f} | {index / whole * 100:5.2f} % "
            f"{inside / whole * 100:13.2f} % {copies / whole * 100:16.2f} % {once / whole * 100:28.2f} %"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    task = parser.add_mutually_exclusive_group(required=True)
    task.add_argument("--out", help="JSON file to write")
    task.add_argument("--show", help="JSON file of an earlier run to print; needs no GPU")
    parser.add_argument("--quick", action="store_true", help="three token counts and two device counts")
    arguments = parser.parse_args()
    if arguments.show:
        report = json.loads(Path(arguments.show).read_text())
        print(json.dumps(report["machine"]), "seed", report["seed"])
        print_tables(report)
        return
    tokens_list = (64, 1024, 8192) if arguments.quick else TOKENS
    devices_list = (4, 64) if arguments.quick else DEVICES
    seed = numpy.random.SeedSequence().entropy
    random = numpy.random.default_rng(seed)
    report: dict = {"machine": machine(), "seed": str(seed), "unit": "microseconds"}
    print(json.dumps(report["machine"]), "seed", seed)
    for name in ("index", "whole", "rows", "collectives"):
        report[name] = []
    begin = time.perf_counter()
    report["layers"] = time_layers(tokens_list)
    for tokens in tokens_list:
        for hidden in HIDDEN:
            report["rows"].append(time_rows(tokens, hidden))
        for devices in devices_list:
            batch = Batch(random, tokens, devices)
            batch.check()
            report["index"].append(time_index(batch))
            for hidden in HIDDEN:
                report["whole"].append(time_whole(batch, hidden))
                if devices in (4, 8):
                    report["collectives"].append(time_collectives(batch, hidden))
        print(f"{tokens} tokens: equal to the reference; {time.perf_counter() - begin:.0f} s", file=sys.stderr)
        Path(arguments.out).write_text(json.dumps(report, indent=1))
    print_tables(report)


if __name__ == "__main__":
    main()
