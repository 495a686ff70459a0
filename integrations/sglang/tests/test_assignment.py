"""The assignment kernels against the NumPy reference, on the GPU or in Triton's interpreter."""

from __future__ import annotations

import numpy
import pytest
import torch
from kernel_device import kernel_device
from smoe_sglang.kernels import assignment
from smoe_sglang.reference import balance, predict

DEVICE = kernel_device()


def run_case(seed: int, tokens: int, devices: int, valid: int, transitions: bool, skew: float) -> None:
    random = numpy.random.default_rng(seed)
    vocabulary = 997
    # A power of a uniform variable crowds the low devices: some are overfull, others empty.
    token_device = (random.random(vocabulary) ** skew * devices).astype(numpy.int64)
    token_confidence = random.integers(0, 256, vocabulary)
    ids = random.integers(-3, vocabulary + 3, tokens)
    moves_device = random.integers(0, devices, (devices, devices))
    moves_confidence = random.integers(0, 256, (devices, devices))
    before, two_before = random.integers(0, devices, tokens), random.integers(0, devices, tokens)
    wanted = predict(
        ids, valid, token_device, token_confidence,
        *((moves_device, moves_confidence, before, two_before) if transitions else ()),
    )  # fmt: skip
    expected = balance(*wanted, devices, valid)

    def on_device(values: numpy.ndarray, kind: torch.dtype) -> torch.Tensor:
        return torch.from_numpy(values).to(kind).to(DEVICE)

    buffers = assignment.AssignmentBuffers(tokens, devices, DEVICE)
    entries = assignment.pack_entries(torch.from_numpy(token_device), torch.from_numpy(token_confidence)).to(DEVICE)
    moves = assignment.pack_entries(torch.from_numpy(moves_device), torch.from_numpy(moves_confidence)).to(DEVICE)
    assignment.assign(
        buffers, on_device(ids, torch.int64), torch.tensor([valid], dtype=torch.int32, device=DEVICE), entries,
        *((moves.flatten(), on_device(before, torch.uint8), on_device(two_before, torch.uint8)) if transitions else ()),
    )  # fmt: skip
    position = buffers.position.cpu().numpy()
    numpy.testing.assert_array_equal(position, expected)
    assert (position[valid:] == numpy.arange(valid, tokens)).all()
    assert (buffers.order.cpu().numpy()[position] == numpy.arange(tokens)).all()
    assert (buffers.home.cpu().numpy() == position // (tokens // devices)).all()


@pytest.mark.parametrize("tokens, devices", [(4, 4), (6, 3), (64, 64), (96, 8), (264, 4)])
@pytest.mark.parametrize("transitions", [False, True])
def test_single_launch_matches_reference(tokens: int, devices: int, transitions: bool) -> None:
    for skew in (1.0, 3.0):
        run_case(tokens + devices, tokens, devices, tokens, transitions, skew)
        run_case(tokens * devices, tokens, devices, tokens - tokens // 5, transitions, skew)


@pytest.mark.parametrize("tokens, devices", [(256, 4), (520, 8), (576, 64)])
def test_two_launches_match_reference(tokens: int, devices: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assignment, "SINGLE_LAUNCH_TOKENS", 0)
    run_case(tokens, tokens, devices, tokens, True, 2.0)
    run_case(tokens + 1, tokens, devices, tokens // 2, False, 1.0)


def test_one_device_keeps_everything() -> None:
    run_case(5, 40, 1, 33, True, 1.0)


@pytest.mark.parametrize("tokens, devices", [(10, 4), (65 * 2, 65), (0, 4)])
def test_impossible_shapes_are_refused(tokens: int, devices: int) -> None:
    with pytest.raises(ValueError):
        assignment.AssignmentBuffers(tokens, devices, "cpu")
