from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path

import numpy
import pytest
from demo_plan import PLAN_FILE, plan_document
from smoe_sglang.errors import SetupError
from smoe_sglang.plan import read_plan


def test_reads_the_shipped_plan() -> None:
    plan = read_plan(str(PLAN_FILE))
    assert (plan.devices, plan.layers, plan.experts, plan.vocabulary) == (4, 8, 64, 16384)
    assert plan.expert_owner.shape == (8, 64)
    assert set(plan.expert_owner.flatten()) == {0, 1, 2, 3}
    # The same table decoded without the reader.
    packed = base64.b64decode(plan_document()["prediction"]["tokenNeeds"])
    assert plan.token_needs.tobytes() == zlib.decompress(packed, -15)


def test_predicts_the_rank_that_is_needed_most_over_all_layers() -> None:
    plan = read_plan(str(PLAN_FILE))
    needs = plan.token_needs.astype(int).sum(axis=0)
    rank, confidence = plan.token_predictions(4)
    assert (needs[numpy.arange(plan.vocabulary), rank] == needs.max(axis=1)).all()
    assert confidence.min() >= 0 and confidence.max() == 255
    # Surest where the best rank is furthest above the average of all.
    assert needs[confidence.argmax()].max() * 4 - needs[confidence.argmax()].sum() == (needs.max(axis=1) * 4 - needs.sum(axis=1)).max()
    halves = plan.needs_by_rank(2)
    assert (halves[:, 0] == needs[:, 0] + needs[:, 1]).all() and (halves[:, 1] == needs[:, 2] + needs[:, 3]).all()


def test_a_rank_count_that_does_not_divide_the_devices_is_refused() -> None:
    with pytest.raises(SetupError, match="4 devices cannot serve 3 ranks"):
        read_plan(str(PLAN_FILE)).needs_by_rank(3)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda plan: plan.update(format="other"), "not a plan"),
        (lambda plan: plan.update(version=2), "version 1"),
        (lambda plan: plan.update(layers=0), "layers is 0"),
        (lambda plan: plan.update(experts=True), "experts is True"),
        (lambda plan: plan.update(devices=1 << 30), "devices is"),
        (lambda plan: plan.update(devices=3), "expertOwner names device 3 of 3"),
        (lambda plan: plan.update(vocabularySize=16383), "tokenNeeds does not hold"),
        (lambda plan: plan.update(expertOwner="!"), "not a packed table"),
        (lambda plan: plan.update(expertOwner=None), "not a packed table"),
        (lambda plan: plan.pop("prediction"), "no prediction tables"),
        (lambda plan: plan.update(replicas=[[[64]] * 4] * 8), "replicas"),
    ],
)
def test_a_broken_plan_is_refused(change, message: str, tmp_path: Path) -> None:
    document = plan_document()
    change(document)
    (tmp_path / "plan.json").write_text(json.dumps(document))
    with pytest.raises(SetupError, match=message):
        read_plan(str(tmp_path / "plan.json"))


def test_a_missing_or_foreign_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="No such file"):
        read_plan(str(tmp_path / "none.json"))
    (tmp_path / "text").write_text("plan")
    with pytest.raises(SetupError, match="not JSON"):
        read_plan(str(tmp_path / "text"))
