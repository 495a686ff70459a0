"""Shows that the training module and transformers compute the same thing, and that the ways to run experts agree.

    python train/check.py [checkpoint folder] [--tokenizer models/demo]

Without a folder it checks a random full-size and a random small network that it writes itself.
"""

import argparse
import tempfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import checkpoint
from experts import expertOutputs
from network import Network, Shape

SMALL = Shape(layers=2, hidden=64, heads=4, keyValueHeads=2, headSize=16, experts=8, expertsPerToken=2, expertWidth=32, vocabulary=512)


def againstTransformers(folder: Path) -> float:
    """Largest difference of logits in float32 on random ids; the checkpoint must load with no key missing or left over."""
    own = checkpoint.load(folder, torch.float32, "loop")
    theirs, report = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    wrong = {name: sorted(keys) for name, keys in report.items() if keys}
    if wrong:
        raise SystemExit(f"{folder}: {wrong}")
    ids = torch.randint(own.shape.vocabulary, (2, 96), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        return float((own.logits(ids) - theirs(ids).logits).abs().max())


def gradientsAgainstTransformers(folder: Path) -> float:
    """Largest relative difference of a parameter's gradient of the mean cross entropy, float32, over all kinds of parameters."""
    own = checkpoint.load(folder, torch.float32, "grouped")
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = torch.randint(own.shape.vocabulary, (2, 97), generator=torch.Generator().manual_seed(4))
    loss, _ = own(ids[:, :-1], ids[:, 1:])
    loss.backward()
    logits = theirs(ids[:, :-1]).logits
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()).backward()
    pairs = [(own.embedding.grad, theirs.model.embed_tokens.weight.grad), (own.finalNorm.grad, theirs.model.norm.weight.grad)]
    for index, layer in enumerate(theirs.model.layers):
        pairs += [(getattr(own, name).grad[index], layer.get_parameter(f"{path}.weight").grad) for name, path in checkpoint.ATTENTION.items()]
        pairs += [(own.gateUp.grad[index].flatten(1, 2), layer.mlp.experts.gate_up_proj.grad), (own.down.grad[index], layer.mlp.experts.down_proj.grad)]
    return max(float((a - b).norm() / b.norm()) for a, b in pairs)


def expertWaysAgree() -> dict[str, float]:
    """Largest difference of outputs and gradients from the plain loop, float32."""
    torch.manual_seed(5)
    x = torch.randn(200, 64, requires_grad=True)
    gateUp = (torch.randn(8, 64, 64) * 0.2).requires_grad_()
    down = (torch.randn(8, 64, 32) * 0.2).requires_grad_()
    logits = torch.randn(200, 8)
    logits[:, 5] = -9  # one expert without rows
    scores = logits.requires_grad_()
    found = {}
    for way in ("loop", "bmm", "grouped"):
        weights, chosen = scores.softmax(-1).topk(2, -1)
        try:
            y, load = expertOutputs(x, chosen, weights, gateUp, down, way)
            found[way] = (y, *torch.autograd.grad((y * torch.arange(64)).sum(), (x, gateUp, down, scores)))
        except (RuntimeError, NotImplementedError) as error:
            print(f"{way}: not on this machine ({str(error).splitlines()[0]})")
            continue
        assert int(load.sum()) == 400 and int(load[5]) == 0
    return {way: max(float((a - b).detach().abs().max() / a.detach().abs().max()) for a, b in zip(found["loop"], results)) for way, results in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--tokenizer", type=Path)
    options = parser.parse_args()
    if options.folder:
        print(f"max |delta logit| {againstTransformers(options.folder):.2e}")
    else:
        print("relative differences from the loop:", {way: f"{value:.1e}" for way, value in expertWaysAgree().items()})
        for label, shape in (("small", SMALL), ("full", Shape())):
            with tempfile.TemporaryDirectory() as folder:
                torch.manual_seed(7)
                network = Network(shape, torch.float32, "loop")
                for parameter in network.parameters():
                    parameter.data.add_(torch.randn_like(parameter) * 0.05)
                paths = checkpoint.save(network, Path(folder), kind=torch.float32 if label == "small" else torch.bfloat16)
                print(f"{label}: {len(paths)} files, largest {max(path.stat().st_size for path in paths) / 2**20:.2f} MiB,",
                      f"max |delta logit| {againstTransformers(Path(folder)):.2e}, gradients {gradientsAgainstTransformers(Path(folder)):.1e}")
    if options.tokenizer:
        tokenizer = AutoTokenizer.from_pretrained(options.tokenizer)
        text = "Straße, déjà vu: for (int i = 0; i < 10; i++) {\n\treturn \"x\";\n}\n\u4f60\u597d <|endoftext|>"
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.decode(ids) == text, tokenizer.decode(ids)
        print(f"tokenizer: {len(tokenizer)} entries, eos {tokenizer.eos_token_id}, pad {tokenizer.pad_token_id}, {len(text)} characters in {len(ids)} tokens")


if __name__ == "__main__":
    main()
