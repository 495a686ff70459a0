"""Which data-parallel rank serves a request: the one whose experts its tokens need most, within bounds.

Rounds as in the paper: a rank served in this round waits until all have been, so that consecutive requests reach all ranks. A rank that
has more than ``load_bound`` requests in flight above the least loaded one is passed over, whatever the affinity.
"""

from __future__ import annotations

from collections.abc import Container, Sequence

import numpy


class RequestPlacer:
    """needs: [V, ranks] (``Plan.needs_by_rank``)."""

    def __init__(self, needs: numpy.ndarray, load_bound: int) -> None:
        self._needs = needs
        self._bound = load_bound
        self._served = numpy.zeros(needs.shape[1], dtype=bool)
        self._rank_of: dict[str, int] = {}

    @property
    def ranks(self) -> int:
        return self._needs.shape[1]

    def score(self, prompt: Sequence[int]) -> numpy.ndarray:
        """[ranks] summed needs of the prompt's known token ids."""
        ids = numpy.asarray(prompt, dtype=numpy.int64).reshape(-1)
        return self._needs[ids[(ids >= 0) & (ids < len(self._needs))]].sum(axis=0)

    def loads(self, in_flight: Container[str]) -> numpy.ndarray:
        """[ranks] requests placed here that are still in flight; forgets the others."""
        self._rank_of = {request: rank for request, rank in self._rank_of.items() if request in in_flight}
        return numpy.bincount(numpy.fromiter(self._rank_of.values(), dtype=numpy.int64), minlength=self.ranks)

    def note(self, request: str, rank: int) -> None:
        """Counts a request whose rank someone else chose."""
        self._rank_of[request] = rank

    def place(self, request: str, prompt: Sequence[int], in_flight: Container[str]) -> int:
        """Rank for a request; ties to the lower rank. in_flight: ids of the requests not yet answered, this one or not."""
        loads = self.loads(in_flight)
        within_bound = loads <= loads.min() + self._bound
        if not (within_bound & ~self._served).any():
            self._served[:] = False
        open_ranks = within_bound & ~self._served
        rank = int(numpy.where(open_ranks, self.score(prompt), -1).argmax())
        self._served[rank] = True
        if self._served.all():
            self._served[:] = False
        self._rank_of[request] = rank
        return rank
