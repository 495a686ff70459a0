import base64
import json

import numpy as np
import pytest

from demo import PLAN
from plans import pack, stored
from smoe_deepspeed import SmoeError, decode_plan, read_plan


def code_of(text: str) -> str:
    with pytest.raises(SmoeError) as caught:
        decode_plan(text, "x.json")
    assert "x.json" in str(caught.value)
    return caught.value.code


def test_the_shipped_plan():
    plan = read_plan(PLAN)
    assert (plan.devices, plan.layers, plan.experts, plan.top_k, plan.vocabulary_size) == (4, 8, 64, 8, 16384)
    for layer in range(plan.layers):
        everyone = np.concatenate([plan.experts_of(layer, device) for device in range(plan.devices)])
        assert sorted(everyone) == list(range(plan.experts))
    tables = plan.prediction
    assert tables.token_needs.shape == (8, 16384, 4) and tables.transition_needs.shape == (8, 4, 4, 4)
    # T is the device the token most probably needs, so its probability is that of the best device in the soft table, up to calibration.
    agree = (tables.token_needs.argmax(axis=2) == tables.token_device).mean()
    assert agree > 0.9


def test_not_a_plan(tmp_path):
    with pytest.raises(SmoeError, match="PLAN_UNREADABLE"):
        read_plan(tmp_path / "absent.json")
    assert code_of("{") == "PLAN_INVALID"
    assert code_of("[]") == "PLAN_INVALID"
    assert code_of(json.dumps({"format": "another"})) == "PLAN_INVALID"
    assert code_of(json.dumps({**stored(), "version": 2})) == "PLAN_VERSION"
    assert code_of(json.dumps({"format": "speculative-moe-deepspeed", "version": 1})) == "PLAN_EXPORTED"


@pytest.mark.parametrize(
    "change",
    [
        {"devices": 0},
        {"devices": True},
        {"layers": 7},
        {"experts": 65},
        {"topK": 65},
        {"vocabularySize": 16383},
        {"modelFingerprint": ""},
        {"replicas": []},
        {"replicas": [[[64], [], [], []]] + [[[], [], [], []]] * 7},
        {"replicas": [[[3, 2], [], [], []]] + [[[], [], [], []]] * 7},
        {"expertOwner": "?"},
        {"expertOwner": base64.b64encode(b"\xff\xff").decode()},
        {"expertOwner": pack(np.zeros((8, 64), "<u2"))},
        {"expertOwner": pack(np.full((8, 64), 4, "<u2"))},
        {"expertOwner": pack(np.zeros((8, 65), "<u2"))},
        {"promise": {"layers": []}},
        {"prediction": {}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_inconsistent_plans_are_refused(change):
    assert code_of(json.dumps({**stored(), **change})) == "PLAN_INVALID"


def test_tables_are_never_inflated_beyond_their_size():
    bomb = pack(np.zeros(1 << 28, "u1"))
    plan = stored()
    plan["prediction"]["tokenNeeds"] = bomb
    with pytest.raises(SmoeError, match="tokenNeeds: holds more than"):
        decode_plan(json.dumps(plan), "bomb.json")


def test_a_copy_of_an_owned_expert_is_refused():
    plan = stored()
    owned = int(read_plan(PLAN).experts_of(0, 1)[0])
    plan["replicas"][0][1] = [owned]
    assert code_of(json.dumps(plan)) == "PLAN_INVALID"
