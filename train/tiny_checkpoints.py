"""Makes the tiny random checkpoints and golden outputs of test/fixtures/tiny.

One checkpoint per supported family, in the ordinary Hugging Face layout, with a tokenizer of the kind that family
uses, and what transformers (float32, CPU, eager attention) computes from it:

  golden.json          prompts, greedy continuations, each layer's routing, with how far it is from a tie
  golden-logits.f32    float32 little-endian, [sum of prompt lengths, vocabulary], prompts in order
  golden-tokenizer.json  texts, their ids, and the text those ids decode to

Random weights say nothing about routing statistics: these fixtures test arithmetic and file formats only.
Needs torch and transformers; run from the repository root: python train/tiny_checkpoints.py
"""

import argparse
import json
import pathlib
import shutil

import numpy
import torch
import transformers

from tiny_tokenizers import TOKENIZERS, write_tokenizer

VOCABULARY = 320
PROMPT_LENGTHS = (1, 13, 30)
NEW_TOKENS = 12
SEEDS = 24
SHARD_BYTES = "120KB"

COMMON = dict(
    vocab_size=VOCABULARY,
    num_attention_heads=4,
    max_position_embeddings=256,
    bos_token_id=1,
    eos_token_id=2,
    pad_token_id=0,
)

# Between them: tied and untied output, bfloat16 and float32, one file and shards, heads wider than hidden / heads,
# grouped and full key-value heads, a sliding window shorter than the prompts, clipping that clips.
CHECKPOINTS = {
    "qwen3_moe": dict(
        config=transformers.Qwen3MoeConfig(
            **COMMON, hidden_size=32, num_hidden_layers=3, num_key_value_heads=2, head_dim=16, num_experts=16,
            num_experts_per_tok=4, moe_intermediate_size=16, intermediate_size=64, norm_topk_prob=True,
            tie_word_embeddings=True, rope_parameters={"rope_type": "default", "rope_theta": 1000000.0},
        ),
        dtype=torch.bfloat16,
        shard_bytes="1GB",
    ),
    "mixtral": dict(
        config=transformers.MixtralConfig(
            **COMMON, hidden_size=32, num_hidden_layers=2, num_key_value_heads=2, head_dim=16, num_local_experts=8,
            num_experts_per_tok=2, intermediate_size=16, sliding_window=8,
            rope_parameters={"rope_type": "default", "rope_theta": 1000000.0},
        ),
        dtype=torch.float32,
        shard_bytes=SHARD_BYTES,
    ),
    "olmoe": dict(
        config=transformers.OlmoeConfig(
            **COMMON, hidden_size=64, num_hidden_layers=2, num_key_value_heads=4, num_experts=8,
            num_experts_per_tok=2, intermediate_size=16, norm_topk_prob=False, clip_qkv=1.5,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        ),
        dtype=torch.bfloat16,
        shard_bytes="1GB",
    ),
}


def fill_with_noise(model, seed):
    """Weights large enough that routing, attention and logits differ from token to token; norms away from one."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(model.named_parameters()):
        values = torch.randn(parameter.shape, generator=generator)
        if "norm" in name:
            values = 0.5 + torch.rand(parameter.shape, generator=generator)
        elif "embed_tokens" in name:
            values = values * 0.5
        elif "mlp.gate" in name:
            values = values * 0.4
        else:
            values = values * parameter.shape[-1] ** -0.5
        parameter.data.copy_(values)


def save(model, directory, dtype, shard_bytes):
    """Hub layout: transformers splits the experts it keeps fused in memory into one tensor per expert and projection."""
    shutil.rmtree(directory, ignore_errors=True)
    model.to(dtype).save_pretrained(directory, max_shard_size=shard_bytes)
    for path in directory.glob("*.safetensors"):
        path.chmod(0o644)
    for path in directory.glob("*.json"):
        path.write_text(path.read_text(encoding="utf-8").rstrip("\n") + "\n", encoding="utf-8")


def load_float32(directory):
    model = transformers.AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.float32, attn_implementation="eager", experts_implementation="eager"
    )
    return model.eval()


def routing_of(router_logits, top_k):
    """Per layer: ascending ids of the chosen experts per position, and probability of the last chosen minus the next."""
    layers = []
    for logits in router_logits:  # [positions, experts]
        ordered = torch.softmax(logits.float(), dim=-1).sort(dim=-1, descending=True, stable=True)
        chosen = ordered.indices[:, :top_k].sort(dim=-1).values
        gaps = ordered.values[:, top_k - 1] - ordered.values[:, top_k]
        layers.append({"experts": chosen.tolist(), "gaps": [round(gap, 7) for gap in gaps.tolist()]})
    return layers


@torch.no_grad()
def run_prompt(model, prompt):
    """Logits of every prompt position, and NEW_TOKENS greedy tokens, each from a full pass without a cache."""
    output = model(torch.tensor([prompt]), use_cache=False, output_router_logits=True)
    logits = output.logits[0]
    tokens, margins = list(prompt), []
    for _ in range(NEW_TOKENS):
        best = model(torch.tensor([tokens]), use_cache=False).logits[0, -1].topk(2)
        tokens.append(int(best.indices[0]))
        margins.append(round(float(best.values[0] - best.values[1]), 6))
    routing = routing_of(output.router_logits, model.config.num_experts_per_tok)
    golden = {"tokens": prompt, "greedy": tokens[len(prompt):], "greedyMargins": margins, "routing": routing}
    return golden, logits.numpy().astype("<f4")


def make_golden(model, seed):
    generator = torch.Generator().manual_seed(1000 + seed)
    prompts = [torch.randint(3, VOCABULARY, (length,), generator=generator).tolist() for length in PROMPT_LENGTHS]
    results = [run_prompt(model, prompt) for prompt in prompts]
    return [golden for golden, _ in results], numpy.concatenate([logits for _, logits in results])


def distance_from_tie(prompts):
    """Smallest router gap or greedy margin: what rounding in another implementation would have to overcome."""
    gaps = [gap for prompt in prompts for layer in prompt["routing"] for gap in layer["gaps"]]
    return min(gaps + [margin for prompt in prompts for margin in prompt["greedyMargins"]])


def make_checkpoint(family, directory):
    """Tries SEEDS seeds and keeps the one farthest from a tie."""
    recipe = CHECKPOINTS[family]
    scratch = directory.parent / f".{family}"
    best = None
    for seed in range(SEEDS):
        model = transformers.AutoModelForCausalLM.from_config(recipe["config"], dtype=torch.float32)
        fill_with_noise(model, seed)
        save(model, scratch, recipe["dtype"], recipe["shard_bytes"])
        prompts, logits = make_golden(load_float32(scratch), seed)
        distance = distance_from_tie(prompts)
        if best is None or distance > best[0]:
            best = (distance, seed, prompts, logits)
            shutil.rmtree(directory, ignore_errors=True)
            scratch.rename(directory)
    shutil.rmtree(scratch, ignore_errors=True)
    distance, seed, prompts, logits = best
    golden = {
        "transformers": transformers.__version__, "torch": torch.__version__.split("+")[0], "seed": seed,
        "smallestDistanceFromTie": distance, "vocabularySize": VOCABULARY, "prompts": prompts,
    }
    (directory / "golden.json").write_text(json.dumps(golden, separators=(",", ":")) + "\n", encoding="utf-8")
    (directory / "golden-logits.f32").write_bytes(logits.tobytes())
    write_tokenizer(TOKENIZERS[family], VOCABULARY, directory)
    print(f"{family}: seed {seed}, smallest gap {distance:.2e}, largest logit {abs(logits).max():.2f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("test/fixtures/tiny"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    for family in CHECKPOINTS:
        make_checkpoint(family, arguments.output / family)


if __name__ == "__main__":
    main()
