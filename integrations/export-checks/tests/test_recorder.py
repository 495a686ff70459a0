"""Recorder dumps with the shipped model's real routing, through `smoe trace import --format sglang-recorder`.

The dictionaries are what SGLang 0.5.17's _DetailAccumulator.dump and _StatAccumulator.dump give torch.save
(srt/eplb/expert_distribution.py); ranks split tokens as its attention-TP reduce-scatter does.
"""

from __future__ import annotations

import json
import subprocess
import sys

import numpy
import torch
from conftest import ROOT, smoe

LAYERS, EXPERTS, TOP_K, RANKS = 8, 64, 8, 2
ROUTING = numpy.fromfile(ROOT / "models/demo/reference/experts.u8", dtype=numpy.uint8).reshape(-1, LAYERS, TOP_K).astype(numpy.int32)
PERMUTATION = numpy.random.default_rng(3).permutation(EXPERTS)  # physical -> logical
PHYSICAL = numpy.argsort(PERMUTATION)  # logical -> physical
MAP = torch.tensor(numpy.tile(PERMUTATION, (LAYERS + 1, 1)))  # a dense layer first

# (forward mode, requests' (first position, tokens)) of two prompts, one in two chunks, then decoding; rows of ROUTING in order
PASSES = [(1, [(0, 5), (0, 4)]), (1, [(4, 3)]), (2, [(5, 1), (7, 1)]), (2, [(6, 1), (8, 1)]), (2, [(9, 1)])]
ORDER = [0, 1, 1]  # request of each prefill segment


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


def test_slices_of_ranks_are_joined_and_experts_are_logical(tmp_path):
    reports = []
    for slices in (True, False):
        folder = tmp_path / str(slices)
        folder.mkdir()
        tokens = write_dumps(folder, slices)
        report = import_dumps(folder, tmp_path / f"{slices}.parquet")
        assert (report["rows"], report["requests"]) == (tokens, 2)
        assert (report["model"]["layers"], report["model"]["topK"]) == (LAYERS, TOP_K)
        reports.append((tmp_path / f"{slices}.parquet").read_bytes().count(b"PAR1"))
        shown = smoe("trace", "show", tmp_path / f"{slices}.parquet")
        expected = numpy.zeros((LAYERS, EXPERTS), dtype=int)
        for layer in range(LAYERS):
            numpy.add.at(expected[layer], ROUTING[:tokens, layer].ravel(), 1)
        assert shown["tokens"] == tokens
    assert reports[0] == reports[1]


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
