"""Recorder dumps with the shipped model's real routing, through `smoe trace import --format sglang-recorder`.

Written by the recorder of SGLang 0.5.17 itself where the package is installed, and as the dictionaries that its
_DetailAccumulator.dump and _StatAccumulator.dump give torch.save; ranks split tokens as its attention-TP reduce-scatter does.
"""

from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace

import numpy
import pytest
import torch
from conftest import ROOT, smoe

LAYERS, EXPERTS, TOP_K, RANKS = 8, 64, 8, 2
ROUTING = numpy.fromfile(ROOT / "models/demo/reference/experts.u8", dtype=numpy.uint8).reshape(-1, LAYERS, TOP_K).astype(numpy.int32)
PERMUTATION = numpy.random.default_rng(3).permutation(EXPERTS)  # physical -> logical
PHYSICAL = numpy.argsort(PERMUTATION)  # logical -> physical
MAP = torch.tensor(numpy.tile(PERMUTATION, (LAYERS + 1, 1)))  # a dense layer first

# (forward mode, requests' (first position, tokens)) of two prompts, one in two chunks, then decoding; rows of ROUTING in order
PASSES = [(1, [(0, 5), (0, 4)]), (1, [(4, 3)]), (2, [(5, 1), (7, 1)]), (2, [(6, 1), (8, 1)]), (2, [(9, 1)])]


def write_dumps(folder, slices):
    records = {rank: [] for rank in range(RANKS)}
    row = 0
    for number, (mode, segments) in enumerate(PASSES):
        tokens = sum(length for _, length in segments)
        routed = PHYSICAL[ROUTING[row : row + tokens]]
        positions = [start + i for start, length in segments for i in range(length)]
        chunk = -(-tokens // RANKS)
        for rank in range(RANKS):
            topk = torch.full((LAYERS + 1, tokens, 8), -1, dtype=torch.int32)
            mine = routed[rank * chunk : (rank + 1) * chunk] if slices else routed
            topk[1:, : len(mine)] = torch.tensor(mine, dtype=torch.int32).transpose(0, 1)
            records[rank].append(
                {
                    "forward_pass_id": 10 + number,
                    "rank": rank,
                    "gatherer_key": "primary",
                    "input_ids": list(range(100 + row, 100 + row + tokens)),
                    "positions": positions,
                    "extend_seq_lens": [length for _, length in segments] if mode == 1 else None,
                    "forward_mode": mode,
                    "topk_ids_of_layer": topk,
                    "misc_objects": [],
                    "global_physical_count": torch.zeros((LAYERS + 1, EXPERTS), dtype=torch.int32),
                }
            )
        row += tokens
    for rank in range(RANKS):
        torch.save(
            {"records": records[rank], "last_physical_to_logical_map": MAP}, folder / f"expert_distribution_recorder_1.5_{rank}.pt"
        )
    return row


def import_dumps(path, out, *more):
    return smoe("trace", "import", path, "--format", "sglang-recorder", "--experts", EXPERTS, "--out", out, "--python", sys.executable, *more)


READ = """
import { readTrace } from %r;
const { experts, position, request, token, phase } = await readTrace(process.argv[1]);
console.log(JSON.stringify(Object.fromEntries(Object.entries({ experts, position, request, token, phase }).map(([k, v]) => [k, [...v]]))));
""" % str(ROOT / "dist/src/trace/parquet.js")


def read_trace(path):
    done = subprocess.run(["node", "--input-type=module", "-e", READ, str(path)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def record_dumps(folder, slices):
    """The same through SGLang's own recorder, pass by pass and layer by layer as the model's layers call it."""
    from sglang_package import expert_distribution, forward_modes

    flags = SimpleNamespace(
        expert_distribution_recorder_mode="per_token",
        enable_expert_distribution_metrics=False,
        enable_two_batch_overlap=False,
        chunked_prefill_size=4,
        moe_a2a_backend="deepep" if slices else "none",
        device="cpu",
    )
    located = SimpleNamespace(num_layers=LAYERS + 1, num_physical_experts=EXPERTS, physical_to_logical_map=MAP)
    for rank in range(RANKS):
        recorder = expert_distribution.ExpertDistributionRecorder.init_new(flags, located, rank)
        recorder.start_record()
        row = 0
        for number, (mode, segments) in enumerate(PASSES):
            tokens = sum(length for _, length in segments)
            chunk = -(-tokens // RANKS)
            routed = torch.tensor(PHYSICAL[ROUTING[row : row + tokens]], dtype=torch.int32)
            batch = SimpleNamespace(
                input_ids=torch.arange(100 + row, 100 + row + tokens),
                positions=torch.tensor([start + i for start, length in segments for i in range(length)]),
                extend_seq_lens_cpu=[length for _, length in segments] if mode == 1 else None,
                forward_mode=forward_modes(mode),
            )
            with recorder.with_forward_pass(10 + number, batch):
                for layer in range(LAYERS):
                    with recorder.with_current_layer(layer + 1):
                        recorder.on_select_experts(routed[rank * chunk : (rank + 1) * chunk, layer] if slices else routed[:, layer])
            row += tokens
        recorder.stop_record()
        recorder.dump_record()
    return row


@pytest.mark.parametrize("slices", [True, False])
@pytest.mark.parametrize("recorder", ["SGLang", "torch.save"])
def test_ranks_are_joined_and_experts_are_logical(tmp_path, monkeypatch, slices, recorder):
    if recorder == "SGLang":
        pytest.importorskip("sglang", reason="needs the pinned SGLang package")
    folder = tmp_path / str(slices)
    folder.mkdir()
    monkeypatch.setenv("SGLANG_EXPERT_DISTRIBUTION_RECORDER_DIR", str(folder))
    tokens = (record_dumps if recorder == "SGLang" else write_dumps)(folder, slices)
    assert len(list(folder.glob("expert_distribution_recorder_*.pt"))) == RANKS
    report = import_dumps(folder, tmp_path / f"{slices}.parquet")
    assert (report["rows"], report["requests"]) == (tokens, 2)
    assert (report["model"]["layers"], report["model"]["topK"]) == (LAYERS, TOP_K)
    trace = read_trace(tmp_path / f"{slices}.parquet")
    # Rows of ROUTING by request: the prompt of one, the prompt in chunks and the longer decoding of the other.
    rows = [0, 1, 2, 3, 4, 12, 14, 5, 6, 7, 8, 9, 10, 11, 13, 15, 16]
    assert trace["token"] == [100 + row for row in rows]
    assert trace["position"] == [*range(7), *range(10)]
    assert trace["request"] == [0] * 7 + [1] * 10
    assert trace["phase"] == [0] * 5 + [1] * 2 + [0] * 7 + [1] * 3
    assert trace["experts"] == numpy.sort(ROUTING[rows], axis=-1).ravel().tolist()


def refused(path, out):
    done = subprocess.run(
        ["node", ROOT / "dist/src/cli/main.js", "trace", "import", path, "--format", "sglang-recorder", "--out", out, "--python", sys.executable, "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1 and not out.exists()
    return json.loads(done.stdout)["error"]


def test_a_missing_rank_counts_and_code_in_a_file_are_refused(tmp_path):
    out = tmp_path / "out.parquet"
    write_dumps(tmp_path, True)
    assert refused(tmp_path / "expert_distribution_recorder_1.5_1.pt", out)["code"] == "TRACE_RANKS_MISSING"
    stat = tmp_path / "stat.pt"
    torch.save({"rank": 0, "logical_count": torch.ones((3, LAYERS, EXPERTS), dtype=torch.int32), "average_utilization_rate_over_window": None}, stat)
    assert refused(stat, out)["code"] == "TRACE_COUNTS_ONLY"
    torch.save({"records": [{"topk_ids_of_layer": print}], "last_physical_to_logical_map": MAP}, stat)
    assert refused(stat, out)["code"] == "TRACE_BAD_RECORD"
