from __future__ import annotations

import numpy
import pytest
from demo_plan import PLAN_FILE
from smoe_sglang.plan import read_plan
from smoe_sglang.requests import RequestPlacer

# [4 token ids, 3 ranks]
NEEDS = numpy.array([[9, 1, 1], [1, 9, 1], [1, 1, 9], [9, 9, 9]])


def test_affinity_decides_within_a_round_and_each_rank_is_served_once() -> None:
    placer = RequestPlacer(NEEDS, load_bound=100)
    in_flight: set[str] = set()
    assert [placer.place(str(number), [0, 0], in_flight) for number in range(6)] == [0, 1, 2, 0, 1, 2]
    assert placer.place("a", [2], in_flight) == 2
    assert placer.place("b", [2, 2, 1], in_flight) == 1
    assert placer.place("c", [2], in_flight) == 0


def test_ties_and_unknown_ids_go_to_the_lowest_rank() -> None:
    placer = RequestPlacer(NEEDS, load_bound=0)
    assert placer.place("a", [3], ()) == 0
    assert placer.place("b", [-1, 99], ()) == 1
    assert placer.place("c", [], ()) == 2


def test_an_overloaded_rank_is_passed_over() -> None:
    placer = RequestPlacer(NEEDS, load_bound=1)
    in_flight = {"x", "y", "z"}
    for request in in_flight:
        placer.note(request, 0)
    assert placer.loads(in_flight).tolist() == [3, 0, 0]
    assert placer.place("a", [0], in_flight | {"a"}) == 1
    assert placer.place("b", [0], in_flight | {"a", "b"}) == 2
    # Ranks 1 and 2 are served, rank 0 is over the bound: a new round begins without it.
    assert placer.place("c", [0], in_flight | {"a", "b", "c"}) == 1
    # Two of its requests are answered: within the bound again.
    assert placer.place("d", [0], {"x", "a", "b", "c", "d"}) == 0


@pytest.mark.parametrize("bound", [0, 2, 5])
def test_no_request_goes_to_a_rank_past_the_bound(bound: int) -> None:
    random = numpy.random.default_rng(bound)
    plan = read_plan(str(PLAN_FILE))
    placer = RequestPlacer(plan.needs_by_rank(4), bound)
    rank_of: dict[str, int] = {}
    passed_over = 0
    for number in range(300):
        before = numpy.bincount(list(rank_of.values()), minlength=4)
        rank = placer.place(str(number), random.integers(0, plan.vocabulary, 20), rank_of)
        assert before[rank] <= before.min() + bound
        passed_over += int(before.max() > before.min() + bound)
        rank_of[str(number)] = rank
        # Answered the sooner the lower the rank: what makes plain rounds drift.
        rank_of = {request: there for request, there in rank_of.items() if random.random() > 0.2 / (1 + 3 * there)}
    assert passed_over > 0


def test_equals_the_placement_of_the_typescript_gateway() -> None:
    # RequestPlacer of src/predict/placement.ts on the same plan and prompts: highest sum of tokenNeeds among unserved ranks.
    plan = read_plan(str(PLAN_FILE))
    needs = plan.token_needs.astype(int).sum(axis=0)
    random = numpy.random.default_rng(3)
    placer = RequestPlacer(plan.needs_by_rank(4), load_bound=10**6)
    served: set[int] = set()
    for number in range(40):
        prompt = random.integers(0, plan.vocabulary, 12)
        score = needs[prompt].sum(axis=0)
        expected = max((rank for rank in range(4) if rank not in served), key=lambda rank: (score[rank], -rank))
        assert placer.place(str(number), prompt, ()) == expected
        served = set() if len(served) == 3 else served | {expected}
