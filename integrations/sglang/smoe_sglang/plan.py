"""Reads a plan file (docs/plan-format.md) and derives what the plug-in needs. L = MoE layers, V = vocabulary, P = devices, N = experts."""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy

from .errors import SetupError

_SOLVE = "make the plan again with `smoe plan`"


@dataclass(frozen=True)
class Plan:
    """expert_owner: [L, N]; token_needs: [L, V, P] probability * 255 that a token of this id needs an expert of the device;
    replicas: [L][P] expert ids copied to a device."""

    devices: int
    layers: int
    experts: int
    vocabulary: int
    expert_owner: numpy.ndarray
    replicas: list[list[list[int]]]
    token_needs: numpy.ndarray

    def needs_by_rank(self, ranks: int) -> numpy.ndarray:
        """[V, ranks] int64: sum over layers and a rank's devices of token_needs; a rank holds a contiguous block of devices."""
        if ranks < 1 or self.devices % ranks:
            raise SetupError(f"a plan for {self.devices} devices cannot serve {ranks} ranks", _SOLVE)
        per_device = self.token_needs.sum(axis=0, dtype=numpy.int64)
        return per_device.reshape(self.vocabulary, ranks, self.devices // ranks).sum(axis=2)

    def token_predictions(self, ranks: int) -> tuple[numpy.ndarray, numpy.ndarray]:
        """Per token id the rank that is needed most, over all layers, and how surely: [V] ranks, [V] confidences 0 to 255.

        One answer for all layers: SGLang keeps the residual where the first sparse layer puts it.
        """
        needs = self.needs_by_rank(ranks)
        rank = needs.argmax(axis=1)
        # What the best rank has over the average one: the bytes a token loses elsewhere, as far as the tables know.
        gain = needs.max(axis=1) * ranks - needs.sum(axis=1)
        scale = max(1, int(gain.max()))
        return rank, gain * 255 // scale


def read_plan(path: str) -> Plan:
    """Checks everything it reads; the file may come from anywhere."""
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise SetupError(f"{path}: {error.strerror}", "set SMOE_SGLANG_PLAN to a file that `smoe plan` wrote") from None
    except ValueError:
        raise SetupError(f"{path} is not JSON", "set SMOE_SGLANG_PLAN to a file that `smoe plan` wrote") from None
    if not isinstance(document, dict) or document.get("format") != "speculative-moe-plan" or document.get("version") != 1:
        raise SetupError(f"{path} is not a plan of version 1", _SOLVE)
    layers, experts, devices, vocabulary = (
        _count(document, path, name) for name in ("layers", "experts", "devices", "vocabularySize")
    )
    prediction = document.get("prediction")
    if not isinstance(prediction, dict):
        raise SetupError(f"{path} holds no prediction tables", "solve it from a trace with token ids, by a solver other than contiguous")
    owner = _table(document, path, "expertOwner", numpy.dtype("<u2"), (layers, experts)).astype(numpy.int64)
    if owner.max() >= devices:
        raise SetupError(f"{path}: expertOwner names device {owner.max()} of {devices}", _SOLVE)
    return Plan(
        devices=devices,
        layers=layers,
        experts=experts,
        vocabulary=vocabulary,
        expert_owner=owner,
        replicas=_replicas(document.get("replicas"), path, layers, devices, experts),
        token_needs=_table(prediction, path, "tokenNeeds", numpy.dtype("u1"), (layers, vocabulary, devices)),
    )


def _count(document: dict, path: str, name: str) -> int:
    value = document.get(name)
    if type(value) is not int or not 1 <= value <= 1 << 24:
        raise SetupError(f"{path}: {name} is {value!r}", _SOLVE)
    return value


def _table(document: dict, path: str, name: str, kind: numpy.dtype, shape: tuple[int, ...]) -> numpy.ndarray:
    size = int(numpy.prod(shape, dtype=object)) * kind.itemsize
    packed = document.get(name)
    try:
        inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        # One byte more than wanted, so that a longer table shows without being unpacked whole.
        data = inflate.decompress(base64.b64decode(packed, validate=True), size + 1)
    except (TypeError, ValueError, binascii.Error, zlib.error):
        raise SetupError(f"{path}: {name} is not a packed table", _SOLVE) from None
    if len(data) != size:
        raise SetupError(f"{path}: {name} does not hold {' x '.join(map(str, shape))} values", _SOLVE)
    return numpy.frombuffer(data, dtype=kind).reshape(shape)


def _replicas(value: object, path: str, layers: int, devices: int, experts: int) -> list[list[list[int]]]:
    def is_list(candidate: object, length: int) -> bool:
        return isinstance(candidate, list) and len(candidate) == length

    if not is_list(value, layers) or not all(
        is_list(layer, devices)
        and all(isinstance(copies, list) and all(type(e) is int and 0 <= e < experts for e in copies) for copies in layer)
        for layer in value
    ):
        raise SetupError(f"{path}: replicas are not lists of expert ids per layer and device", _SOLVE)
    return value
