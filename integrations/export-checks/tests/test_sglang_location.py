"""The exported file through SGLang's own loader and dispatch tables."""

from __future__ import annotations

import json

import pytest
import torch

pytest.importorskip("sglang", reason="needs the pinned SGLang package")

from sglang_package import engine_context, expert_location, expert_location_dispatch  # noqa: E402

LAYERS, EXPERTS, RANKS = 8, 64, 4


def load(monkeypatch, path, rank, **moe):
    arguments = engine_context(monkeypatch, ep_size=RANKS, layers=LAYERS, experts=EXPERTS, init_expert_location=str(path), **moe)
    return expert_location.compute_initial_expert_location_metadata(arguments, None, moe_ep_rank=rank)


def test_every_rank_loads_the_file_and_sends_each_expert_to_its_owner(monkeypatch, exported):
    path, report = exported
    rows = torch.tensor(json.loads(path.read_text())["physical_to_logical_map"])
    assert report["ranks"] == RANKS and report["slotsPerRank"] == EXPERTS // RANKS
    for rank in range(RANKS):
        metadata = load(monkeypatch, path, rank)
        assert (metadata.num_layers, metadata.num_physical_experts) == (LAYERS, EXPERTS)
        assert metadata.num_local_physical_experts == report["slotsPerRank"]
        assert torch.equal(metadata.physical_to_logical_map, rows)
        monkeypatch.setattr(expert_location_dispatch, "get_global_expert_location_metadata", lambda metadata=metadata: metadata)
        for layer in range(LAYERS):
            info = expert_location_dispatch.ExpertLocationDispatchInfo.init_new(layer)
            logical = torch.arange(EXPERTS, dtype=torch.int32).view(8, 8)
            physical = expert_location_dispatch.topk_ids_logical_to_physical(logical, info)
            assert torch.equal(rows[layer][physical.long()], logical.long())


def test_copies_become_redundant_experts_and_are_used_at_home(monkeypatch, exported, tmp_path):
    path, _ = exported
    rows = json.loads(path.read_text())["physical_to_logical_map"]
    size = EXPERTS // RANKS
    # One copy a rank: the first expert of the next rank.
    with_copies = [
        [e for rank in range(RANKS) for e in (*row[rank * size : (rank + 1) * size], row[(rank + 1) % RANKS * size])] for row in rows
    ]
    copied = tmp_path / "copies.json"
    copied.write_text(json.dumps({"physical_to_logical_map": with_copies}))
    for rank in range(RANKS):
        metadata = load(monkeypatch, copied, rank, ep_num_redundant_experts=RANKS)
        table = metadata.logical_to_rank_dispatch_physical_map
        for layer in range(LAYERS):
            at_home = with_copies[layer][rank * (size + 1) : (rank + 1) * (size + 1)]
            assert all(int(table[layer, expert]) // (size + 1) == rank for expert in at_home)
