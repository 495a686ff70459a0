import json
import shutil

import pytest

from demo import MODEL, PLAN, ROOT
from smoe_deepspeed import SmoeError, fingerprint, read_plan
from smoe_deepspeed.fingerprint import _javascript_json

TINY = ROOT / "test" / "fixtures" / "tiny"


def test_the_shipped_model_is_the_one_its_plan_is_for():
    assert fingerprint(MODEL) == read_plan(PLAN).model_fingerprint


@pytest.mark.parametrize(
    "family, expected", [("qwen3_moe", "896debd909c394ed"), ("mixtral", "caaef353772e5d4f"), ("olmoe", "e62ca2ec2d743376")]
)
def test_as_src_model_fingerprint_computes_it(family, expected):
    assert fingerprint(TINY / family) == expected


def test_changes_with_routers_and_configuration(tmp_path):
    copy = shutil.copytree(TINY / "olmoe", tmp_path / "olmoe")
    original = fingerprint(copy)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "eos_token_id": 7}))
    assert fingerprint(copy) == original
    (copy / "config.json").write_text(json.dumps({**config, "num_experts_per_tok": 1}))
    assert fingerprint(copy) != original
    (copy / "config.json").write_text(json.dumps(config))
    weights = copy / "model.safetensors"
    data = bytearray(weights.read_bytes())
    header_end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:header_end])
    router = next(name for name in header if name.endswith("gate.weight"))
    data[header_end + header[router]["data_offsets"][0]] ^= 1
    weights.write_bytes(data)
    assert fingerprint(copy) != original


def test_damaged_checkpoints_are_refused(tmp_path):
    copy = shutil.copytree(TINY / "qwen3_moe", tmp_path / "model")
    weights = copy / "model.safetensors"
    data = weights.read_bytes()
    for damaged in (b"", data[:100], (2**60).to_bytes(8, "little") + data[8:], data[:-1000]):
        weights.write_bytes(damaged)
        with pytest.raises(SmoeError, match="CHECKPOINT_BAD_HEADER"):
            fingerprint(copy)
    weights.unlink()
    (copy / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": "../outside.safetensors"}}))
    with pytest.raises(SmoeError, match="CHECKPOINT_BAD_INDEX"):
        fingerprint(copy)


def test_numbers_as_javascript_prints_them():
    numbers = [10000.0, 1e-6, 1e-5, 0.1, 1e-7, 1.5e-9, 1e21, 123456789.5, 5]
    assert _javascript_json(numbers) == "[10000,0.000001,0.00001,0.1,1e-7,1.5e-9,1e+21,123456789.5,5]"
