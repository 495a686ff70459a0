"""The stacked parameters of `network.py` <-> an ordinary Hugging Face checkpoint (Qwen3MoeForCausalLM) in small shards."""

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from network import Network, Shape

ATTENTION = {"query": "self_attn.q_proj", "key": "self_attn.k_proj", "value": "self_attn.v_proj", "output": "self_attn.o_proj",
             "queryNorm": "self_attn.q_norm", "keyNorm": "self_attn.k_norm", "attentionNorm": "input_layernorm",
             "expertNorm": "post_attention_layernorm", "router": "mlp.gate"}


def namedViews(network: Network) -> Iterator[tuple[str, Tensor]]:
    """Yields every tensor of the checkpoint under its hub name, as a view of the parameter that holds it."""
    yield "model.embed_tokens.weight", network.embedding.data
    for layer in range(network.shape.layers):
        prefix = f"model.layers.{layer}"
        for parameter, name in ATTENTION.items():
            yield f"{prefix}.{name}.weight", getattr(network, parameter).data[layer]
        for expert in range(network.shape.experts):
            at = f"{prefix}.mlp.experts.{expert}"
            yield f"{at}.gate_proj.weight", network.gateUp.data[layer, expert, 0]
            yield f"{at}.up_proj.weight", network.gateUp.data[layer, expert, 1]
            yield f"{at}.down_proj.weight", network.down.data[layer, expert]
    yield "model.norm.weight", network.finalNorm.data


def configuration(shape: Shape) -> dict:
    return {
        "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "dtype": "bfloat16", "torch_dtype": "bfloat16",
        "vocab_size": shape.vocabulary, "hidden_size": shape.hidden, "intermediate_size": shape.expertWidth * shape.expertsPerToken,
        "num_hidden_layers": shape.layers, "num_attention_heads": shape.heads, "num_key_value_heads": shape.keyValueHeads,
        "head_dim": shape.headSize, "num_experts": shape.experts, "num_experts_per_tok": shape.expertsPerToken,
        "moe_intermediate_size": shape.expertWidth, "norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": [],
        "hidden_act": "silu", "rms_norm_eps": shape.normEpsilon, "rope_theta": shape.ropeTheta,
        "rope_parameters": {"rope_type": "default", "rope_theta": shape.ropeTheta}, "max_position_embeddings": shape.positions,
        "tie_word_embeddings": True, "attention_bias": False, "attention_dropout": 0.0, "use_sliding_window": False,
        "sliding_window": None, "initializer_range": 0.02, "output_router_logits": False, "router_aux_loss_coef": 0.001,
        "use_cache": True, "bos_token_id": None, "eos_token_id": 0, "pad_token_id": 1,
    }


def shapeOf(config: dict) -> Shape:
    return Shape(
        layers=config["num_hidden_layers"], hidden=config["hidden_size"], heads=config["num_attention_heads"],
        keyValueHeads=config["num_key_value_heads"], headSize=config["head_dim"], experts=config["num_experts"],
        expertsPerToken=config["num_experts_per_tok"], expertWidth=config["moe_intermediate_size"], vocabulary=config["vocab_size"],
        positions=config["max_position_embeddings"], ropeTheta=config["rope_theta"], normEpsilon=config["rms_norm_eps"])


def save(network: Network, folder: Path, shardBytes: int = 13 * 2**20, kind: torch.dtype = torch.bfloat16) -> list[Path]:
    """Writes config.json, the shards and their index; returns the paths. No shard holds more than `shardBytes` of tensors."""
    folder.mkdir(parents=True, exist_ok=True)
    shards: list[dict[str, Tensor]] = [{}]
    size = total = 0
    for name, view in namedViews(network):
        tensor = view.detach().to(kind).cpu().contiguous().clone()
        length = tensor.numel() * tensor.element_size()
        if size + length > shardBytes:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size, total = size + length, total + length
    paths, where = [], {}
    for index, shard in enumerate(shards, 1):
        path = folder / f"model-{index:05}-of-{len(shards):05}.safetensors"
        save_file(shard, path, metadata={"format": "pt"})
        where.update(dict.fromkeys(shard, path.name))
        paths.append(path)
    for name, value in (("config.json", {**configuration(network.shape), "dtype": str(kind).removeprefix("torch."), "torch_dtype": str(kind).removeprefix("torch.")}),
                        ("model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": where})):
        (folder / name).write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
        paths.append(folder / name)
    return paths


def load(folder: Path, computeType: torch.dtype, expertsBy: str) -> Network:
    """The inverse of `save`; parameters are float32 whatever the file holds."""
    network = Network(shapeOf(json.loads((folder / "config.json").read_text())), computeType, expertsBy)
    stored = {}
    for path in sorted(folder.glob("*.safetensors")):
        stored.update(load_file(path))
    for name, view in namedViews(network):
        view.copy_(stored.pop(name))
    if stored:
        raise ValueError(f"{folder}: tensors that no parameter takes: {sorted(stored)[:5]}")
    return network
