"""Completes a prompt with the shipped model under DeepSpeed: attention tensor-parallel, experts by AutoEP, over all ranks. Knows nothing of plans.

    torchrun --nproc-per-node 4 integrations/deepspeed/examples/generate.py
    SMOE_DEEPSPEED_PLAN=models/demo/plan-4.json torchrun --nproc-per-node 4 -m smoe_deepspeed integrations/deepspeed/examples/generate.py
"""

import argparse
import hashlib

import deepspeed
import deepspeed.ops
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

parser = argparse.ArgumentParser()
parser.add_argument("--model", default="models/demo")
parser.add_argument("--prompt", default="The file system is mounted read-only, so")
parser.add_argument("--new-tokens", type=int, default=16)
options = parser.parse_args()

on_gpu = torch.cuda.is_available()
if not on_gpu:
    torch.set_num_threads(1)
    # Else DeepSpeed compiles a shared-memory all-reduce at first use; gloo does it too.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
deepspeed.init_distributed(dist_backend="nccl" if on_gpu else "gloo", verbose=False)
ranks = torch.distributed.get_world_size()

model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32).eval().requires_grad_(False)
engine, *_ = deepspeed.initialize(
    model=model,
    config={
        "train_micro_batch_size_per_gpu": 1,
        "expert_parallel": {"enabled": True, "autoep_size": ranks, "preset_model": "qwen3_moe", "use_grouped_mm": False},
        "tensor_parallel": {
            "autotp_size": ranks,
            # transformers' own plan for this model has styles that DeepSpeed 0.19.8 refuses.
            "partition_config": {
                "use_default_specs": False,
                "layer_specs": [
                    {"patterns": [r".*\.self_attn\.o_proj\.weight$"], "partition_type": "row"},
                    {"patterns": [r".*\.self_attn\.[qkv]_proj\.weight$"], "partition_type": "column"},
                ],
            },
        },
    },
)
engine.eval()

tokenizer = AutoTokenizer.from_pretrained(options.model)
prompt = tokenizer(options.prompt, return_tensors="pt").to(engine.device)
with torch.no_grad():
    tokens = engine.module.generate(
        input_ids=prompt["input_ids"], attention_mask=prompt["attention_mask"], max_new_tokens=options.new_tokens, do_sample=False
    )[0]
if torch.distributed.get_rank() == 0:
    print(tokenizer.decode(tokens))
    print("sha256 of the token ids", hashlib.sha256(str(tokens.tolist()).encode()).hexdigest()[:16])
torch.distributed.destroy_process_group()
