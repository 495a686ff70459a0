"""Makes models/demo/reference: what transformers computes from the shipped model on held-out text, for the engine's tests.

    python train/reference.py [--full <file>]

Float32 on a CPU, eager attention, eager experts, the stored bfloat16 weights widened. `--full` also writes every
logit, [positions, vocabulary] float32, which is too large to keep in the repository. The format of the files is in
models/demo/reference/README.md. Needs torch and transformers.

Symbols in shapes: P positions of all prompts one after the other, L layers, N experts, k experts per token, V vocabulary.
"""

import argparse
import hashlib
import json
import os
from pathlib import Path

import numpy
import tokenizers
import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer

# Two prompts per domain, one length from each end of the list; odd lengths so that no tile size divides them all.
PROMPT_TOKENS = (128, 131, 137, 149, 160, 173, 192, 256)
COLUMNS, TOP, NEW_TOKENS, SEED = 48, 16, 32, 11


class RouterRecorder:
    """Keeps what each layer's router returned, and checks on the way that it is the router's softmax and top k."""

    def __init__(self, model: nn.Module) -> None:
        self.logits: list[Tensor] = []  # per layer [P, N]
        self.chosen: list[Tensor] = []  # per layer [P, k]
        self.handles = [layer.mlp.gate.register_forward_hook(self.record) for layer in model.model.layers]

    def record(self, router: nn.Module, inputs: tuple[Tensor], outputs: tuple[Tensor, Tensor, Tensor]) -> None:
        logits, weights, chosen = outputs
        assert torch.equal(logits, F.linear(inputs[0], router.weight))
        kept = logits.softmax(-1).gather(-1, chosen)
        assert torch.equal(weights, kept / kept.sum(-1, keepdim=True))
        self.logits.append(logits)
        self.chosen.append(chosen)

    def close(self) -> None:
        for handle in self.handles:
            handle.remove()


def choosePrompts(folder: Path, tokenizer) -> list[dict]:
    """Two pieces of different documents per domain: {"id", "domain", "line", "tokens"}, `line` counted from 0."""
    reference = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    pieces = [json.loads(line) for line in (folder / "heldout/evaluation.jsonl").read_text(encoding="utf-8").splitlines()]
    prompts = []
    for index, domain in enumerate(sorted({piece["domain"] for piece in pieces})):
        lengths, documents = [PROMPT_TOKENS[index], PROMPT_TOKENS[-1 - index]], set()
        for line, piece in enumerate(pieces):
            document = piece["id"].rpartition("#")[0]
            if not lengths or piece["domain"] != domain or document in documents:
                continue
            ids = tokenizer(piece["text"])["input_ids"]
            assert ids == reference.encode(piece["text"]).ids, piece["id"]
            assert tokenizer.decode(ids) == piece["text"], piece["id"]
            if len(ids) >= lengths[0]:
                documents.add(document)
                prompts.append({"id": piece["id"], "domain": domain, "line": line, "tokens": ids[: lengths.pop(0)]})
        assert not lengths, f"{domain}: too few long pieces"
    return prompts


def forward(model: nn.Module, tokens: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Returns logits [P, V], router logits [L, P, N] and chosen experts [L, P, k] of one prompt."""
    recorder = RouterRecorder(model)
    outputs = model(torch.tensor([tokens]), use_cache=False, output_router_logits=True)
    recorder.close()
    assert len(recorder.logits) == model.config.num_hidden_layers
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(recorder.logits, outputs.router_logits, strict=True))
    return outputs.logits[0], torch.stack(recorder.logits), torch.stack(recorder.chosen)


def routing(logits: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """logits [L, P, N], chosen [L, P, k] -> experts uint8 [P, L, k] ascending, and the smallest difference over layers
    between the last chosen and the first refused expert, in softmax scores and in logits, [P] each."""
    k = chosen.shape[-1]
    scores = logits.softmax(-1).sort(-1, descending=True).values
    ordered = logits.sort(-1, descending=True).values
    scoreGaps = (scores[..., k - 1] - scores[..., k]).amin(0)
    logitGaps = (ordered[..., k - 1] - ordered[..., k]).amin(0)
    return chosen.sort(-1).values.transpose(0, 1).to(torch.uint8), scoreGaps, logitGaps


def topTokens(logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Values and ids [..., count], largest first, ties to the lower id."""
    values, ids = logits.sort(dim=-1, descending=True, stable=True)
    return values[..., :count], ids[..., :count]


def continueGreedily(model: nn.Module, tokens: list[int]) -> tuple[list[int], float, int]:
    """Returns the new ids, end tokens ignored, the smallest margin between the two best logits and the step that has it."""
    cache, ids, new, margins = None, torch.tensor([tokens]), [], []
    for _ in range(NEW_TOKENS):
        outputs = model(ids, past_key_values=cache, use_cache=True)
        cache = outputs.past_key_values
        values, best = topTokens(outputs.logits[0, -1], 2)
        new.append(int(best[0]))
        margins.append(float(values[0] - values[1]))
        ids = best[None, :1]
    again = model(torch.tensor([tokens + new[:-1]]), use_cache=False).logits[0, len(tokens) - 1:]
    assert again.argmax(-1).tolist() == new, "the continuation depends on the cache"
    return new, min(margins), margins.index(min(margins))


def writeWhole(path: Path, data: bytes) -> None:
    unfinished = path.with_name(path.name + ".part")
    unfinished.write_bytes(data)
    os.replace(unfinished, path)


def writeArrays(folder: Path, arrays: dict[str, Tensor]) -> dict[str, dict]:
    """Writes raw little-endian files named for their type; returns name -> shape, dtype, bytes."""
    types = {torch.float32: ("f32", "<f4"), torch.uint8: ("u8", "u1"), torch.int64: ("u16", "<u2")}
    described = {}
    for name, array in arrays.items():
        suffix, dtype = types[array.dtype]
        data = array.numpy().astype(dtype).tobytes()
        writeWhole(folder / f"{name}.{suffix}", data)
        described[f"{name}.{suffix}"] = {"shape": list(array.shape), "dtype": suffix, "bytes": len(data)}
    return described


def modelDigest(folder: Path) -> str:
    """SHA-256 over the shards in order of name, so that a reference cannot be compared with other weights."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=Path("models/demo"))
    parser.add_argument("--out", type=Path, help="default: reference in the model's folder")
    parser.add_argument("--full", type=Path, help="also write every logit here, float32 [positions, vocabulary]")
    options = parser.parse_args()
    folder = options.out or options.model / "reference"
    torch.set_num_threads(1)  # one order of summation

    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model, report = AutoModelForCausalLM.from_pretrained(
        options.model, dtype=torch.float32, attn_implementation="eager", experts_implementation="eager", output_loading_info=True)
    assert not any(report.values()), report
    model.eval()

    prompts = choosePrompts(options.model, tokenizer)
    generator = torch.Generator().manual_seed(SEED)
    columns = torch.randperm(model.config.vocab_size, generator=generator)[:COLUMNS].sort().values
    # The same model by other kernels: how far rounding alone moves a logit.
    byDefault = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32).eval()
    found, rows, rowLogits, first, rounding = [], [], [], 0, 0.0
    full = options.full and options.full.with_name(options.full.name + ".part").open("wb")
    for index, prompt in enumerate(prompts):
        logits, routerLogits, chosen = forward(model, prompt["tokens"])
        values, ids = topTokens(logits, TOP)
        rounding = max(rounding, float((byDefault(torch.tensor([prompt["tokens"]]), use_cache=False).logits[0] - logits).abs().max()))
        found.append((logits[:, columns], values, ids, *routing(routerLogits, chosen)))
        if index % 2 == 0:
            position = int(torch.randint(len(prompt["tokens"]), (1,), generator=generator))
            rows.append({"prompt": index, "positionInPrompt": position, "position": first + position})
            rowLogits.append(logits[position])
        if full:
            full.write(logits.numpy().astype("<f4").tobytes())
        new, margin, step = continueGreedily(model, prompt["tokens"])
        assert new[0] == int(ids[-1, 0])
        prompt |= {"firstPosition": first, "greedy": new, "greedyText": tokenizer.decode(new), "smallestMargin": margin, "smallestMarginStep": step}
        first += len(prompt["tokens"])
    if full:
        full.close()
        os.replace(full.name, options.full)

    names = ("column-logits", "top-logits", "top-ids", "experts", "score-gaps", "logit-gaps")
    arrays = {name: torch.cat(parts) for name, parts in zip(names, zip(*found))} | {"rows": torch.stack(rowLogits)}
    folder.mkdir(parents=True, exist_ok=True)
    files = writeArrays(folder, arrays)
    scoreGaps = arrays["score-gaps"]
    reference = {
        "positions": first,
        "made": {
            "torch": torch.__version__, "transformers": transformers.__version__, "tokenizers": tokenizers.__version__,
            "numpy": numpy.__version__, "dtype": "float32", "attention": "eager", "experts": "eager", "device": "cpu", "threads": 1,
        },
        "roundingNoise": {"attention": byDefault.config._attn_implementation, "experts": byDefault.config._experts_implementation, "maxLogitDifference": rounding},
        "modelSha256": modelDigest(options.model),
        "smallestScoreGap": float(scoreGaps.min()),
        "smallestLogitGap": float(arrays["logit-gaps"].min()),
        "smallestGreedyMargin": min(prompt["smallestMargin"] for prompt in prompts),
        "files": files,
        "columns": columns.tolist(),
        "rows": rows,
        "prompts": prompts,
    }
    text = json.dumps(reference, ensure_ascii=False, separators=(",", ":")).replace('{"id":', '\n{"id":') + "\n"
    writeWhole(folder / "reference.json", text.encode())
    close = {bound: int((scoreGaps < bound).sum()) for bound in (1e-7, 1e-6, 1e-5, 1e-4)}
    print(f"{first} positions of {len(prompts)} prompts, {sum(path.stat().st_size for path in folder.glob('*'))} bytes")
    print(f"positions with a score gap below: {close}; smallest {float(scoreGaps.min()):.3g}, in logits {float(arrays['logit-gaps'].min()):.3g}")
    print(f"smallest greedy margin {reference['smallestGreedyMargin']:.3g}; other kernels differ by at most {rounding:.3g}")


if __name__ == "__main__":
    main()
