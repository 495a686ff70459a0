"""Shuffled reduce-scatter and all-gather: rows leave in shuffled order and come back in the original one.

Two ways with one interface. ``LibraryCollectives`` copies rows into place around any library's collectives: it runs everywhere
and costs one pass over memory each way. ``SharedMemoryCollectives`` moves every row straight to its place over NVLink:
the shuffle costs nothing there, but all ranks must be GPUs of one host that can address each other's memory.
"""

from __future__ import annotations

from typing import Callable, Protocol

import torch

from .errors import SetupError
from .kernels.rows import gather_rows, shuffled_all_gather, shuffled_reduce_scatter


class ShuffledCollectives(Protocol):
    """T = tokens, G = ranks, C = T / G, H = width of a row; order, position: [T] int32 (kernels/assignment.py)."""

    def reduce_scatter(self, partial: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
        """[T, H] partial sums in the original order -> [C, H] sums of this rank's slice."""
        ...

    def all_gather(self, slice_rows: torch.Tensor, order: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        """[C, H] rows of this rank's slice -> [T, H] in the original order."""
        ...


class LibraryCollectives:
    """Rows are packed before and unpacked after the given collectives, each called as f(output, input)."""

    def __init__(
        self,
        ranks: int,
        reduce_scatter: Callable[[torch.Tensor, torch.Tensor], object],
        all_gather: Callable[[torch.Tensor, torch.Tensor], object],
    ) -> None:
        self._ranks, self._reduce_scatter, self._all_gather = ranks, reduce_scatter, all_gather

    def reduce_scatter(self, partial: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
        packed = gather_rows(partial.contiguous(), order, torch.empty_like(partial, memory_format=torch.contiguous_format))
        slice_rows = partial.new_empty((len(partial) // self._ranks, partial.shape[1]))
        self._reduce_scatter(slice_rows, packed)
        return slice_rows

    def all_gather(self, slice_rows: torch.Tensor, order: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        packed = slice_rows.new_empty((len(slice_rows) * self._ranks, slice_rows.shape[1]))
        self._all_gather(packed, slice_rows.contiguous())
        return gather_rows(packed, position, torch.empty_like(packed))


class SharedMemoryCollectives:
    """Over PyTorch's symmetric memory, by plain loads and stores to peers (no multicast).

    ``reduce_scatter`` adds ranks in ascending order in float32, so a token's sum has the same bits on whichever rank it is at
    home. ``all_gather`` answers with memory that the next ``all_gather`` overwrites. Calls must alternate or pay one more barrier:
    the barrier inside each call is what lets the other one reuse its buffer.
    """

    def __init__(
        self, group: torch.distributed.ProcessGroup, maximum_tokens: int, hidden: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        import torch.distributed._symmetric_memory as symmetric_memory

        self._rank, self._ranks, self._maximum_tokens = group.rank(), group.size(), maximum_tokens
        self._partial = symmetric_memory.empty((maximum_tokens, hidden), dtype=dtype, device=device)
        self._gathered = symmetric_memory.empty((maximum_tokens, hidden), dtype=dtype, device=device)
        self._handles = [symmetric_memory.rendezvous(memory, group=group) for memory in (self._partial, self._gathered)]
        self._partial_addresses, self._gathered_addresses = (
            torch.tensor(
                [handle.get_buffer(rank, (maximum_tokens, hidden), dtype).data_ptr() for rank in range(self._ranks)],
                dtype=torch.int64,
                device=device,
            )
            for handle in self._handles
        )
        self._last: str | None = None

    def _barrier(self) -> None:
        self._handles[0].barrier(channel=0)

    def _begin(self, call: str) -> None:
        if self._last == call:
            self._barrier()
        self._last = call

    def reduce_scatter(self, partial: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
        if len(partial) > self._maximum_tokens:
            raise SetupError(
                f"a batch of {len(partial)} rows; shared memory was set up for {self._maximum_tokens}", "use SMOE_SGLANG_COLLECTIVES=library"
            )
        self._begin("reduce_scatter")
        self._partial[: len(partial)].copy_(partial)
        self._barrier()
        slice_rows = partial.new_empty((len(partial) // self._ranks, partial.shape[1]))
        return shuffled_reduce_scatter(self._partial_addresses, order, slice_rows, self._rank, self._ranks)

    def all_gather(self, slice_rows: torch.Tensor, order: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        self._begin("all_gather")
        shuffled_all_gather(self._gathered_addresses, order, slice_rows.contiguous(), self._rank, self._ranks)
        self._barrier()
        return self._gathered[: len(order)]
