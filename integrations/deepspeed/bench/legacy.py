"""The shipped model's MoE layers as DeepSpeed's own `deepspeed.moe.layer.MoE`: the capacity-padded baseline."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn


class LegacyBlock(nn.Module):
    """A transformers MoE block computed by `MoE`, no token dropped: every expert is padded to the largest load."""

    def __init__(self, source: Any, config: Any, ranks: int, rank: int):
        """source: Qwen3MoeSparseMoeBlock with all experts."""
        super().__init__()
        from deepspeed.moe.layer import MoE
        from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeMLP

        expert = Qwen3MoeMLP(config, intermediate_size=config.moe_intermediate_size)
        self.moe = MoE(
            config.hidden_size,
            expert,
            num_experts=config.num_experts,
            ep_size=ranks,
            k=config.num_experts_per_tok,
            drop_tokens=False,
            min_capacity=0,
            use_rts=False,
        )
        local = config.num_experts // ranks
        layer = self.moe.deepspeed_moe
        with torch.no_grad():
            layer.gate.wg.weight.copy_(source.gate.weight)
            for index, module in enumerate(layer.experts.deepspeed_experts):
                gate, up = source.experts.gate_up_proj[rank * local + index].chunk(2)
                module.gate_proj.weight.copy_(gate)
                module.up_proj.weight.copy_(up)
                module.down_proj.weight.copy_(source.experts.down_proj[rank * local + index])
        self.moe.set_deepspeed_parallelism()

    def forward(self, hidden_states: Tensor) -> Tensor:
        return self.moe(hidden_states)[0]


def flatten_gathers_for_gloo() -> None:
    """DeepSpeed's gather_tokens (deepspeed/moe/mappings.py) gathers a tensor of three dimensions into a flat buffer, which NCCL takes
    and gloo refuses: flatten the input too."""
    import deepspeed.comm as dist

    gather = dist.all_gather_into_tensor

    def flat(output_tensor: Tensor, tensor: Tensor, *positional: Any, **named: Any) -> Any:
        return gather(output_tensor, tensor.reshape(-1) if output_tensor.dim() == 1 else tensor, *positional, **named)

    dist.all_gather_into_tensor = flat


def use_legacy_blocks(engine: Any, source: nn.Module) -> list[nn.Module]:
    """Replaces every AutoEP layer of an engine with tensor and expert parallelism over all ranks; returns what was there.

    MOELayer finds the tensor-parallel ranks through deepspeed.utils.groups, as it does under Megatron, and drops their duplicate rows.
    """
    import deepspeed.comm as dist

    replaced = []
    like = next(engine.module.parameters())
    for ours, theirs in zip(engine.module.model.layers, source.model.layers):
        block = LegacyBlock(copy.copy(theirs.mlp), source.config, dist.get_world_size(), dist.get_rank())
        replaced.append(ours.mlp)
        ours.mlp = block.to(like.device, like.dtype).eval().requires_grad_(False)
    return replaced


def put_back(engine: Any, replaced: list[nn.Module]) -> None:
    for layer, block in zip(engine.module.model.layers, replaced):
        layer.mlp = block
