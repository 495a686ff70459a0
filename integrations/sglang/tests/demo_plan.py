"""The plan that ships with the demo model, solved from real text through trained weights."""

import json
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
PLAN_FILE = REPOSITORY / "models" / "demo" / "plan-4.json"


def plan_document() -> dict:
    return json.loads(PLAN_FILE.read_text(encoding="utf-8"))
