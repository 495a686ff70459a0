"""The checkpoint of `smoe export --format checkpoint`, loaded by transformers: the function is the original's."""

from __future__ import annotations

import json

import pytest
import torch
from conftest import ROOT, smoe
from transformers import AutoModelForCausalLM, AutoTokenizer

ORIGINAL = ROOT / "models/demo"
PROMPTS, PROMPT_TOKENS, NEW_TOKENS = 4, 96, 16


@pytest.fixture(scope="module")
def renumbered(plan, tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint") / "model-placed"
    smoe("export", plan, "--to", "vllm", "--format", "checkpoint", "--out", path)
    return path


@pytest.fixture(scope="module")
def prompts():
    tokenizer = AutoTokenizer.from_pretrained(ORIGINAL)
    lines = (ORIGINAL / "heldout/evaluation.jsonl").read_text().splitlines()
    texts = [json.loads(line)["text"] for line in lines[:: len(lines) // PROMPTS][:PROMPTS]]
    return [tokenizer(text, return_tensors="pt").input_ids[:, :PROMPT_TOKENS] for text in texts]


def load(path):
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()


def routers(model):
    return [layer.mlp.gate.weight for layer in model.model.layers]


def test_same_greedy_tokens_and_logits(renumbered, prompts):
    original, placed = load(ORIGINAL), load(renumbered)
    with torch.no_grad():
        for ids in prompts:
            expected, got = original(ids).logits, placed(ids).logits
            # Relative: experts are summed in another order. Seen: 1.4e-5 at logits up to 20.
            assert (expected - got).abs().max() < 1e-5 * expected.abs().max()
            expected, got = (
                model.generate(ids, max_new_tokens=NEW_TOKENS, min_new_tokens=NEW_TOKENS, do_sample=False) for model in (original, placed)
            )
            assert expected.shape[1] == ids.shape[1] + NEW_TOKENS
            assert torch.equal(expected, got)


def test_router_rows_stand_where_expert_numbers_say(renumbered):
    numbers = json.loads((renumbered / "expert-numbers.json").read_text())
    original, placed = routers(load(ORIGINAL)), routers(load(renumbered))
    assert numbers["modelLayers"] == list(range(len(original)))
    for before, after, order in zip(original, placed, numbers["expertOfPosition"], strict=True):
        assert order != sorted(order), "the plan moves experts in every layer"
        assert torch.equal(after, before[order])
