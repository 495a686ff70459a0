"""Orders of experts written by `smoe export --to deepspeed` (docs/export.md), with the sidecar beside them; mirrors src/export/deepspeed.ts.

They say where experts go and nothing of tokens: rows are saved by placement alone (predictor `index`). The plan itself says both.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from .errors import SmoeError
from .plan import Plan

FORMAT = "speculative-moe-deepspeed"
SIDECAR_FORMAT = "speculative-moe-export"


def plan_of_export(stored: dict[str, Any], text: str, path: Path) -> Plan:
    """stored: the parsed `text` of `path`. EXPORT_INVALID unless it is a permutation per layer and its sidecar fits."""

    def require(holds: bool, problem: str) -> None:
        if not holds:
            raise SmoeError("EXPORT_INVALID", f"{path}: {problem}", "export the plan again")

    require(stored.get("version") == 1, f"version {stored.get('version')}, this program reads 1")
    ranks, experts, rows = stored.get("ep_size"), stored.get("num_experts"), stored.get("expert_of_position")
    require(type(ranks) is int and type(experts) is int and 1 <= ranks <= experts <= 65536, "ep_size or num_experts out of range")
    require(experts % ranks == 0, f"{experts} experts do not divide over {ranks} ranks")
    require(isinstance(rows, list) and 1 <= len(rows) <= 4096, "expert_of_position: not one row per MoE layer")
    owner = np.empty((len(rows), experts), np.uint16)
    for layer, row in enumerate(rows):
        ids = isinstance(row, list) and all(type(expert) is int for expert in row)
        require(ids and sorted(row) == list(range(experts)), f"expert_of_position, layer {layer}: not every expert once")
        owner[layer, row] = np.arange(experts) // (experts // ranks)

    sidecar_path = Path(f"{path}.smoe.json")
    try:
        sidecar = json.loads(sidecar_path.read_text("utf-8"))
        top_k, fingerprint, digest = sidecar["plan"]["topK"], sidecar["modelFingerprint"], sidecar["fileSha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SmoeError("EXPORT_INVALID", f"{sidecar_path}: {error}", "keep the sidecar beside the file") from error
    require(sidecar.get("format") == SIDECAR_FORMAT and type(top_k) is int and isinstance(fingerprint, str), "its sidecar is of another kind")
    require(digest == hashlib.sha256(text.encode()).hexdigest(), "changed since it was exported: its sidecar has another SHA-256")
    return Plan(
        model_fingerprint=fingerprint,
        devices=ranks,
        layers=len(rows),
        experts=experts,
        top_k=top_k,
        vocabulary_size=0,
        solver="export",
        expert_owner=owner,
        replicas=(((),) * ranks,) * len(rows),
        prediction=None,
        promise=None,
        where=str(path),
    )
