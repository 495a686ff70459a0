"""The shuffle in straightforward PyTorch operations, as one would write it first: argsort, and no host synchronisation either."""

from __future__ import annotations

import torch


def assign(
    ids: torch.Tensor,
    token_device: torch.Tensor,
    token_confidence: torch.Tensor,
    transition_device: torch.Tensor,
    transition_confidence: torch.Tensor,
    home_before: torch.Tensor,
    home_two_before: torch.Tensor,
    devices: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """position [T], order [T], home [T], all int64; the rule of smoe_sglang.kernels.assignment without padding.

    ids: [T] int64; token_*: [V] int64; transition_*: [G * G] int64; homes: [T] int64.
    """
    tokens = ids.numel()
    capacity = tokens // devices
    from_token, token_trust = token_device[ids], token_confidence[ids]
    moves = home_before * devices + home_two_before
    moved, moved_trust = transition_device[moves], transition_confidence[moves]
    by_token = token_trust > moved_trust
    device = torch.where(by_token, from_token, moved)
    trust = torch.where(by_token, token_trust, moved_trust)

    sorted_tokens = torch.argsort(device * 256 + (255 - trust), stable=True)
    sorted_device = device[sorted_tokens]
    held = torch.zeros(devices, dtype=torch.int64, device=ids.device).scatter_add_(0, device, torch.ones_like(device))
    within = torch.arange(tokens, device=ids.device) - (held.cumsum(0) - held)[sorted_device]
    keeps = within < capacity
    overflow = (~keeps).cumsum(0) - 1
    room = (capacity - held).clamp(min=0)
    room_through = room.cumsum(0)
    target = torch.searchsorted(room_through, overflow, right=True).clamp(max=devices - 1)
    spare = target * capacity + held[target] + overflow - (room_through - room)[target]
    place = torch.where(keeps, sorted_device * capacity + within, spare)
    order = torch.empty_like(sorted_tokens).scatter_(0, place, sorted_tokens)
    position = torch.empty_like(place).scatter_(0, sorted_tokens, place)
    return position, order, position // capacity
