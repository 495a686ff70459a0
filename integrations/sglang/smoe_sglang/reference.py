"""The shuffle's rule in NumPy: what the kernels are tested against."""

from __future__ import annotations

import numpy


def predict(
    ids: numpy.ndarray,
    valid_tokens: int,
    token_device: numpy.ndarray,
    token_confidence: numpy.ndarray,
    transition_device: numpy.ndarray | None = None,
    transition_confidence: numpy.ndarray | None = None,
    home_before: numpy.ndarray | None = None,
    home_two_before: numpy.ndarray | None = None,
) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Device and confidence (0 to 255) of every token; device -1 where there is no prediction.

    ids: [T]; token_*: [V]; transition_*: [G, G] at [home before, home two before]; homes: [T].
    """
    tokens = len(ids)
    device = numpy.full(tokens, -1)
    confidence = numpy.zeros(tokens, dtype=int)
    for token in range(tokens):
        if token >= valid_tokens:
            continue
        if 0 <= ids[token] < len(token_device):
            device[token] = token_device[ids[token]]
            confidence[token] = token_confidence[ids[token]]
        if transition_device is not None:
            moved = transition_device[home_before[token], home_two_before[token]]
            moved_confidence = transition_confidence[home_before[token], home_two_before[token]]
            if not confidence[token] > moved_confidence:
                device[token], confidence[token] = moved, moved_confidence
    return device, confidence


def balance(device: numpy.ndarray, confidence: numpy.ndarray, devices: int, valid_tokens: int) -> numpy.ndarray:
    """Place of every token, [T], in slices of T / devices tokens (rule in kernels/assignment.py)."""
    tokens = len(device)
    capacity = tokens // devices
    position = numpy.arange(tokens)
    left_over: list[int] = []
    free: list[int] = []
    for wanted in range(devices):
        begin, end = wanted * capacity, max(wanted * capacity, min((wanted + 1) * capacity, valid_tokens))
        candidates = sorted(numpy.flatnonzero(device == wanted), key=lambda token: (-confidence[token], token))
        for place, token in zip(range(begin, end), candidates):
            position[token] = place
        left_over.extend(candidates[end - begin :])
        free.extend(range(begin + len(candidates), end))
    left_over.extend(numpy.flatnonzero(device[:valid_tokens] < 0))
    position[left_over] = free
    return position
