"""The model that ships, as a lean module for training: the Qwen3-MoE architecture with every parameter stacked over layers.

Knows nothing of files, optimizers or devices; `checkpoint.py` names its parameters as the hub does.
Symbols in shapes: L layers, H hidden size, V vocabulary, N experts, I expert width, k experts per token, D head
size, B sequences, S tokens per sequence, T = B * S tokens.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experts import expertOutputs
from head import TiedCrossEntropy


@dataclass(frozen=True)
class Shape:
    layers: int = 8
    hidden: int = 256
    heads: int = 8
    keyValueHeads: int = 4
    headSize: int = 32
    experts: int = 64
    expertsPerToken: int = 8
    expertWidth: int = 48
    vocabulary: int = 16_384
    positions: int = 2_048
    ropeTheta: float = 10_000.0
    normEpsilon: float = 1e-6


# The model that ships; two of other routing shapes, for their routing traces alone; and one for tests on a CPU.
SHAPES = {
    "demo": Shape(),
    "eight": Shape(experts=8, expertsPerToken=2, expertWidth=192),
    "wide": Shape(experts=128, expertsPerToken=8, expertWidth=32),
    "small": Shape(layers=2, hidden=64, heads=4, keyValueHeads=2, headSize=16, experts=8, expertsPerToken=2, expertWidth=32),
}


class Network(nn.Module):
    """Parameters are float32 masters; `forward` casts them once to `computeType`."""

    def __init__(self, shape: Shape, computeType: torch.dtype, expertsBy: str) -> None:
        super().__init__()
        self.shape, self.computeType, self.expertsBy = shape, computeType, expertsBy
        L, H, N, I = shape.layers, shape.hidden, shape.experts, shape.expertWidth
        queries, keys = shape.heads * shape.headSize, shape.keyValueHeads * shape.headSize
        residual = 0.02 / (2 * L) ** 0.5

        def normal(*sizes: int, deviation: float = 0.02) -> nn.Parameter:
            return nn.Parameter(torch.randn(sizes) * deviation)

        self.embedding = normal(shape.vocabulary, H)
        self.query, self.key, self.value = normal(L, queries, H), normal(L, keys, H), normal(L, keys, H)
        self.output = normal(L, H, queries, deviation=residual)
        self.router = normal(L, N, H)
        self.gateUp = normal(L, N, 2, I, H)
        self.down = normal(L, N, H, I, deviation=residual)
        self.queryNorm, self.keyNorm = nn.Parameter(torch.ones(L, shape.headSize)), nn.Parameter(torch.ones(L, shape.headSize))
        self.attentionNorm, self.expertNorm = nn.Parameter(torch.ones(L, H)), nn.Parameter(torch.ones(L, H))
        self.finalNorm = nn.Parameter(torch.ones(H))
        frequencies = shape.ropeTheta ** -(torch.arange(0, shape.headSize, 2).float() / shape.headSize)
        angles = torch.outer(torch.arange(shape.positions).float(), frequencies).repeat(1, 2)
        self.register_buffer("cosine", angles.cos(), persistent=False)  # [positions, D]
        self.register_buffer("sine", angles.sin(), persistent=False)

    def hiddenStates(self, ids: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """ids [B, S] -> final normalised hidden states [T, H] and routing figures:
        `load` int64 [L, N] pairs per expert, `balance` [L] (1 when even), `zLoss` [L]."""
        shape, kind = self.shape, self.computeType
        B, S = ids.shape
        layers = [weight.to(kind).unbind(0) for weight in (
            self.query, self.key, self.value, self.output, self.gateUp, self.down,
            self.queryNorm, self.keyNorm, self.attentionNorm, self.expertNorm)]
        routers = self.router.unbind(0)
        cosine, sine = self.cosine[:S, None].to(kind), self.sine[:S, None].to(kind)  # [S, 1, D]
        x = F.embedding(ids, self.embedding).to(kind)  # [B, S, H]
        figures = []
        for weights, router in zip(zip(*layers), routers):
            query, key, value, output, gateUp, down, queryNorm, keyNorm, attentionNorm, expertNorm = weights
            x = x + self.attention(F.rms_norm(x, (shape.hidden,), attentionNorm, shape.normEpsilon),
                                   query, key, value, output, queryNorm, keyNorm, cosine, sine)
            y = F.rms_norm(x, (shape.hidden,), expertNorm, shape.normEpsilon).view(B * S, shape.hidden)
            y, figure = self.mixture(y, router, gateUp.flatten(1, 2), down)
            x = x + y.view(B, S, shape.hidden)
            figures.append(figure)
        x = F.rms_norm(x, (shape.hidden,), self.finalNorm.to(kind), shape.normEpsilon)
        load, balance, zLoss = (torch.stack(found) for found in zip(*figures))
        return x.view(B * S, shape.hidden), {"load": load, "balance": balance, "zLoss": zLoss}

    def attention(self, x: Tensor, query: Tensor, key: Tensor, value: Tensor, output: Tensor,
                  queryNorm: Tensor, keyNorm: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        """x [B, S, H] -> [B, S, H], causal, grouped queries."""
        shape = self.shape
        B, S, _ = x.shape
        D, groups = shape.headSize, shape.heads // shape.keyValueHeads
        q = F.rms_norm(F.linear(x, query).view(B, S, shape.heads, D), (D,), queryNorm, shape.normEpsilon)
        k = F.rms_norm(F.linear(x, key).view(B, S, shape.keyValueHeads, D), (D,), keyNorm, shape.normEpsilon)
        v = F.linear(x, value).view(B, S, shape.keyValueHeads, D)
        q, k = rotate(q, cosine, sine), rotate(k, cosine, sine)
        k, v = (each.unsqueeze(3).expand(B, S, shape.keyValueHeads, groups, D).reshape(B, S, shape.heads, D) for each in (k, v))
        mixed = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), is_causal=True)
        return F.linear(mixed.transpose(1, 2).reshape(B, S, shape.heads * D), output)

    def mixture(self, x: Tensor, router: Tensor, gateUp: Tensor, down: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
        """x [T, H] -> [T, H] and the routing figures of the layer. The router works in float32."""
        shape = self.shape
        logits = F.linear(x.float(), router)  # [T, N]
        probabilities = logits.softmax(-1)
        weights, chosen = probabilities.topk(shape.expertsPerToken, -1)  # [T, k]
        weights = weights / weights.sum(-1, keepdim=True)
        y, load = expertOutputs(x, chosen, weights.to(x.dtype), gateUp, down, self.expertsBy)
        share = load.to(torch.float32) / chosen.numel()
        balance = shape.experts * (share * probabilities.mean(0)).sum()
        return y, (load, balance, logits.logsumexp(-1).square().mean())

    def forward(self, ids: Tensor, targets: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """ids, targets [B, S] -> mean cross entropy in nats (scalar) and the routing figures."""
        hidden, figures = self.hiddenStates(ids)
        return TiedCrossEntropy.apply(hidden, self.embedding, targets.reshape(-1)), figures

    def logits(self, ids: Tensor) -> Tensor:
        """ids [B, S] -> [B, S, V]; for checks, not for training."""
        hidden, _ = self.hiddenStates(ids)
        return F.linear(hidden, self.embedding.to(self.computeType)).view(*ids.shape, -1)


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotary position embedding, halves paired: x [B, S, heads, D], cosine and sine [S, 1, D]."""
    first, second = x.chunk(2, -1)
    return x * cosine + torch.cat((-second, first), -1) * sine
