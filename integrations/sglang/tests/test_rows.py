"""Row movement against indexing, on the GPU or in Triton's interpreter."""

from __future__ import annotations

import pytest
import torch
from kernel_device import kernel_device
from smoe_sglang.kernels.rows import gather_rows, shuffled_all_gather, shuffled_reduce_scatter

DEVICE = kernel_device()


@pytest.mark.parametrize("rows, hidden, kind", [(7, 16, torch.bfloat16), (4, 2100, torch.float32), (1, 5, torch.float16)])
def test_gather_rows_equals_indexing(rows: int, hidden: int, kind: torch.dtype) -> None:
    source = torch.randn(rows, hidden, device=DEVICE).to(kind)
    order = torch.randperm(rows, device=DEVICE)
    target = gather_rows(source, order.to(torch.int32), torch.empty_like(source))
    assert torch.equal(target, source[order])
    assert torch.equal(gather_rows(target, order.argsort().to(torch.int32), torch.empty_like(source)), source)


def test_no_rows_is_no_launch() -> None:
    empty = torch.empty(0, 8, device=DEVICE)
    assert gather_rows(empty, torch.empty(0, dtype=torch.int32, device=DEVICE), torch.empty_like(empty)).shape == (0, 8)


def test_collectives_over_addresses_put_every_row_in_its_place() -> None:
    ranks, tokens, hidden = 3, 6, 40
    # bfloat16 is checked on the GPU by bench/shuffle.py: the interpreter rounds it otherwise.
    partials = [torch.randn(tokens, hidden, device=DEVICE) for _ in range(ranks)]
    gathered = [torch.zeros(tokens, hidden, device=DEVICE) for _ in range(ranks)]

    def addresses(memory: list[torch.Tensor]) -> torch.Tensor:
        return torch.tensor([tensor.data_ptr() for tensor in memory], dtype=torch.int64, device=DEVICE)

    order = torch.randperm(tokens, device=DEVICE).to(torch.int32)
    total = (partials[0] + partials[1]) + partials[2]
    for rank in range(ranks):
        rows = torch.empty(tokens // ranks, hidden, device=DEVICE)
        shuffled_reduce_scatter(addresses(partials), order, rows, rank, ranks)
        assert torch.equal(rows, total[order[rank * 2 : rank * 2 + 2].long()])
        shuffled_all_gather(addresses(gathered), order, rows, rank, ranks)
    for everywhere in gathered:
        assert torch.equal(everywhere, total)
