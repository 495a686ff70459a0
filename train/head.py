"""Cross entropy through the tied output matrix, in chunks of tokens, so that the [T, V] logits never exist at once."""

import torch
from torch import Tensor

CHUNK_TOKENS = 4_096


class TiedCrossEntropy(torch.autograd.Function):
    """hidden [T, H], embedding float32 [V, H], targets int64 [T] -> mean loss in nats. Gradients are taken in the forward pass."""

    @staticmethod
    def forward(context, hidden: Tensor, embedding: Tensor, targets: Tensor) -> Tensor:
        weight, tokens = embedding.to(hidden.dtype), hidden.shape[0]
        needsGradient = any(context.needs_input_grad)
        total = torch.zeros((), device=hidden.device, dtype=torch.float32)
        hiddenGradient = torch.empty_like(hidden) if needsGradient else None
        weightGradient = torch.zeros_like(embedding) if needsGradient else None
        for start in range(0, tokens, CHUNK_TOKENS):
            part = slice(start, start + CHUNK_TOKENS)
            rows, wanted = hidden[part], targets[part].unsqueeze(1)
            logits = torch.mm(rows, weight.t()).float()  # [chunk, V]
            normaliser = logits.logsumexp(1, keepdim=True)
            total += (normaliser - logits.gather(1, wanted)).sum()
            if needsGradient:
                gradient = logits.sub_(normaliser).exp_()
                gradient.scatter_add_(1, wanted, torch.full_like(wanted, -1, dtype=torch.float32))
                gradient = gradient.to(hidden.dtype)
                hiddenGradient[part] = torch.mm(gradient, weight)
                weightGradient += torch.mm(gradient.t(), rows)
        if needsGradient:
            context.save_for_backward(hiddenGradient, weightGradient)
            context.tokens = tokens
        return total / tokens

    @staticmethod
    def backward(context, gradient: Tensor):
        hiddenGradient, weightGradient = context.saved_tensors
        scale = gradient / context.tokens
        return hiddenGradient * scale.to(hiddenGradient.dtype), weightGradient * scale, None
