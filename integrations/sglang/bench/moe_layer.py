"""An MoE layer with random weights, as the yardstick the shuffle's time is held against: router, top-k, sort by expert, two grouped
matrix products with SwiGLU between, weighted sum; bfloat16, PyTorch's grouped_mm, shapes of real models."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F


@dataclass(frozen=True)
class LayerShape:
    """experts routed experts of which a token takes top_k; shared experts of the same width serve every token."""

    name: str
    hidden: int
    experts: int
    top_k: int
    width: int
    shared: int


SHAPES = (
    LayerShape("Qwen3-30B-A3B", hidden=2048, experts=128, top_k=8, width=768, shared=0),
    LayerShape("DeepSeek-V2-Lite", hidden=2048, experts=64, top_k=6, width=1408, shared=2),
)


def _grouped_mm(rows: torch.Tensor, weights: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    return getattr(F, "grouped_mm", torch._grouped_mm)(rows, weights.transpose(-2, -1), offs=ends)


class MoeLayer:
    """Weights in the layout the grouped product is fastest with: [experts, out, in]."""

    def __init__(self, shape: LayerShape, generator: torch.Generator) -> None:
        self.shape = shape

        def weights(*size: int) -> torch.Tensor:
            return torch.randn(size, generator=generator, device="cuda", dtype=torch.bfloat16) * 0.02

        self.router = weights(shape.experts, shape.hidden)
        self.gate_up = weights(shape.experts, 2 * shape.width, shape.hidden)
        self.down = weights(shape.experts, shape.hidden, shape.width)
        if shape.shared:
            self.shared_gate_up = weights(2 * shape.width * shape.shared, shape.hidden)
            self.shared_down = weights(shape.hidden, shape.width * shape.shared)

    def experts_only(self, rows: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
        """rows: [T * k, H] sorted by expert; ends: [experts] int32 end of each expert's rows. The least any implementation does."""
        gate, up = _grouped_mm(rows, self.gate_up, ends).chunk(2, dim=-1)
        return _grouped_mm(F.silu(gate) * up, self.down, ends)

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        """hidden: [T, H] -> [T, H]."""
        shape = self.shape
        probability = torch.softmax(F.linear(hidden, self.router).float(), dim=-1)
        weight, expert = torch.topk(probability, shape.top_k, dim=-1)
        flat = expert.reshape(-1)
        by_expert = torch.argsort(flat)
        ends = torch.zeros(shape.experts, dtype=torch.int32, device=hidden.device)
        ends = ends.scatter_add_(0, flat, torch.ones_like(flat, dtype=torch.int32)).cumsum(0).to(torch.int32)
        out = self.experts_only(hidden[by_expert // shape.top_k], ends)
        pairs = torch.empty_like(out)
        pairs[by_expert] = out
        result = (pairs.view(-1, shape.top_k, shape.hidden) * weight.to(out.dtype).unsqueeze(-1)).sum(1)
        if shape.shared:
            gate, up = F.linear(hidden, self.shared_gate_up).chunk(2, dim=-1)
            result = result + F.linear(F.silu(gate) * up, self.shared_down)
        return result
