"""The expert matrices of one layer applied to routed tokens, without dropping any; three equal ways to do it.

`grouped` one grouped matrix product over rows sorted by expert (GPU), `bmm` a batched product over rows padded to the
largest load, `loop` one product per expert (the plain reference). Shapes as in `network.py`; R = T * k rows.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

WAYS = ("grouped", "bmm", "loop")


class Spread(torch.autograd.Function):
    """x [T, ...] -> x[source] [R, ...]. Its gradient is a gather and a sum over k, which is far faster than scattered adds."""

    @staticmethod
    def forward(context, x: Tensor, source: Tensor, inverse: Tensor, copies: int) -> Tensor:
        context.save_for_backward(inverse)
        context.copies = copies
        return x.index_select(0, source)

    @staticmethod
    def backward(context, gradient: Tensor):
        (inverse,) = context.saved_tensors
        return gatherSum(gradient, inverse, context.copies), None, None, None


class Gather(torch.autograd.Function):
    """y [R, H] -> [T, H], the sum of each token's k rows; the exact transpose of `Spread`."""

    @staticmethod
    def forward(context, y: Tensor, source: Tensor, inverse: Tensor, copies: int) -> Tensor:
        context.save_for_backward(source)
        return gatherSum(y, inverse, copies)

    @staticmethod
    def backward(context, gradient: Tensor):
        (source,) = context.saved_tensors
        return gradient.index_select(0, source), None, None, None


def gatherSum(y: Tensor, inverse: Tensor, copies: int) -> Tensor:
    rows = y.index_select(0, inverse)
    return rows if copies == 1 else rows.view(-1, copies, *y.shape[1:]).sum(1)


def expertOutputs(x: Tensor, chosen: Tensor, weights: Tensor, gateUp: Tensor, down: Tensor, way: str) -> tuple[Tensor, Tensor]:
    """x [T, H], chosen and weights [T, k], gateUp [N, 2I, H], down [N, H, I] -> (output [T, H], load int64 [N])."""
    copies, experts = chosen.shape[1], gateUp.shape[0]
    # 1. Rows sorted by expert; `ends` [N] are the cumulative loads, found without a device-host synchronisation.
    sortedExperts, order = chosen.reshape(-1).to(torch.int32).sort(stable=True)
    inverse = torch.empty_like(order)
    inverse[order] = torch.arange(order.numel(), device=order.device)
    ends = torch.searchsorted(sortedExperts, torch.arange(experts, dtype=torch.int32, device=x.device), right=True)
    load = torch.diff(ends, prepend=ends.new_zeros(1))
    source = order // copies
    # 2. Token rows and routing weights in that order.
    rows = Spread.apply(x, source, inverse, copies)  # [R, H]
    scale = Spread.apply(weights.reshape(-1), order, inverse, 1)  # [R]
    # 3. The experts; the routing weight is applied at the narrow place, I wide instead of H wide.
    y = EXPERTS[way](rows, scale.unsqueeze(-1), gateUp, down, sortedExperts, ends, load)
    # 4. Back to token order, summed over the k experts.
    return Gather.apply(y, source, inverse, copies), load


def activate(both: Tensor, scale: Tensor) -> Tensor:
    """both [..., 2I] (gate beside up) -> [..., I]."""
    gate, up = both.chunk(2, -1)
    return F.silu(gate) * up * scale


def groupedProduct(rows: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
    """rows [R, in] sorted by expert, weight [N, out, in] -> [R, out]."""
    product = getattr(F, "grouped_mm", None) or torch._grouped_mm
    return product(rows, weight.transpose(-2, -1), offs=ends)


def grouped(rows, scale, gateUp, down, sortedExperts, ends, load) -> Tensor:
    ends = ends.to(torch.int32)
    return groupedProduct(activate(groupedProduct(rows, gateUp, ends), scale), down, ends)


def padded(rows, scale, gateUp, down, sortedExperts, ends, load) -> Tensor:
    experts, multiple = gateUp.shape[0], 256
    capacity = -(-int(load.max()) // multiple) * multiple
    start = (ends - load).index_select(0, sortedExperts.long())
    slot = sortedExperts.long() * capacity + torch.arange(rows.shape[0], device=rows.device) - start

    def pad(values: Tensor) -> Tensor:
        empty = values.new_zeros(experts * capacity, values.shape[1])
        return empty.index_copy(0, slot, values).view(experts, capacity, -1)

    inner = activate(torch.bmm(pad(rows), gateUp.transpose(1, 2)), pad(scale))
    return torch.bmm(inner, down.transpose(1, 2)).flatten(0, 1).index_select(0, slot)


def looped(rows, scale, gateUp, down, sortedExperts, ends, load) -> Tensor:
    sizes = load.tolist()
    parts = zip(rows.split(sizes), scale.split(sizes), gateUp, down)
    return torch.cat([F.linear(activate(F.linear(part, first), factor), second) for part, factor, first, second in parts])


EXPERTS = {"grouped": grouped, "bmm": padded, "loop": looped}


def workingWay(wanted: str, device: torch.device, kind: torch.dtype, hidden: int, width: int, experts: int) -> str:
    """Returns `wanted`, or `bmm` with a line of explanation when grouped products fail here, forward or backward."""
    if wanted != "grouped":
        return wanted
    try:
        generator = torch.Generator(device).manual_seed(0)
        x = torch.randn(1000, hidden, device=device, generator=generator).to(kind).requires_grad_()
        gateUp = (torch.randn(experts, 2 * width, hidden, device=device, generator=generator) * 0.1).to(kind).requires_grad_()
        down = (torch.randn(experts, hidden, width, device=device, generator=generator) * 0.1).to(kind).requires_grad_()
        chosen = torch.rand(1000, experts, device=device, generator=generator)[:, : experts - 1].topk(3).indices
        weights = torch.full((1000, 3), 1 / 3, device=device, dtype=kind)
        results = []
        for way in ("grouped", "bmm"):
            y, _ = expertOutputs(x, chosen, weights, gateUp, down, way)
            results.append((y.detach(), *torch.autograd.grad(y.float().square().sum(), (x, gateUp, down))))
        errors = [float((a - b).float().norm() / b.float().norm()) for a, b in zip(*results)]
        print("grouped against bmm, relative differences of output and gradients:", " ".join(f"{error:.1e}" for error in errors))
        if max(errors) < 0.02:
            return "grouped"
        print("grouped products disagree with bmm: using bmm")
    except Exception as error:  # noqa: BLE001 - whatever the device cannot do, the batched product can
        print(f"grouped products do not work here ({type(error).__name__}: {error}): using bmm")
    return "bmm"
