"""Trains the model that ships and writes it as a Hugging Face checkpoint.

    python train/train.py --tokens tokens.u16.xz --valid valid.u16 --probe
    python train/train.py --tokens tokens.u16.xz --valid valid.u16 --out <folder> --seconds 150

The learning rate follows elapsed time (`--seconds`) or steps (`--steps`, the form that can be reproduced): a short
warm-up, then a straight line to zero, so that training is fully annealed when it stops.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from torch import Tensor

import checkpoint
from batches import Batches, readTokens, unpack
from experts import WAYS, workingWay
from muon import Muon
from network import SHAPES, Network

CLIP_NORM = 1.0
WEIGHT_DECAY = 0.1


def parseOptions() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=Path, required=True, help="tokens.u16.xz")
    parser.add_argument("--unpacked", type=Path, default=Path("/tmp/tokens.u16"), help="where the plain tokens are kept between runs")
    parser.add_argument("--valid", type=Path, required=True, help="held-out tokens, uint16")
    parser.add_argument("--out", type=Path, help="folder of the checkpoint")
    parser.add_argument("--seconds", type=float, help="length of training from --start-time, the checkpoint not included")
    parser.add_argument("--start-time", type=float, default=time.time(), help="seconds since the epoch; default: now")
    parser.add_argument("--steps", type=int, help="length of training in steps instead")
    parser.add_argument("--probe", action="store_true", help="20 steps, speed only")
    parser.add_argument("--experts", choices=WAYS, default="grouped")
    parser.add_argument("--sequences", type=int, default=16, help="sequences per step")
    parser.add_argument("--length", type=int, default=2048, help="tokens per sequence")
    parser.add_argument("--rate", type=float, default=3e-3, help="peak learning rate")
    parser.add_argument("--warmup", type=float, default=0.04, help="share of training")
    parser.add_argument("--balance", type=float, default=0.02, help="weight of the load balance loss, summed over layers")
    parser.add_argument("--z-loss", type=float, default=1e-4)
    parser.add_argument("--log-every", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--shape", choices=SHAPES, default="demo", help="see network.py")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    if not options.probe and (options.out is None or (options.seconds is None) == (options.steps is None)):
        parser.error("give --probe, or --out and one of --seconds and --steps")
    return options


def buildOptimizers(network: Network, rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for the rest; norms are not decayed."""
    matrices = [network.query, network.key, network.value, network.output, network.gateUp, network.down]
    decayed = [network.embedding, network.router]
    norms = [network.queryNorm, network.keyNorm, network.attentionNorm, network.expertNorm, network.finalNorm]
    return [
        Muon(matrices, lr=rate, weightDecay=WEIGHT_DECAY),
        torch.optim.AdamW([{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": norms, "weight_decay": 0.0}],
                          lr=rate, betas=(0.9, 0.95), eps=1e-10, fused=True),
    ]


def rateFactor(progress: float, warmup: float) -> float:
    return progress / warmup if progress < warmup else max(0.0, (1 - progress) / (1 - warmup))


class Trainer:
    """One network, its optimizers and its batches; `step` never waits for the device."""

    def __init__(self, network: Network, batches: Batches, options: argparse.Namespace) -> None:
        self.network, self.batches, self.options = network, batches, options
        self.optimizers = buildOptimizers(network, options.rate)

    def step(self, factor: float) -> dict[str, Tensor]:
        loss, figures = self.network(*self.batches.next())
        objective = loss + self.options.balance * figures["balance"].sum() + self.options.z_loss * figures["zLoss"].sum()
        objective.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), CLIP_NORM, foreach=True)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.options.rate * factor
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return {"loss": loss.detach(), "norm": norm, **{name: figure.detach() for name, figure in figures.items()}}


def describe(figures: dict[str, Tensor]) -> str:
    load = figures["load"].float()
    return (f"loss {float(figures['loss']):.4f} balance {float(figures['balance'].mean()):.3f} "
            f"busiest {float((load.amax(1) / load.mean(1)).max()):.2f}x unused {int((load == 0).sum())} gradient {float(figures['norm']):.2f}")


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def probe(trainer: Trainer, device: torch.device) -> None:
    tokensPerStep = trainer.options.sequences * trainer.options.length
    for step in range(20):
        if step == 5:
            synchronise(device)
            start = time.time()
        figures = trainer.step(0.1 * (step + 1) / 20)
        if step in (0, 19):
            print(f"probe step {step}: {describe(figures)}", flush=True)
    synchronise(device)
    seconds = (time.time() - start) / 15
    memory = f", {torch.cuda.max_memory_allocated(device) / 2**30:.1f} GiB at most" if device.type == "cuda" else ""
    print(f"probe: {1e3 * seconds:.1f} ms per step, {tokensPerStep / seconds:,.0f} tokens/s with experts by {trainer.network.expertsBy}{memory}", flush=True)


def trainToTheEnd(trainer: Trainer, device: torch.device) -> dict:
    """Returns the record of the run: steps, tokens, seconds and the logged losses."""
    options, tokensPerStep = trainer.options, trainer.options.sequences * trainer.options.length
    begin = lastTime = time.time()
    deadline = options.start_time + options.seconds if options.seconds else None
    step, lastStep, log = 0, 0, []
    while True:
        progress = step / options.steps if deadline is None else (time.time() - begin) / max(1e-9, deadline - begin)
        if progress >= 1:
            break
        if step % options.log_every == 0 and step:
            line = describe(figures)
            now = time.time()
            speed = (step - lastStep) * tokensPerStep / (now - lastTime)
            lastStep, lastTime = step, now
            log.append({"step": step, "loss": round(float(figures["loss"]), 4), "balance": round(float(figures["balance"].mean()), 4)})
            print(f"step {step} ({progress:.1%}) {line} {speed:,.0f} tokens/s", flush=True)
        figures = trainer.step(rateFactor(progress, options.warmup))
        if step % 10 == 9:
            synchronise(device)  # keeps the clock that sets the learning rate close to the device
        step += 1
    synchronise(device)
    return {"steps": step, "tokens": step * tokensPerStep, "tokensPerStep": tokensPerStep, "seconds": round(time.time() - begin, 2), "log": log}


@torch.no_grad()
def validate(network: Network, path: Path, length: int, sequences: int, device: torch.device) -> dict:
    """Held-out loss in nats per token, over whole windows, and the expert loads on them."""
    tokens = readTokens(path, device).long()
    windows = (tokens.numel() - 1) // length
    if windows < sequences:
        sequences = windows
    total = torch.zeros((), device=device)
    load = torch.zeros(network.shape.layers, network.shape.experts, device=device)
    count = 0
    for first in range(0, windows - sequences + 1, sequences):
        start, size = first * length, sequences * length
        loss, figures = network(tokens[start:start + size].view(sequences, length), tokens[start + 1:start + 1 + size].view(sequences, length))
        total += loss
        load += figures["load"]
        count += 1
    return {
        "heldoutLoss": round(float(total) / count, 4),
        "heldoutTokens": count * sequences * length,
        "busiestExpertOverMean": [round(value, 3) for value in (load.amax(1) / load.mean(1)).tolist()],
        "idlestExpertOverMean": [round(value, 3) for value in (load.amin(1) / load.mean(1)).tolist()],
        "unusedExperts": int((load == 0).sum()),
    }


def main() -> None:
    options = parseOptions()
    torch.manual_seed(options.seed)
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cuda.enable_cudnn_sdp(False)  # flash attention needs no plan to be built first
    device = torch.device(options.device)
    kind = torch.bfloat16 if device.type == "cuda" else torch.float32
    shape = SHAPES[options.shape]
    unpack(options.tokens, options.unpacked)
    tokens = readTokens(options.unpacked, device)
    way = workingWay(options.experts, device, kind, shape.hidden, shape.expertWidth, shape.experts)
    network = Network(shape, kind, way).to(device)
    count = sum(parameter.numel() for parameter in network.parameters())
    print(f"{count:,} parameters, {tokens.numel():,} tokens, experts by {way}, torch {torch.__version__}, "
          f"ready {time.time() - options.start_time:.1f} s after the start", flush=True)
    trainer = Trainer(network, Batches(tokens, options.sequences, options.length, options.seed), options)
    if options.probe:
        probe(trainer, device)
        return
    record = trainToTheEnd(trainer, device)
    paths = checkpoint.save(network, options.out)
    record = {
        "shape": options.shape, "parameters": count, "corpusTokens": tokens.numel(), **record,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "torch": str(torch.__version__), "expertsBy": way, "peakRate": options.rate, "balanceWeight": options.balance, "seed": options.seed,
        **validate(network, options.valid, options.length, options.sequences, device),
    }
    path = options.out / "training.json"
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({name: value for name, value in record.items() if name != "log"}))
    print("\n".join(f"{path.stat().st_size:>10} {path.name}" for path in [*paths, path]))


if __name__ == "__main__":
    main()
