"""What must not start: the model is left as it was, and says why."""

import dataclasses
import os
import shutil

import pytest
import torch

import demo
import smoe_deepspeed
from plans import demo_plan
from ranks import run_ranks
from smoe_deepspeed import SmoeError, disable, enable, read_plan, status


def code_of(action) -> str:
    try:
        action()
    except SmoeError as error:
        return error.code
    return "none"


def cut_hooks(engine):
    """A DeepSpeed whose layers do not call `_forward` any more."""
    from deepspeed.module_inject.auto_ep_layer import AutoEPMoELayer

    stock = AutoEPMoELayer.forward
    AutoEPMoELayer.forward = lambda layer, hidden: AutoEPMoELayer._forward(layer, hidden)
    try:
        enable(engine, demo.PLAN)
    finally:
        AutoEPMoELayer.forward = stock


def wrong_experts(engine):
    """A layer that computes something else once it is hooked."""
    layer = engine.module.model.layers[3].mlp
    probes = []

    def probe():
        probes.append(None)
        if len(probes) == 2:
            layer.experts.w2.data[0] *= 1.01
        engine.module(input_ids=torch.arange(2, 19)[None], use_cache=False)

    kept = layer.experts.w2.data.clone()
    try:
        enable(engine, demo.PLAN, probe=probe)
    finally:
        layer.experts.w2.data.copy_(kept)


def four_ranks(rank: int, changed_model: str) -> dict:
    plan = read_plan(demo.PLAN)
    engine = demo.make_engine(demo.configuration(4, 4))
    prompt = demo.some_prompts(16)[5][:23]
    demo.logits(engine, prompt[:2])
    before = demo.logits(engine, prompt)
    moved = plan.expert_owner.copy()
    moved[2, int(plan.experts_of(2, 1)[0])] = 0
    codes = {
        "hooks not applied": code_of(lambda: cut_hooks(engine)),
        "outputs changed": code_of(lambda: wrong_experts(engine)),
        "another model": code_of(lambda: enable(engine, demo_plan(model_fingerprint="0123456789abcdef"))),
        "another checkpoint": code_of(lambda: enable(engine, plan, checkpoint=changed_model)),
        "no checkpoint": code_of(lambda: enable(engine, plan, checkpoint="/nowhere")),
        "wrong world size": code_of(lambda: enable(engine, demo_plan(devices=2, expert_owner=plan.expert_owner % 2))),
        "expert count": code_of(lambda: enable(engine, demo_plan(experts=32, expert_owner=plan.expert_owner[:, :32]))),
        "top-k": code_of(lambda: enable(engine, demo_plan(top_k=4))),
        "layers": code_of(lambda: enable(engine, demo_plan(layers=7))),
        "vocabulary": code_of(lambda: enable(engine, demo_plan(vocabulary_size=100))),
        "unequal devices": code_of(lambda: enable(engine, demo_plan(expert_owner=moved))),
        "predictor": code_of(lambda: enable(engine, plan, predictor="oracle")),
        "dispatch": code_of(lambda: enable(engine, plan, dispatch="none")),
        "missing file": code_of(lambda: enable(engine, "/nowhere/plan.json")),
        "router changed": code_of(lambda: with_changed_router(engine, plan)),
        "not a model": code_of(lambda: enable(object(), plan)),
    }
    results = {"codes": codes, "untouched": torch.equal(demo.logits(engine, prompt), before)}

    enable(engine, plan)
    codes["twice"] = code_of(lambda: enable(engine, plan))
    # Gradients are DeepSpeed's business: its own path runs, on the placed experts.
    with torch.enable_grad():
        engine.module.requires_grad_(True)
        trained = engine.module(input_ids=torch.tensor([prompt]), use_cache=False).logits[0].detach()
        engine.module.requires_grad_(False)
    results["training path"] = ((trained - before).abs().max().item(), dataclasses.asdict(status(engine)))
    # Without token ids nothing can be predicted; the outputs are the same.
    with torch.no_grad():
        embedded = engine.module.model.embed_tokens(torch.tensor([prompt]))
        unpredicted = engine.module(inputs_embeds=embedded, use_cache=False).logits[0]
    results["no ids"] = ((unpredicted - before).abs().max().item(), dataclasses.asdict(status(engine)))
    disable(engine)
    disable(engine)

    os.environ["SMOE_DEEPSPEED_PLAN"] = str(demo.PLAN)
    os.environ["SMOE_DEEPSPEED_PREDICTOR"] = "transition"
    smoe_deepspeed.speculative.hook_initialize()
    by_environment = demo.make_engine(demo.configuration(4, 4))
    results["environment"] = status(by_environment).predictor
    del os.environ["SMOE_DEEPSPEED_PLAN"]
    results["environment unset"] = status(demo.make_engine(demo.configuration(4, 4)))
    return results


def with_changed_router(engine, plan):
    weight = engine.module.model.layers[6].mlp.router.gate.weight.data
    weight[0, 0] += 1
    try:
        enable(engine, plan)
    finally:
        weight[0, 0] -= 1


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    changed = shutil.copytree(demo.MODEL, tmp_path_factory.mktemp("model") / "changed", ignore=shutil.ignore_patterns("heldout", "reference"))
    config = (changed / "config.json").read_text()
    (changed / "config.json").write_text(config.replace('"norm_topk_prob": true', '"norm_topk_prob": false'))
    demo.stored_model()
    return run_ranks(four_ranks, 4, str(changed))


def test_refusals_say_why_on_every_rank(results):
    for of_rank in results:
        assert of_rank["codes"] == {
            "hooks not applied": "HOOKS_NOT_APPLIED",
            "outputs changed": "HOOKS_NOT_APPLIED",
            "another model": "PLAN_FOR_ANOTHER_MODEL",
            "another checkpoint": "PLAN_FOR_ANOTHER_MODEL",
            "no checkpoint": "CHECKPOINT_UNKNOWN",
            "wrong world size": "PLAN_MISMATCH",
            "expert count": "PLAN_MISMATCH",
            "top-k": "PLAN_MISMATCH",
            "layers": "PLAN_MISMATCH",
            "vocabulary": "PLAN_MISMATCH",
            "unequal devices": "PLAN_UNEQUAL",
            "predictor": "PREDICTOR_UNKNOWN",
            "dispatch": "DISPATCH_UNKNOWN",
            "missing file": "PLAN_UNREADABLE",
            "router changed": "PLAN_FOR_ANOTHER_MODEL",
            "not a model": "NOT_A_MODEL",
            "twice": "ALREADY_ENABLED",
        }


def test_a_refusal_leaves_the_model_as_it_was(results):
    assert all(of_rank["untouched"] for of_rank in results)


def test_with_gradients_deepspeeds_own_path_runs(results):
    difference, after = results[0]["training path"]
    assert after["stock_forwards"] == 8 and difference <= 1e-4


def test_without_token_ids_outputs_are_the_same(results):
    difference, after = results[0]["no ids"]
    assert after["unpredicted_forwards"] == 8 and difference <= 1e-4


def test_the_environment_turns_it_on(results):
    assert results[0]["environment"] == "transition"
    assert results[0]["environment unset"] is None


def two_ranks(_rank: int) -> dict[str, str]:
    plan = read_plan(demo.PLAN)
    engine = demo.make_engine(demo.configuration(1, 0))
    codes = {"no AutoEP": code_of(lambda: enable(engine, plan))}
    engine = demo.make_engine(demo.configuration(2, 2))
    codes["two ranks"] = code_of(lambda: enable(engine, plan))
    halves = demo_plan(devices=2, expert_owner=plan.expert_owner // 2)
    narrowed = dataclasses.replace(
        plan.prediction,
        token_device=plan.prediction.token_device // 2,
        token_needs=plan.prediction.token_needs[..., ::2].copy(),
        transition_needs=plan.prediction.transition_needs[:, :4, ::2].copy(),
    )
    codes["a plan for two"] = code_of(lambda: enable(engine, dataclasses.replace(halves, prediction=narrowed)))
    return codes


def test_other_engines():
    demo.stored_model()
    for codes in run_ranks(two_ranks, 2):
        assert codes == {"no AutoEP": "NO_AUTOEP_LAYERS", "two ranks": "PLAN_MISMATCH", "a plan for two": "none"}
