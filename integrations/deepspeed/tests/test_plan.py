import base64
import hashlib
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
    assert tables.token_needs.shape == (8, 16384, 4) and tables.transition_needs.shape == (8, 4**tables.transition_lookback, 4)
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


def test_transition_tables_look_back_one_to_three_layers():
    plan = stored()
    for lookback in (1, 3):
        plan["prediction"].update(transitionLookback=lookback, transitionNeeds=pack(np.zeros((8, 4**lookback, 4), "u1")))
        assert decode_plan(json.dumps(plan), "x.json").prediction.transition_lookback == lookback
    for wrong in (0, 4, "2"):
        plan["prediction"]["transitionLookback"] = wrong
        assert code_of(json.dumps(plan)) == "PLAN_INVALID"


def exported(folder, **changes):
    """As `smoe export --to deepspeed` writes it, with the sidecar of the unchanged file."""
    plan = read_plan(PLAN)
    order = [[int(expert) for device in range(4) for expert in plan.experts_of(layer, device)] for layer in range(8)]
    fields = {"format": "speculative-moe-deepspeed", "version": 1, "ep_size": 4, "num_experts": 64, "expert_of_position": order}
    sidecar = {"format": "speculative-moe-export", "plan": {"topK": 8}, "modelFingerprint": plan.model_fingerprint}
    path = folder / "order.json"
    sidecar["fileSha256"] = hashlib.sha256(json.dumps(fields).encode()).hexdigest()
    path.write_text(json.dumps({**fields, **changes}))
    (folder / "order.json.smoe.json").write_text(json.dumps(sidecar))
    return path


def test_exported_orders_hold_the_placement(tmp_path):
    plan, original = read_plan(exported(tmp_path)), read_plan(PLAN)
    assert np.array_equal(plan.expert_owner, original.expert_owner)
    assert plan.model_fingerprint == original.model_fingerprint and plan.prediction is None


@pytest.mark.parametrize(
    "change",
    [{"ep_size": 2}, {"ep_size": 3}, {"num_experts": 63}, {"version": 2}, {"expert_of_position": [[0] * 64] * 8}, {"expert_of_position": []}],
    ids=str,
)
def test_changed_exports_are_refused(tmp_path, change):
    with pytest.raises(SmoeError, match="EXPORT_INVALID"):
        read_plan(exported(tmp_path, **change))


def test_exports_without_their_sidecar_are_refused(tmp_path):
    path = exported(tmp_path)
    (tmp_path / "order.json.smoe.json").unlink()
    with pytest.raises(SmoeError, match="EXPORT_INVALID"):
        read_plan(path)


def test_a_copy_of_an_owned_expert_is_refused():
    plan = stored()
    owned = int(read_plan(PLAN).experts_of(0, 1)[0])
    plan["replicas"][0][1] = [owned]
    assert code_of(json.dumps(plan)) == "PLAN_INVALID"
