from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(Path(__file__).parent))


def smoe(*arguments):
    """Runs the built command (node scripts/ensure.mjs builds it); returns what --json prints."""
    done = subprocess.run(
        ["node", str(ROOT / "dist/src/cli/main.js"), *map(str, arguments), "--json"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="session")
def plan():
    return ROOT / "models/demo/plan-4.json"


@pytest.fixture(scope="session")
def exported(plan, tmp_path_factory):
    """The shipped plan as SGLang's file, and the report of the export."""
    path = tmp_path_factory.mktemp("export") / "experts.json"
    return path, smoe("export", plan, "--to", "sglang", "--out", path)
