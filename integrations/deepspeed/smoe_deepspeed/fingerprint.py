"""The short name of a checkpoint by which plans know the model they are for; mirrors src/model/fingerprint.ts.

SHA-256, first 16 hex digits, over: the normalised configuration; name, dtype and shape of every tensor the model needs; the first
4 KiB of the embedding; the bytes of every router. Reads headers, routers and those 4 KiB, not the experts.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from decimal import Decimal
from pathlib import Path
from typing import Any, Iterator

import numpy as np

from .errors import SmoeError

EMBEDDING_BYTES = 4096
MAXIMUM_HEADER_BYTES = 100_000_000
SHARD_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*\.safetensors")
ELEMENT_BYTES = {"BF16": 2, "F32": 4}


class Checkpoint:
    """A model directory in Hugging Face layout, one tensor per expert. Reads what the fingerprint needs; CHECKPOINT_* errors."""

    def __init__(self, directory: str | Path):
        self.directory = Path(directory)
        self.config = normalised_config(self.directory / "config.json")
        self._tensors: dict[str, tuple[Path, str, list[int], int]] = {}
        for path in self._files():
            self._read_header(path)

    def tensor(self, name: str) -> tuple[str, list[int]]:
        """Stored dtype and shape."""
        if name not in self._tensors:
            raise SmoeError("CHECKPOINT_MISSING_TENSOR", f"{self.directory}: no tensor {name!r}")
        _, dtype, shape, _ = self._tensors[name]
        return dtype, shape

    def read(self, name: str, limit: int | None = None) -> bytes:
        """The tensor's bytes as stored, little-endian; at most `limit` of them."""
        dtype, shape = self.tensor(name)
        path, _, _, offset = self._tensors[name]
        length = math.prod(shape) * ELEMENT_BYTES[dtype]
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read(length if limit is None else min(limit, length))
        return data

    def router(self, layer: int) -> np.ndarray:
        """[N, hidden] float32 router weights of MoE layer `layer`, as stored."""
        name = tensor_names(self.config).router(layer)
        dtype, shape = self.tensor(name)
        data = self.read(name)
        if dtype == "F32":
            return np.frombuffer(data, "<f4").reshape(shape)
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32).reshape(shape)

    def _files(self) -> list[Path]:
        single = self.directory / "model.safetensors"
        if single.exists():
            return [single]
        index_path = self.directory / "model.safetensors.index.json"
        if not index_path.exists():
            raise SmoeError("CHECKPOINT_NO_WEIGHTS", f"{self.directory}: neither model.safetensors nor {index_path.name}")
        names = sorted(set(_read_json(index_path).get("weight_map", {}).values()))
        for name in names:
            if not SHARD_NAME.fullmatch(name):
                raise SmoeError("CHECKPOINT_BAD_INDEX", f"{index_path}: {name!r} is not a plain *.safetensors file name")
        return [self.directory / name for name in names]

    def _read_header(self, path: Path) -> None:
        try:
            size = path.stat().st_size
            with path.open("rb") as file:
                length = int.from_bytes(file.read(8), "little")
                if not 2 <= length <= min(MAXIMUM_HEADER_BYTES, size - 8):
                    raise ValueError(f"header length {length} in a file of {size} bytes")
                header = json.loads(file.read(length))
            for name, entry in header.items():
                if name == "__metadata__":
                    continue
                dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
                if not all(type(value) is int and value >= 0 for value in (*shape, begin, end)) or end < begin:
                    raise ValueError(f"tensor {name!r} has a bad shape or offsets")
                if 8 + length + end > size:
                    raise ValueError(f"tensor {name!r} ends beyond the file")
                if dtype in ELEMENT_BYTES and end - begin != math.prod(shape) * ELEMENT_BYTES[dtype]:
                    raise ValueError(f"tensor {name!r}: offsets do not fit dtype and shape")
                self._tensors[name] = (path, dtype, shape, 8 + length + begin)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise SmoeError("CHECKPOINT_BAD_HEADER", f"{path}: {error}", "download the checkpoint again") from error


def fingerprint(directory: str | Path) -> str:
    """16 hex digits. Families: qwen3_moe, mixtral, olmoe, as in src/model/families."""
    checkpoint = Checkpoint(directory)
    config, names = checkpoint.config, tensor_names(checkpoint.config)
    digest = hashlib.sha256()
    digest.update(f"{_javascript_json(sorted([key, value] for key, value in config.items()))}\n".encode())
    for name, shape in expected_tensors(config):
        dtype, stored = checkpoint.tensor(name)
        if stored != shape or dtype not in ELEMENT_BYTES:
            raise SmoeError("CHECKPOINT_WRONG_SHAPE", f"{checkpoint.directory}: tensor {name!r} is {dtype} {stored}, config.json asks for {shape}")
        digest.update(f"{_javascript_json([name, dtype, stored])}\n".encode())
    digest.update(checkpoint.read(names.embedding, EMBEDDING_BYTES))
    for layer in range(config["layers"]):
        digest.update(checkpoint.read(names.router(layer)))
    return digest.hexdigest()[:16]


class tensor_names:
    """Names of one family; mirrors src/model/families/family.ts."""

    def __init__(self, config: dict[str, Any]):
        mixtral = config["family"] == "mixtral"
        self.block = "block_sparse_moe" if mixtral else "mlp"
        self.projections = ("w1", "w3", "w2") if mixtral else ("gate_proj", "up_proj", "down_proj")
        self.embedding = "model.embed_tokens.weight"
        self.output = self.embedding if config["tieEmbeddings"] else "lm_head.weight"

    def router(self, layer: int) -> str:
        return f"model.layers.{layer}.{self.block}.gate.weight"


def expected_tensors(config: dict[str, Any]) -> Iterator[tuple[str, list[int]]]:
    """Every tensor the model needs and its shape, in the order a forward pass meets them (src/model/expected-tensors.ts)."""
    names = tensor_names(config)
    hidden, width, head = config["hiddenSize"], config["expertWidth"], config["headDimension"]
    query, key_value = config["heads"] * head, config["keyValueHeads"] * head
    norm = {"none": None, "head": (head, head), "full": (query, key_value)}[config["queryKeyNorm"]]
    yield names.embedding, [config["vocabularySize"], hidden]
    for layer in range(config["layers"]):
        prefix = f"model.layers.{layer}"
        attention = f"{prefix}.self_attn"
        yield f"{prefix}.input_layernorm.weight", [hidden]
        yield f"{attention}.q_proj.weight", [query, hidden]
        yield f"{attention}.k_proj.weight", [key_value, hidden]
        yield f"{attention}.v_proj.weight", [key_value, hidden]
        yield f"{attention}.o_proj.weight", [hidden, query]
        if norm is not None:
            yield f"{attention}.q_norm.weight", [norm[0]]
            yield f"{attention}.k_norm.weight", [norm[1]]
        yield f"{prefix}.post_attention_layernorm.weight", [hidden]
        yield names.router(layer), [config["experts"], hidden]
        gate, up, down = names.projections
        for expert in range(config["experts"]):
            of_expert = f"{prefix}.{names.block}.experts.{expert}"
            yield f"{of_expert}.{gate}.weight", [width, hidden]
            yield f"{of_expert}.{up}.weight", [width, hidden]
            yield f"{of_expert}.{down}.weight", [hidden, width]
    yield "model.norm.weight", [hidden]
    if names.output != names.embedding:
        yield names.output, [config["vocabularySize"], hidden]


def normalised_config(path: Path) -> dict[str, Any]:
    """config.json in the vocabulary of src/model/config.ts, without what cannot change routing; MODEL_* errors."""
    stored = {key: value for key, value in _read_json(path).items() if value is not None}
    family = stored.get("model_type")
    defaults = {"qwen3_moe": (10_000, 1e-6), "mixtral": (1_000_000, 1e-5), "olmoe": (10_000, 1e-5)}
    if family not in defaults:
        raise SmoeError("MODEL_UNSUPPORTED", f"{path}: model_type {family!r} has no fingerprint; known are {', '.join(defaults)}")
    theta, epsilon = defaults[family]
    try:
        heads, hidden = stored["num_attention_heads"], stored["hidden_size"]
        return {
            "family": family,
            "layers": stored["num_hidden_layers"],
            "hiddenSize": hidden,
            "vocabularySize": stored["vocab_size"],
            "heads": heads,
            "keyValueHeads": stored.get("num_key_value_heads", heads),
            "headDimension": stored.get("head_dim", hidden // heads),
            "experts": stored["num_experts"] if "num_experts" in stored else stored["num_local_experts"],
            "topK": stored["num_experts_per_tok"],
            "expertWidth": stored["moe_intermediate_size" if family == "qwen3_moe" else "intermediate_size"],
            "normalizeTopK": family == "mixtral" or stored.get("norm_topk_prob", False),
            "ropeTheta": stored.get("rope_parameters", {}).get("rope_theta", stored.get("rope_theta", theta)),
            "rmsEpsilon": stored.get("rms_norm_eps", epsilon),
            "queryKeyNorm": {"qwen3_moe": "head", "mixtral": "none", "olmoe": "full"}[family],
            "clipQueryKeyValue": stored.get("clip_qkv") if family == "olmoe" else None,
            "slidingWindow": stored.get("sliding_window") if family == "mixtral" else None,
            "tieEmbeddings": stored.get("tie_word_embeddings", False),
        }
    except (KeyError, AttributeError, TypeError, ZeroDivisionError) as error:
        raise SmoeError("MODEL_CONFIG_INVALID", f"{path}: missing or malformed field {error}") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise SmoeError("MODEL_CONFIG_INVALID", f"{path}: {error}") from error
    if not isinstance(value, dict):
        raise SmoeError("MODEL_CONFIG_INVALID", f"{path}: not a JSON object")
    return value


def _javascript_json(value: Any) -> str:
    """What JSON.stringify prints: no spaces, and numbers in ECMAScript's shortest form."""
    if isinstance(value, (list, tuple)):
        return f"[{','.join(_javascript_json(item) for item in value)}]"
    if isinstance(value, float):
        if value.is_integer() and abs(value) < 1e21:
            return str(int(value))
        if 1e-7 < abs(value) < 1e21:
            return format(Decimal(repr(value)), "f")
        mantissa, exponent = repr(value).split("e")
        return f"{mantissa}e{int(exponent):+d}"
    return json.dumps(value, ensure_ascii=False)
