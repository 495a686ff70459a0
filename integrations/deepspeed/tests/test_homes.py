import itertools

import pytest
import torch

from demo import PLAN, some_prompts
from plans import demo_plan
from smoe_deepspeed import SmoeError, read_plan
from smoe_deepspeed.homes import HomePredictor, balanced_homes, contiguous_slices, rank_loads

CPU = torch.device("cpu")


def ids(count: int) -> torch.Tensor:
    return torch.tensor(some_prompts(8)[3][:count])


@pytest.mark.parametrize("predictor", ["token", "transition", "index"])
@pytest.mark.parametrize("tokens", [0, 1, 3, 4, 61, 256])
def test_every_token_has_one_home_and_slices_are_balanced(predictor, tokens):
    slices = HomePredictor(read_plan(PLAN), [0, 1, 2, 3], predictor, CPU).predict(ids(tokens))
    assert len(slices) == 8
    for of_layer in slices:
        assert sum(of_layer.sizes) == tokens and max(of_layer.sizes) <= of_layer.shard == -(-tokens // 4)
        assert sorted(of_layer.order.tolist()) == list(range(tokens))
        for rank in range(4):
            mine = of_layer.of(rank).tolist()
            assert len(mine) == of_layer.sizes[rank] and mine == sorted(mine)


def test_close_to_the_best_assignment_on_real_text():
    plan = read_plan(PLAN)
    needs = torch.from_numpy(plan.prediction.token_needs.copy())
    total = best = 0
    for start in range(0, 60, 6):
        benefit = needs[:, ids(256)[start : start + 6]].to(torch.int32)  # [L, 6, 4]
        homes = balanced_homes(benefit)
        total += benefit.gather(2, homes[..., None]).sum().item()
        allowed = [order for order in itertools.product(range(4), repeat=6) if max(map(order.count, order)) <= 2]
        choices = torch.tensor(allowed)  # [orders, 6]
        for layer in benefit:
            best += layer[torch.arange(6), choices].sum(dim=1).max().item()
    assert 0.97 * best <= total <= best


def test_tokens_that_lose_least_move():
    benefit = torch.tensor([[[9, 1], [8, 7], [9, 3], [9, 9]]], dtype=torch.int32)
    assert balanced_homes(benefit).tolist() == [[0, 1, 0, 1]]


def test_ties_go_to_the_lower_rank_and_token():
    assert balanced_homes(torch.ones((1, 5, 4), dtype=torch.int32)).tolist() == [[1, 1, 2, 0, 0]]


def test_a_single_token_goes_where_it_is_best():
    assert balanced_homes(torch.tensor([[[1, 2, 5, 4]], [[9, 2, 5, 4]]], dtype=torch.int32)).tolist() == [[2], [0]]


def test_any_benefits_give_balanced_homes():
    generator = torch.Generator().manual_seed(1)
    for ranks in (1, 2, 3, 5, 8):
        for tokens in (1, ranks, 7, 40):
            benefit = torch.randint(0, 4, (3, tokens, ranks), generator=generator, dtype=torch.int32)
            benefit[1, :, 1:] = 0  # everybody wants rank 0
            assert rank_loads(balanced_homes(benefit), ranks).max() <= -(-tokens // ranks)


def test_ids_the_plan_does_not_know_are_taken_as_id_0():
    predictor = HomePredictor(read_plan(PLAN), [0, 1, 2, 3], "token", CPU)
    known, unknown = predictor.predict(torch.tensor([5, 0, 9])), predictor.predict(torch.tensor([5, 99999, 9]))
    assert all(torch.equal(a.order, b.order) for a, b in zip(known, unknown))


def test_a_group_that_is_a_part_of_the_devices_chooses_among_its_own():
    plan = read_plan(PLAN)
    slices = HomePredictor(plan, [2, 3], "token", CPU).predict(ids(64))
    needs = torch.from_numpy(plan.prediction.token_needs.copy())[0][ids(64)].int()
    gain = needs[slices[0].of(0)][:, 2].sum() + needs[slices[0].of(1)][:, 3].sum()
    by_index = contiguous_slices(64, 2, CPU)
    assert gain > needs[by_index.of(0)][:, 2].sum() + needs[by_index.of(1)][:, 3].sum()


def test_refusals():
    plan = read_plan(PLAN)
    for arguments, code in (
        ((plan, [0, 1, 2, 3], "oracle"), "PREDICTOR_UNKNOWN"),
        ((plan, [2, 3], "transition"), "PREDICTOR_UNUSABLE"),
        ((demo_plan(prediction=None), [0, 1, 2, 3], "token"), "PLAN_NO_TABLES"),
    ):
        with pytest.raises(SmoeError) as caught:
            HomePredictor(*arguments, CPU)
        assert caught.value.code == code
