"""One MoE layer after its router: rows to the ranks of their experts, weighted partial sums back.

One row per (token, rank) instead of DeepSpeed's one per (token, expert) (deepspeed/module_inject/auto_ep_layer.py `_forward`,
deepspeed/moe/ep_tp_dispatch.py). t tokens at home here, k experts per token, G expert-parallel ranks, H hidden.
"""

from __future__ import annotations

from dataclasses import dataclass

import deepspeed.comm as dist
import torch
from deepspeed.module_inject.auto_ep_layer import (
    apply_scores_before_experts_if_enabled,
    permute_by_local_expert,
    unpermute_by_local_expert,
)
from torch import Tensor

from .counters import purpose
from .homes import Slices


@dataclass(frozen=True)
class Routing:
    """What the router chose, experts ascending by id within a token, so that sums over them have one order."""

    experts: Tensor
    """[tokens, k] expert ids as placed: rank = id // local experts."""
    weights: Tensor
    """[tokens, k] float32"""

    @staticmethod
    def of(selected: Tensor, scores: Tensor) -> "Routing":
        experts, slots = selected.sort(dim=1)
        return Routing(experts, scores.float().gather(1, slots))

    def take(self, tokens: Tensor) -> "Routing":
        return Routing(self.experts[tokens], self.weights[tokens])


@dataclass(frozen=True)
class Arrivals:
    """Rows at the rank of their experts, grouped by the rank they are at home on, and how the answers go back."""

    rows: Tensor
    """[R, H]"""
    experts: Tensor
    """[R, k] local expert ids, -1 where the token's expert lives elsewhere."""
    weights: Tensor
    """[R, k] float32"""
    answer_splits: list[int]
    """[G] rows by the rank they are at home on."""
    partial_splits: list[int]
    """[G] partial sums this rank gets, by the rank that computed them."""
    partial_tokens: Tensor
    """[sum(partial_splits)] which of this rank's t tokens each partial sum is for."""


def send_rows(rows: Tensor, routing: Routing, layer, local_experts: int) -> Arrivals:
    """Dispatch: one message per row, the hidden row followed by the ids and weights of the experts wanted there.

    rows: [t, H] this rank's tokens.
    """
    ranks, top_k = layer.ep_size, routing.experts.shape[1]
    owner = routing.experts // local_experts  # [t, k]
    wanted = torch.zeros((rows.shape[0], ranks), dtype=torch.bool, device=rows.device).scatter_(1, owner, True)
    destination, token = wanted.T.nonzero(as_tuple=True)
    here = owner[token] == destination[:, None]
    # A destination's local ids fit 16 bits: a plan has at most 65536 experts, and a rank owns a part of them.
    ids = torch.where(here, routing.experts[token] - (destination * local_experts)[:, None], -1).to(torch.int16)
    weights = torch.where(here, routing.weights[token], 0.0)
    message = torch.cat([_bytes(rows[token]), _bytes(weights), _bytes(ids)], dim=1)

    sent = wanted.sum(dim=0)
    arriving = torch.empty_like(sent)
    with purpose("control"):
        dist.all_to_all_single(arriving, sent, group=layer.ep_group)
    partial_splits, answer_splits = torch.stack((sent, arriving)).tolist()
    received = message.new_empty((sum(answer_splits), message.shape[1]))
    with purpose("dispatch"):
        dist.all_to_all_single(
            received, message, output_split_sizes=answer_splits, input_split_sizes=partial_splits, group=layer.ep_group
        )
    row_bytes = rows.shape[1] * rows.element_size()
    parts = received.split([row_bytes, 4 * top_k, 2 * top_k], dim=1)
    return Arrivals(
        rows=_view(parts[0], rows.dtype),
        experts=_view(parts[2], torch.int16).long(),
        weights=_view(parts[1], torch.float32),
        answer_splits=answer_splits,
        partial_splits=partial_splits,
        partial_tokens=token,
    )


def reuse_rows(hidden: Tensor, routing: Routing, slices: Slices, rank: int, local_experts: int) -> Arrivals:
    """The same arrivals as `send_rows`, without sending: where tensor and expert ranks are the same ranks, every one of them
    holds all rows and has run the router on them already.

    hidden: [T, H] all tokens; routing of all tokens; `rank` in both groups.
    """
    ranks = len(slices.sizes)
    owner = routing.experts // local_experts
    wanted = torch.zeros((hidden.shape[0], ranks), dtype=torch.bool, device=hidden.device).scatter_(1, owner, True)
    by_home = wanted[slices.order]  # [T, G], grouped by home
    home = torch.repeat_interleave(
        torch.arange(ranks, device=hidden.device), torch.tensor(slices.sizes, device=hidden.device), output_size=hidden.shape[0]
    )
    counts = torch.zeros((ranks, ranks), dtype=torch.long, device=hidden.device)  # [home, destination]
    counts.index_add_(0, home, by_home.long())
    matrix = counts.tolist()
    start = sum(slices.sizes[:rank])
    token = slices.order[by_home[:, rank].nonzero(as_tuple=True)[0]]
    here = owner[token] == rank
    return Arrivals(
        rows=hidden[token],
        experts=torch.where(here, routing.experts[token] - rank * local_experts, -1),
        weights=torch.where(here, routing.weights[token], 0.0),
        answer_splits=[matrix[home_rank][rank] for home_rank in range(ranks)],
        partial_splits=matrix[rank],
        partial_tokens=by_home[start : start + slices.sizes[rank]].T.nonzero(as_tuple=True)[1],
    )


def partial_sums(arrivals: Arrivals, layer, local_experts: int) -> Tensor:
    """[R, H], float32 or wider: per row the weighted outputs of its local experts, added in ascending expert id."""
    rows, experts, weights = arrivals.rows, arrivals.experts, arrivals.weights
    row, slot = (experts >= 0).nonzero(as_tuple=True)
    by_expert = torch.argsort(experts[row, slot], stable=True)
    row, slot = row[by_expert], slot[by_expert]
    counts = torch.zeros(local_experts, dtype=torch.int32, device=rows.device)
    counts.scatter_add_(0, experts[row, slot], torch.ones_like(row, dtype=torch.int32))
    if layer.score_apply == "pre":
        inputs = apply_scores_before_experts_if_enabled(rows[row], weights[row, slot], "pre")
        weights = torch.ones_like(weights)
    else:
        inputs = rows[row]
    permuted, indices, aligned, pairs = permute_by_local_expert(inputs, counts)
    outputs = unpermute_by_local_expert(layer.experts(permuted, aligned), indices, pairs)

    nothing = outputs.new_zeros((1, outputs.shape[1]))
    outputs = torch.cat([outputs, nothing])
    place = torch.full_like(experts, pairs)
    place[row, slot] = torch.arange(pairs, device=rows.device)
    total = torch.zeros(rows.shape, dtype=_wide(rows.dtype), device=rows.device)
    for expert_slot in range(experts.shape[1]):
        total += weights[:, expert_slot, None] * outputs[place[:, expert_slot]].to(total.dtype)
    return total


def return_sums(sums: Tensor, arrivals: Arrivals, tokens: int, layer) -> Tensor:
    """Combine: partial sums go home, where they are added in ascending rank. [R, H] -> [t, H], float32 or wider.

    `sums` travel in the dtype they are given in.
    """
    received = sums.new_empty((sum(arrivals.partial_splits), sums.shape[1]))
    with purpose("combine"):
        dist.all_to_all_single(
            received,
            sums.contiguous(),
            output_split_sizes=arrivals.partial_splits,
            input_split_sizes=arrivals.answer_splits,
            group=layer.ep_group,
        )
    home = torch.zeros((tokens, sums.shape[1]), dtype=_wide(sums.dtype), device=sums.device)
    for part, token in zip(received.split(arrivals.partial_splits), arrivals.partial_tokens.split(arrivals.partial_splits)):
        # A rank answers once per token, so no two additions meet and the order is that of the ranks.
        home[token] += part.to(home.dtype)
    return home


def gather_slices(home: Tensor, slices: Slices, layer) -> Tensor:
    """All-gather of the slices, undone permutation: [t, H] on each tensor rank -> [T, H] in the original order on all."""
    shard = slices.shard
    padded = home if home.shape[0] == shard else torch.cat([home, home.new_zeros((shard - home.shape[0], home.shape[1]))])
    gathered = home.new_empty((shard * len(slices.sizes), home.shape[1]))
    with purpose("restore"):
        dist.all_gather_into_tensor(gathered, padded.contiguous(), group=layer.tp_group)
    if gathered.shape[0] != slices.order.shape[0]:
        gathered = torch.cat([gathered[rank * shard :][:size] for rank, size in enumerate(slices.sizes)])
    restored = torch.empty_like(gathered)
    restored[slices.order] = gathered
    return restored


def _wide(dtype: torch.dtype) -> torch.dtype:
    """What sums are made in."""
    return torch.promote_types(dtype, torch.float32)


def _bytes(tensor: Tensor) -> Tensor:
    """[rows, n] of any dtype -> [rows, n * bytes] uint8."""
    return tensor.contiguous().view(torch.uint8).reshape(tensor.shape[0], -1) if tensor.shape[0] else tensor.new_empty(
        (0, tensor.shape[1] * tensor.element_size()), dtype=torch.uint8
    )


def _view(raw: Tensor, dtype: torch.dtype) -> Tensor:
    """Inverse of `_bytes`; the copy aligns what was cut out of a message."""
    return raw.clone(memory_format=torch.contiguous_format).view(dtype)
