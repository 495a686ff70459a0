"""The shipped model under DeepSpeed: loading, engine configurations, prompts, greedy decoding."""

from __future__ import annotations

import copy
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[3]
MODEL = ROOT / "models" / "demo"
PLAN = MODEL / "plan-4.json"


@lru_cache(maxsize=1)
def stored_model() -> nn.Module:
    """The shipped model in float32 on the CPU; do not change it."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32, local_files_only=True)
    return model.eval().requires_grad_(False)


@lru_cache(maxsize=1)
def evaluation_prompts() -> list[list[int]]:
    """Token ids of every piece of the evaluation text, at most 256 each."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    lines = (MODEL / "heldout" / "evaluation.jsonl").read_text("utf-8").splitlines()
    return [encoding.ids[:256] for encoding in tokenizer.encode_batch([json.loads(line)["text"] for line in lines])]


def some_prompts(count: int, length: int = 256) -> list[list[int]]:
    """`count` prompts spread over the evaluation text, as bench/expert-traffic.ts takes them."""
    prompts = evaluation_prompts()
    count = min(count, len(prompts))
    return [prompts[int(index * (len(prompts) / count))][:length] for index in range(count)]


def configuration(tensor_parallel: int, expert_parallel: int, on_gpu: bool = False, **of_experts: Any) -> dict[str, Any]:
    """DeepSpeed's configuration: attention over `tensor_parallel` ranks, AutoEP over `expert_parallel` (0: none)."""
    config: dict[str, Any] = {"train_micro_batch_size_per_gpu": 1}
    if expert_parallel:
        config["expert_parallel"] = {
            "enabled": True,
            "autoep_size": expert_parallel,
            "preset_model": "qwen3_moe",
            "use_grouped_mm": on_gpu,
            **of_experts,
        }
    if tensor_parallel > 1:
        # transformers' own tensor-parallel plan of this model has styles that DeepSpeed 0.19.8 refuses; this says the same for attention.
        config["tensor_parallel"] = {
            "autotp_size": tensor_parallel,
            "partition_config": {
                "use_default_specs": False,
                "layer_specs": [
                    {"patterns": [r".*\.self_attn\.o_proj\.weight$"], "partition_type": "row"},
                    {"patterns": [r".*\.self_attn\.[qkv]_proj\.weight$"], "partition_type": "column"},
                ],
            },
        }
    return config


def make_engine(config: dict[str, Any], dtype: torch.dtype = torch.float32) -> Any:
    """A DeepSpeed engine on a copy of the shipped model, for inference."""
    import deepspeed

    model = copy.deepcopy(stored_model())
    for parameter in model.parameters():
        # Parameters alone: rotary frequencies stay float32, as they do when transformers loads in this type.
        parameter.data = parameter.data.to(dtype)
    engine = deepspeed.initialize(model=model, config=config)[0]
    engine.eval()
    return engine


def device_of(engine: Any) -> torch.device:
    return next(engine.module.parameters()).device


@torch.no_grad()
def logits(engine: Any, prompt: list[int]) -> Tensor:
    """[T, V] on the CPU."""
    ids = torch.tensor([prompt], device=device_of(engine))
    return engine.module(input_ids=ids, use_cache=False).logits[0].float().cpu()


@torch.no_grad()
def greedy(engine: Any, prompt: list[int], count: int) -> list[int]:
    """`count` new tokens, ends ignored."""
    ids = torch.tensor([prompt], device=device_of(engine))
    produced = engine.module.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, min_new_tokens=count, do_sample=False, eos_token_id=None, pad_token_id=1
    )
    return produced[0, len(prompt) :].tolist()
