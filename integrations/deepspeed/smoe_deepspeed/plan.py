"""Plan files (docs/plan-format.md), read and checked whole before anything uses them; mirrors src/plan/plan-file.ts."""

from __future__ import annotations

import base64
import binascii
import json
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from .errors import SmoeError

FORMAT = "speculative-moe-plan"
VERSION = 1
MAXIMUM_FILE_BYTES = 1 << 30
LONGEST_LOOKBACK = 3
PREDICTORS = ("token", "transition", "pregate")


@dataclass(frozen=True)
class Prediction:
    """Tables of uint8 probabilities x 255. P devices, L MoE layers, V vocabulary."""

    token_device: np.ndarray
    """[L, V] T: the device a token of this id most probably needs."""
    token_confidence: np.ndarray
    """[L, V] T_p."""
    token_needs: np.ndarray
    """[L, V, P] probability that a token of this id needs the device."""
    transition_needs: np.ndarray
    """[L, P ** lookback, P] the same, given the homes in the layers before, the nearest one the most significant digit."""
    transition_lookback: int
    """Layers before that `transition_needs` looks at, 1 to 3."""
    best_predictor: tuple[str, ...]
    """[L]"""


@dataclass(frozen=True)
class Plan:
    """Which device owns which expert, and what tokens are predicted to need. Plain data, nothing about running."""

    model_fingerprint: str
    devices: int
    layers: int
    experts: int
    top_k: int
    vocabulary_size: int
    solver: str
    expert_owner: np.ndarray
    """[L, N] uint16: owner of each expert."""
    replicas: tuple[tuple[tuple[int, ...], ...], ...]
    """[L][P] experts copied to the device, ascending."""
    prediction: Prediction | None
    promise: dict[str, Any] | None
    where: str
    """The file, for messages."""

    def experts_of(self, layer: int, device: int) -> np.ndarray:
        """Ids of the experts `device` owns in `layer`, ascending."""
        return np.nonzero(self.expert_owner[layer] == device)[0]


def read_plan(path: str | Path) -> Plan:
    """Reads and validates the whole file: PLAN_UNREADABLE, PLAN_VERSION or PLAN_INVALID."""
    path = Path(path)
    try:
        if path.stat().st_size > MAXIMUM_FILE_BYTES:
            raise OSError(f"larger than {MAXIMUM_FILE_BYTES} bytes")
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SmoeError("PLAN_UNREADABLE", f"{path}: cannot read the plan: {error}") from error
    return decode_plan(text, str(path))


def decode_plan(text: str, where: str) -> Plan:
    """`where` names the text in errors. Also takes what `smoe export --to deepspeed` wrote."""
    from . import exported

    try:
        stored = json.loads(text)
    except (ValueError, RecursionError) as error:
        _invalid(where, f"not JSON: {error}")
    if isinstance(stored, dict) and stored.get("format") == exported.FORMAT:
        return exported.plan_of_export(stored, text, Path(where))
    if not isinstance(stored, dict) or stored.get("format") != FORMAT:
        _invalid(where, f'format is not "{FORMAT}"')
    if stored.get("version") != VERSION:
        raise SmoeError("PLAN_VERSION", f"{where}: plan format {stored.get('version')}, this program reads {VERSION}")

    def count(name: str, most: int, least: int = 1) -> int:
        value = stored.get(name)
        if type(value) is not int or not least <= value <= most:
            _invalid(where, f"{name}: not an integer from {least} to {most}")
        return value

    devices, layers = count("devices", 256), count("layers", 4096)
    experts, top_k = count("experts", 65536), count("topK", 255)
    vocabulary = count("vocabularySize", 2**31 - 1, least=0)
    for name in ("modelFingerprint", "solver"):
        if not isinstance(stored.get(name), str) or not stored[name]:
            _invalid(where, f"{name}: not a non-empty string")
    if top_k > experts:
        _invalid(where, f"topK {top_k} exceeds the {experts} experts")
    if devices > experts:
        _invalid(where, f"{devices} devices for {experts} experts: every device must own at least one")

    owner = _table(where, "expertOwner", stored.get("expertOwner"), "<u2", (layers, experts))
    if owner.max() >= devices:
        layer, expert = np.argwhere(owner >= devices)[0]
        _invalid(where, f"expertOwner, layer {layer}: expert {expert} is on device {owner[layer, expert]} of {devices}")
    for layer in range(layers):
        idle = np.nonzero(np.bincount(owner[layer], minlength=devices) == 0)[0]
        if idle.size:
            _invalid(where, f"expertOwner, layer {layer}: device {idle[0]} owns no expert")

    promise = stored.get("promise")
    if promise is not None and (
        not isinstance(promise, dict) or not isinstance(promise.get("layers"), list) or len(promise["layers"]) != layers
    ):
        _invalid(where, f"promise.layers: not one entry for each of {layers} layers")
    return Plan(
        model_fingerprint=stored["modelFingerprint"],
        devices=devices,
        layers=layers,
        experts=experts,
        top_k=top_k,
        vocabulary_size=vocabulary,
        solver=stored["solver"],
        expert_owner=owner,
        replicas=_replicas(where, stored.get("replicas"), owner, devices),
        prediction=_prediction(where, stored.get("prediction"), layers, vocabulary, devices),
        promise=promise,
        where=where,
    )


def _replicas(where: str, stored: Any, owner: np.ndarray, devices: int) -> tuple[tuple[tuple[int, ...], ...], ...]:
    layers, experts = owner.shape
    if not isinstance(stored, list) or len(stored) != layers:
        _invalid(where, f"replicas: not one entry for each of {layers} layers")
    for layer, of_layer in enumerate(stored):
        if not isinstance(of_layer, list) or len(of_layer) != devices:
            _invalid(where, f"replicas, layer {layer}: not one list for each of {devices} devices")
        for device, copies in enumerate(of_layer):
            at = f"replicas, layer {layer}, device {device}"
            if not isinstance(copies, list) or not all(type(expert) is int and 0 <= expert < experts for expert in copies):
                _invalid(where, f"{at}: not a list of expert ids below {experts}")
            if any(later <= earlier for earlier, later in zip(copies, copies[1:])):
                _invalid(where, f"{at}: ids must ascend")
            if any(owner[layer, expert] == device for expert in copies):
                _invalid(where, f"{at}: an expert is owned by the same device")
    return tuple(tuple(tuple(copies) for copies in of_layer) for of_layer in stored)


def _prediction(where: str, stored: Any, layers: int, vocabulary: int, devices: int) -> Prediction | None:
    if stored is None:
        return None
    if not isinstance(stored, dict):
        _invalid(where, "prediction: not an object")
    best = stored.get("bestPredictor")
    if not isinstance(best, list) or len(best) != layers or not all(name in PREDICTORS for name in best):
        _invalid(where, f"prediction.bestPredictor: not {layers} of {', '.join(PREDICTORS)}")

    lookback = stored.get("transitionLookback", 2)  # files without it look two layers back
    if type(lookback) is not int or not 1 <= lookback <= LONGEST_LOOKBACK:
        _invalid(where, f"prediction.transitionLookback: not an integer from 1 to {LONGEST_LOOKBACK}")

    def table(name: str, shape: tuple[int, ...]) -> np.ndarray:
        return _table(where, f"prediction.{name}", stored.get(name), "u1", shape)

    token_device = table("tokenDevice", (layers, vocabulary))
    if token_device.size and token_device.max() >= devices:
        layer, token = np.argwhere(token_device >= devices)[0]
        _invalid(where, f"prediction.tokenDevice, layer {layer}, token {token}: no device of {devices}")
    return Prediction(
        token_device=token_device,
        token_confidence=table("tokenConfidence", (layers, vocabulary)),
        token_needs=table("tokenNeeds", (layers, vocabulary, devices)),
        transition_needs=table("transitionNeeds", (layers, devices**lookback, devices)),
        transition_lookback=lookback,
        best_predictor=tuple(best),
    )


def _table(where: str, field: str, packed: Any, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """Raw DEFLATE in base64, never inflated beyond the size the shape asks for."""
    length = math.prod(shape) * np.dtype(dtype).itemsize
    if not isinstance(packed, str):
        _invalid(where, f"{field}: not a string")
    try:
        inflater = zlib.decompressobj(wbits=-15)
        data = inflater.decompress(base64.b64decode(packed, validate=True), length + 1)
    except (binascii.Error, ValueError, zlib.error) as error:
        _invalid(where, f"{field}: {error}")
    if len(data) != length or not inflater.eof:
        _invalid(where, f"{field}: holds {'more than ' if len(data) > length else ''}{min(len(data), length)} bytes, expected {length}")
    table = np.frombuffer(data, dtype).reshape(shape)
    return table.astype(np.dtype(dtype).newbyteorder("="), copy=False)


def _invalid(where: str, problem: str) -> NoReturn:
    raise SmoeError("PLAN_INVALID", f"{where}: not a usable plan: {problem}", "solve the plan again with `smoe plan`")
