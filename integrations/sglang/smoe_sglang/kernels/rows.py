"""Moving rows of hidden states into the shuffled order and back, alone or inside the collective.

T = tokens, G = devices, C = T / G, H = hidden size. ``order`` and ``position`` come from ``assignment``.

``gather_rows`` is a copy: it packs before any library's reduce-scatter and unpacks after its all-gather. ``shuffled_reduce_scatter``
and ``shuffled_all_gather`` are collectives over memory that every rank can address (NVLink, one host): each row goes straight
to its place, so the shuffle adds no pass over memory. They only move data: the caller puts a barrier between writing and reading.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

_COLUMNS = 2048


@triton.jit
def _gather_rows(
    source,
    rows,
    target,
    count,
    HIDDEN: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    row = tl.program_id(0)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < HIDDEN
    # 64 bits: T * H passes 2^31 for long prefills of wide models.
    origin = tl.load(rows + row).to(tl.int64) * HIDDEN
    value = tl.load(source + origin + column, mask=inside)
    tl.store(target + row.to(tl.int64) * HIDDEN + column, value, mask=inside)


@triton.jit
def _reduce_scatter_rows(
    peers,
    order,
    target,
    first,
    HIDDEN: tl.constexpr,
    RANKS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    # peers: [RANKS] addresses of [T, HIDDEN] partial sums. Ranks are added in ascending order in float32 whatever the
    # token's home, so its sum has the same bits wherever it is computed.
    row = tl.program_id(0)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < HIDDEN
    origin = tl.load(order + first + row).to(tl.int64) * HIDDEN
    total = tl.zeros([COLUMNS], dtype=tl.float32)
    for rank in tl.static_range(RANKS):
        peer = tl.load(peers + rank).to(target.dtype)
        total += tl.load(peer + origin + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(target + row.to(tl.int64) * HIDDEN + column, total.to(target.dtype.element_ty), mask=inside)


@triton.jit
def _all_gather_rows(
    peers,
    order,
    source,
    first,
    HIDDEN: tl.constexpr,
    RANKS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    # peers: [RANKS] addresses of [T, HIDDEN] results in the original order.
    row = tl.program_id(0)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < HIDDEN
    place = tl.load(order + first + row).to(tl.int64) * HIDDEN
    value = tl.load(source + row.to(tl.int64) * HIDDEN + column, mask=inside)
    for rank in tl.static_range(RANKS):
        peer = tl.load(peers + rank).to(source.dtype)
        tl.store(peer + place + column, value, mask=inside)


def _columns(hidden: int) -> int:
    return min(_COLUMNS, triton.next_power_of_2(hidden))


def gather_rows(source: torch.Tensor, rows: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """target[i] = source[rows[i]]. source: [S, H] contiguous; rows: [R] int32; target: [R, H] contiguous. Returns target."""
    count, hidden = target.shape
    if count:
        columns = _columns(hidden)
        _gather_rows[(count, triton.cdiv(hidden, columns))](
            source, rows, target, count, HIDDEN=hidden, COLUMNS=columns, num_warps=8 if columns >= 2048 else 4
        )
    return target


def shuffled_reduce_scatter(
    peers: torch.Tensor, order: torch.Tensor, target: torch.Tensor, rank: int, ranks: int
) -> torch.Tensor:
    """target[i] = sum over ranks of that rank's partial row of token order[rank * C + i].

    peers: [ranks] int64 addresses of [T, H] contiguous partial sums of target's dtype; order: [T] int32; target: [C, H].
    """
    count, hidden = target.shape
    if count:
        columns = _columns(hidden)
        _reduce_scatter_rows[(count, triton.cdiv(hidden, columns))](
            peers, order, target, rank * count, HIDDEN=hidden, RANKS=ranks, COLUMNS=columns, num_warps=8
        )
    return target


def shuffled_all_gather(peers: torch.Tensor, order: torch.Tensor, source: torch.Tensor, rank: int, ranks: int) -> None:
    """Writes source[i] to row order[rank * C + i] of every rank's result.

    peers: [ranks] int64 addresses of [T, H] contiguous results of source's dtype; order: [T] int32; source: [C, H].
    """
    count, hidden = source.shape
    if count:
        columns = _columns(hidden)
        _all_gather_rows[(count, triton.cdiv(hidden, columns))](
            peers, order, source, rank * count, HIDDEN=hidden, RANKS=ranks, COLUMNS=columns, num_warps=8
        )
