"""Plans made from the shipped one, for tests."""

import base64
import dataclasses
import json
import zlib
from typing import Any

import numpy as np

from demo import PLAN
from smoe_deepspeed import Plan, read_plan


def stored() -> dict[str, Any]:
    return json.loads(PLAN.read_text())


def pack(table: np.ndarray) -> str:
    deflater = zlib.compressobj(wbits=-15)
    return base64.b64encode(deflater.compress(table.tobytes()) + deflater.flush()).decode()


def with_wrong_predictions(plan: Plan) -> Plan:
    """Every device gets another device's probabilities, so that homes are wrong wherever the tables were right."""
    tables = plan.prediction
    return dataclasses.replace(
        plan,
        prediction=dataclasses.replace(
            tables, token_needs=255 - tables.token_needs, transition_needs=255 - tables.transition_needs
        ),
    )


def demo_plan(**changes: Any) -> Plan:
    return dataclasses.replace(read_plan(PLAN), **changes)
