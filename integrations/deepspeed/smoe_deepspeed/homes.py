"""Which rank takes each token through each MoE layer (s-TS, docs/method.md "Moving tokens"); mirrors src/predict.

Homes follow from token ids and the plan's tables alone, before any layer runs: every rank of a tensor group computes the same ones without
a message. Integers only and a fixed number of steps, on the model's device.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .errors import SmoeError
from .plan import Plan

PREDICTORS = ("token", "transition", "index")


@dataclass(frozen=True)
class Slices:
    """One layer's tokens cut into slices, one per tensor rank, none larger than ceil(T / tp): what an equal shard holds."""

    order: Tensor
    """[T] token indices grouped by tensor rank, ascending within a rank."""
    sizes: list[int]
    """[tp]"""

    @property
    def shard(self) -> int:
        """Rows of an equal shard."""
        return -(-self.order.shape[0] // len(self.sizes))

    def of(self, rank: int) -> Tensor:
        """[sizes[rank]] tokens at home on tensor rank `rank`."""
        start = sum(self.sizes[:rank])
        return self.order[start : start + self.sizes[rank]]


def contiguous_slices(tokens: int, ranks: int, device: torch.device) -> Slices:
    """Slices by token index, without any prediction."""
    sizes = [tokens // ranks + (rank < tokens % ranks) for rank in range(ranks)]
    return Slices(torch.arange(tokens, device=device), sizes)


class HomePredictor:
    """Homes of a step's tokens in every layer.

    `peer_devices` [tp]: the plan device (expert-parallel rank) of each tensor rank. A home is an index into it.
    """

    def __init__(self, plan: Plan, peer_devices: list[int], predictor: str, device: torch.device):
        if predictor not in PREDICTORS:
            raise SmoeError("PREDICTOR_UNKNOWN", f"predictor {predictor!r}; known are {', '.join(PREDICTORS)}")
        self.predictor = predictor
        self.layers = plan.layers
        self.ranks = len(peer_devices)
        if predictor == "index":
            return
        if plan.prediction is None or plan.vocabulary_size == 0:
            raise SmoeError(
                "PLAN_NO_TABLES",
                f"{plan.where}: the plan (solver {plan.solver}) holds no prediction tables",
                "solve it from a trace with token ids, give the plan itself and not its export, or use the predictor `index`",
            )
        if predictor == "transition" and len(set(peer_devices)) != plan.devices:
            raise SmoeError(
                "PREDICTOR_UNUSABLE",
                f"predictor transition needs every one of the plan's {plan.devices} devices in the tensor group, which has {sorted(set(peer_devices))}",
                "use the predictor `token`, or tensor parallelism over all expert-parallel ranks",
            )
        self._vocabulary = plan.vocabulary_size
        self._peers = torch.tensor(peer_devices, device=device)
        needs = torch.from_numpy(plan.prediction.token_needs.copy())
        self._token_needs = needs.to(device)[..., self._peers]  # [L, V, tp] uint8
        self._devices, self._lookback = plan.devices, plan.prediction.transition_lookback
        self._transition_needs = torch.from_numpy(plan.prediction.transition_needs.copy()).to(device)

    def predict(self, token_ids: Tensor) -> list[Slices]:
        """[T] ids, in the order of the flattened hidden states -> slices of each of the L layers.

        Ids outside the plan's vocabulary (added after profiling) are taken as id 0's.
        """
        if self.predictor == "index":
            return [contiguous_slices(token_ids.numel(), self.ranks, token_ids.device)] * self.layers
        ids = token_ids.reshape(-1).to(self._peers.device, torch.long)
        ids = torch.where((ids >= 0) & (ids < self._vocabulary), ids, torch.zeros_like(ids))
        if self.predictor == "token":
            homes = balanced_homes(self._token_needs[:, ids].to(torch.int32))
        else:
            homes = self._transition_homes(ids)
        order = torch.argsort(homes, dim=1, stable=True)
        # The only values read back to the host, once a step.
        sizes = rank_loads(homes, self.ranks).tolist()
        return [Slices(order[layer], sizes[layer]) for layer in range(self.layers)]

    def _transition_homes(self, ids: Tensor) -> Tensor:
        """[L, T]; layer 0 has no homes to go by and takes the token table."""
        homes = [balanced_homes(self._token_needs[:1, ids].to(torch.int32))]
        for layer in range(1, self.layers):
            history = torch.zeros_like(ids)
            for back in range(1, self._lookback + 1):
                # Further back than layer 0 there is no home, and the table does not depend on it.
                digit = self._peers[homes[layer - back][0]] if back <= layer else torch.zeros_like(ids)
                history = history * self._devices + digit
            needs = self._transition_needs[layer][history][:, self._peers]
            homes.append(balanced_homes(needs[None].to(torch.int32)))
        return torch.cat(homes)


def balanced_homes(benefit: Tensor) -> Tensor:
    """[L, T, G] benefit of a home, int32 -> [L, T] homes, at most ceil(T / G) tokens each; layers are independent.

    Every token starts on its best rank. Then, G - 1 times: the most overfull rank gives up the tokens that lose least by moving to
    the best rank with room. Each round leaves one rank less that is overfull or one less with room, so G - 1 rounds always suffice.
    Ties: lower rank, then lower token.
    """
    layers, tokens, ranks = benefit.shape
    shard = -(-tokens // ranks)
    homes = benefit.argmax(dim=2) if tokens else benefit.new_zeros((layers, 0), dtype=torch.long)
    worst = torch.iinfo(torch.int32).min
    never = torch.iinfo(torch.int32).max
    for _ in range(ranks - 1):
        load = rank_loads(homes, ranks)
        excess, fullest = (load - shard).max(dim=1)
        room = (shard - load).clamp(min=0)  # [L, G]
        reachable = benefit.masked_fill((room == 0)[:, None, :], worst)
        best, target = reachable.max(dim=2)  # [L, T]
        here = homes == fullest[:, None]
        current = benefit.gather(2, homes[..., None])[..., 0]
        loss = torch.where(here & (best != worst), current - best, never)
        order = loss.argsort(dim=1, stable=True)
        # Among the first `excess` tokens of the order, a target takes no more than it has room for.
        wanted = torch.nn.functional.one_hot(target.gather(1, order), ranks)  # [L, T, G]
        arrivals = (wanted.cumsum(dim=1) * wanted).sum(dim=2)
        fits = arrivals <= room.gather(1, target.gather(1, order))
        position = torch.arange(tokens, device=benefit.device)
        moves = (position < excess[:, None].clamp(min=0)) & fits & (loss.gather(1, order) != never)
        moved = torch.where(moves, target.gather(1, order), homes.gather(1, order))
        homes = homes.scatter(1, order, moved)
    return homes


def rank_loads(homes: Tensor, ranks: int) -> Tensor:
    """[L, T] homes -> [L, G] tokens per rank."""
    loads = torch.zeros((homes.shape[0], ranks), dtype=torch.long, device=homes.device)
    return loads.scatter_add_(1, homes, torch.ones_like(homes))
