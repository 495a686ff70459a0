"""The demo model's plan with copies added, from the model's real routing of held-out text (models/demo/reference)."""

from __future__ import annotations

import base64
import json
import subprocess
import zlib
from pathlib import Path

import numpy
from demo_plan import REPOSITORY, plan_document

DEMO = REPOSITORY / "models" / "demo"


def routing() -> numpy.ndarray:
    """[tokens, L, K] expert ids."""
    return numpy.fromfile(DEMO / "reference" / "experts.u8", dtype=numpy.uint8).reshape(-1, 8, 8).astype(numpy.int64)


def plan_with_copies(copies: int) -> dict:
    """Every device gets the foreign experts that tokens at home there use most; a token is at home where most of its experts are."""
    plan, routed = plan_document(), routing()
    layers, experts, devices = plan["layers"], plan["experts"], plan["devices"]
    packed = zlib.decompress(base64.b64decode(plan["expertOwner"]), -zlib.MAX_WBITS)
    owner = numpy.frombuffer(packed, dtype="<u2").reshape(layers, experts)
    plan["replicas"] = []
    for layer in range(layers):
        owners = owner[layer][routed[:, layer]]
        home = (owners[:, :, None] == numpy.arange(devices)).sum(axis=1).argmax(axis=1)
        on_device = []
        for device in range(devices):
            uses = numpy.bincount(routed[home == device, layer].ravel(), minlength=experts)
            uses[owner[layer] == device] = -1
            on_device.append(sorted(numpy.argsort(-uses, kind="stable")[:copies].tolist()))
        plan["replicas"].append(on_device)
    # Measured without copies.
    del plan["promise"]
    return plan


def export_for_sglang(plan: Path, out: Path) -> dict:
    """What `smoe export` reports."""
    command = ["node", str(REPOSITORY / "dist/src/cli/main.js"), "export", str(plan), "--to", "sglang", "--model", str(DEMO)]
    done = subprocess.run([*command, "--out", str(out), "--json"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
