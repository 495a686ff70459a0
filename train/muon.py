"""Muon for stacks of matrices: momentum, then the nearest orthogonal matrix by Newton-Schulz, all matrices of a shape at once.

Scaled as in "Muon is Scalable for LLM Training" (arXiv 2502.16982), so that one learning rate serves Muon and AdamW.
"""

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonalise(matrices: Tensor, steps: int = 5) -> Tensor:
    """bfloat16 [count, rows, columns] with rows <= columns -> the same shape, singular values near 1."""
    a, b, c = COEFFICIENTS
    x = matrices / (matrices.float().norm(dim=(1, 2), keepdim=True) + 1e-7).to(matrices.dtype)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


class Muon(torch.optim.Optimizer):
    """Takes tensors whose last two dimensions are a matrix; the dimensions before them only count matrices."""

    def __init__(self, parameters, lr: float, momentum: float = 0.95, weightDecay: float = 0.1) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weightDecay": weightDecay})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            byShape: dict[tuple[int, int], list[tuple[Tensor, Tensor, bool]]] = {}
            for parameter in group["params"]:
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                state["momentum"].lerp_(parameter.grad, 1 - group["momentum"])
                update = parameter.grad.lerp(state["momentum"], group["momentum"]).to(torch.bfloat16)  # Nesterov
                update = update.flatten(0, -3)
                isTall = update.shape[1] > update.shape[2]
                update = update.mT if isTall else update
                byShape.setdefault(tuple(update.shape[1:]), []).append((parameter, update, isTall))
            for (_, columns), members in byShape.items():
                stack = orthogonalise(torch.cat([update for _, update, _ in members]))
                for (parameter, _, isTall), update in zip(members, stack.split([len(update) for _, update, _ in members])):
                    update = (update.mT if isTall else update).reshape(parameter.shape)
                    parameter.mul_(1 - group["lr"] * group["weightDecay"])
                    parameter.add_(update, alpha=-group["lr"] * 0.2 * columns ** 0.5)
