"""Runs Python with the real SGLang and this package installed as a plug-in, in a process of its own: hooks patch for good."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]


def install_metadata(folder: Path) -> None:
    """What `pip install` leaves for entry-point discovery, from pyproject.toml itself."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    metadata = folder / f"smoe_sglang-{project['version']}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    groups = project["entry-points"].items()
    lines = [f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in points.items()) for group, points in groups]
    (metadata / "entry_points.txt").write_text("".join(lines))


def run_python(script: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    install_metadata(folder)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SMOE_")}
    paths = [str(folder), str(PROJECT), str(PROJECT / "tests"), inherited.get("PYTHONPATH", "")]
    return subprocess.run(
        [sys.executable, "-c", script],
        env={**inherited, **environment, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        capture_output=True,
        text=True,
        timeout=900,
    )
