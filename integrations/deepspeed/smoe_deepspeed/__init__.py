"""Speculative MoE for models under DeepSpeed AutoEP: experts placed by a plan, tokens kept by predicted device, same outputs.

    import smoe_deepspeed
    engine, *_ = deepspeed.initialize(model=model, config=config)   # expert_parallel enabled
    smoe_deepspeed.enable(engine, "plan.json")

Off unless asked for. See docs/deepspeed.md.
"""

from .counters import ByteCounts, count_bytes
from .errors import SmoeError
from .fingerprint import fingerprint
from .plan import Plan, decode_plan, read_plan
from .speculative import Status, disable, enable, initialize, status

__all__ = [
    "ByteCounts",
    "Plan",
    "SmoeError",
    "Status",
    "count_bytes",
    "decode_plan",
    "disable",
    "enable",
    "fingerprint",
    "initialize",
    "read_plan",
    "status",
]
