"""Bytes and outputs of the shipped model under DeepSpeed on four ranks, attention tensor-parallel, unmodified and with a plan.

    python integrations/deepspeed/bench/expert_traffic.py                          # CPU, gloo
    python integrations/deepspeed/bench/expert_traffic.py --backend nccl           # four GPUs; --time 20 also measures time
    python integrations/deepspeed/bench/expert_traffic.py --backend nccl --one-device   # four ranks on one GPU: no time can be read off

Prompts are pieces of the evaluation text, which neither model nor plan has seen, in batches of eight. Bytes do not depend on the machine.
Exits with 1 unless all outputs agree.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import statistics
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any, Callable

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1])]

import demo
import numpy as np
import torch
from ranks import prepare_deepspeed, run_ranks

RANKS = 4
BATCH = 8


@dataclasses.dataclass(frozen=True)
class Setup:
    name: str
    plan: str | None = None
    predictor: str = "token"
    dispatch: str = "send"


SETUPS = (
    Setup("deepspeed.moe.layer.MoE, no token dropped"),
    Setup("AutoEP"),
    Setup("one row per (token, rank)", "contiguous", "index"),
    Setup("+ experts placed by the plan", "grouped", "index"),
    Setup("+ tokens kept by prediction: `transition`", "grouped", "transition"),
    Setup("+ tokens kept by prediction: `token` (the default)", "grouped"),
    Setup('the default with `dispatch="reuse"`', "grouped", "token", "reuse"),
)


def measure(rank: int, options: argparse.Namespace) -> dict[str, Any]:
    import legacy
    import smoe_deepspeed

    on_gpu = options.backend == "nccl"
    dtype = getattr(torch, options.dtype)
    engine = demo.make_engine(demo.configuration(RANKS, RANKS, on_gpu and dtype == torch.bfloat16), dtype)
    device = demo.device_of(engine)
    prompts = [prompt for prompt in demo.evaluation_prompts() if len(prompt) >= options.length]
    prompts = [prompts[int(index * (len(prompts) / options.prompts))][: options.length] for index in range(options.prompts)]
    batches = [torch.tensor(prompts[start : start + BATCH], device=device) for start in range(0, len(prompts), BATCH)]
    grouped = smoe_deepspeed.read_plan(demo.PLAN)
    owners = np.tile((np.arange(grouped.experts) * RANKS // grouped.experts).astype(np.uint16), (grouped.layers, 1))
    plans = {"grouped": grouped, "contiguous": dataclasses.replace(grouped, expert_owner=owners)}
    demo.logits(engine, prompts[0][:2])  # DeepSpeed compares inputs across ranks once

    @torch.no_grad()
    def generate(ids: torch.Tensor) -> torch.Tensor:
        return engine.module.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=options.new_tokens,
            min_new_tokens=options.new_tokens,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=1,
        )[:, ids.shape[1] :]

    @torch.no_grad()
    def prefill() -> None:
        engine.module(input_ids=batches[0], use_cache=False)

    def times() -> dict[str, float] | None:
        if options.time == 0:
            return None
        return {"prefillMs": milliseconds(prefill, options.time, on_gpu), "generateMs": milliseconds(lambda: generate(batches[0]), options.time, on_gpu)}

    def run() -> dict[str, Any]:
        logits = demo.logits(engine, prompts[0])
        with smoe_deepspeed.count_bytes(engine.module) as counts:
            tokens = [row for ids in batches for row in generate(ids).tolist()]
        return {**counts.summed(), "logits": logits, "tokens": tokens, "times": times()}

    results: dict[str, dict[str, Any]] = {}
    for setup in sorted(SETUPS, key=lambda setup: setup.plan is None, reverse=True):
        started = time.monotonic()
        if setup.name.startswith("deepspeed.moe"):
            if not on_gpu:
                legacy.flatten_gathers_for_gloo()
            blocks = legacy.use_legacy_blocks(engine, demo.stored_model())
            results[setup.name] = run()
            legacy.put_back(engine, blocks)
        elif setup.plan is None:
            results[setup.name] = run()
        else:
            smoe_deepspeed.enable(engine, plans[setup.plan], predictor=setup.predictor, dispatch=setup.dispatch)
            results[setup.name] = run()
            smoe_deepspeed.disable(engine)
        if rank == 0:
            print(f"{setup.name}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)

    with torch.no_grad():
        one_process = demo.stored_model()(input_ids=torch.tensor([prompts[0]]), use_cache=False).logits[0]
    unmodified = results["AutoEP"]
    report = []
    for setup in SETUPS:
        result = results[setup.name]
        report.append(
            {
                **dataclasses.asdict(setup),
                "bytes": result["bytes"],
                "messages": result["messages"],
                "maxAbsLogitDifference": (result["logits"] - unmodified["logits"]).abs().max().item(),
                "maxAbsLogitDifferenceToOneProcess": (result["logits"] - one_process).abs().max().item(),
                "tokensEqual": sum(a == b for ours, theirs in zip(result["tokens"], unmodified["tokens"]) for a, b in zip(ours, theirs)),
                "tokens": sum(len(tokens) for tokens in result["tokens"]),
                "times": result["times"],
            }
        )
    return {
        "machine": machine(on_gpu),
        "versions": {name: version(name) for name in ("deepspeed", "torch", "transformers", "numpy")} | {"python": platform.python_version()},
        "backend": options.backend,
        "ranksOnOneDevice": options.one_device,
        "ranks": RANKS,
        "dtype": options.dtype,
        "prompts": len(prompts),
        "promptTokens": options.length,
        "newTokens": options.new_tokens,
        "batch": BATCH,
        "largestLogit": unmodified["logits"].abs().max().item(),
        "setups": report,
    }


def milliseconds(action: Callable[[], Any], repeats: int, on_gpu: bool) -> float:
    """Median wall time of `action` after two warm-up runs."""
    taken = []
    for index in range(repeats + 2):
        torch.distributed.barrier()
        if on_gpu:
            torch.cuda.synchronize()
        started = time.perf_counter()
        action()
        if on_gpu:
            torch.cuda.synchronize()
        if index >= 2:
            taken.append(1000 * (time.perf_counter() - started))
    return statistics.median(taken)


def machine(on_gpu: bool) -> str:
    if on_gpu:
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}, NCCL {'.'.join(map(str, torch.cuda.nccl.version()))}, CUDA {torch.version.cuda}"
    return f"{platform.machine()}, {os.cpu_count()} cores"


def table(report: dict[str, Any]) -> str:
    megabytes = lambda count: f"{count / 1e6:.1f}"
    autoep = next(setup for setup in report["setups"] if setup["name"] == "AutoEP")
    timed = autoep["times"] is not None
    lines = [
        "| | dispatch MB | combine MB | all-to-all against AutoEP | restore MB | attention MB | control MB | all MB | all against AutoEP | max abs logit difference | same tokens |"
        + (" prefill ms | generate ms |" if timed else ""),
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|" + ("---:|---:|" if timed else ""),
    ]
    for setup in report["setups"]:
        counted = setup["bytes"]
        change = lambda field: "" if setup is autoep else f"{100 * counted[field] / autoep['bytes'][field] - 100:+.1f} %"
        cells = [
            setup["name"],
            megabytes(counted["dispatch"]),
            megabytes(counted["combine"]),
            change("expert"),
            megabytes(counted["restore"]),
            megabytes(counted["attention"]),
            megabytes(counted["control"]),
            megabytes(counted["total"]),
            change("total"),
            f"{setup['maxAbsLogitDifference']:.1e}",
            f"{setup['tokensEqual']} of {setup['tokens']}",
        ]
        if timed:
            cells += [f"{setup['times']['prefillMs']:.1f}", f"{setup['times']['generateMs']:.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", choices=["gloo", "nccl"], default="gloo")
    parser.add_argument("--one-device", action="store_true", help="all ranks on the first GPU, each with its own NCCL_HOSTID")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--prompts", type=int, default=24, help="default 24")
    parser.add_argument("--length", type=int, default=256, help="tokens of a prompt, default 256")
    parser.add_argument("--new-tokens", type=int, default=16, help="default 16")
    parser.add_argument("--time", type=int, default=0, metavar="REPEATS", help="also measure time, median of REPEATS")
    parser.add_argument("--json", type=Path, help="also write everything to a file")
    parser.add_argument("--timeout", type=float, default=1800, help="seconds")
    options = parser.parse_args()
    if options.prompts < 1 or options.new_tokens < 1 or not 1 <= options.length <= 256:
        parser.error("prompts and new tokens are at least 1, a prompt 1 to 256 tokens")
    prepare_deepspeed(options.backend)
    if options.backend == "gloo":
        torch.set_num_threads(1)
        demo.stored_model()  # loaded once, shared by the forked ranks
    report = run_ranks(measure, RANKS, options, backend=options.backend, one_device=options.one_device, timeout=options.timeout)[0]
    versions = ", ".join(f"{name} {number}" for name, number in report["versions"].items())
    print(f"{report['machine']}; {options.backend}, {RANKS} ranks{' on one device' if options.one_device else ''}; {versions}")
    print(f"{report['prompts']} prompts of {report['promptTokens']} tokens in batches of {BATCH}, {report['newTokens']} new tokens each, {report['dtype']}\n")
    print(table(report))
    if options.json:
        temporary = options.json.with_suffix(".tmp")
        temporary.write_text(json.dumps(report, indent=1) + "\n")
        temporary.replace(options.json)
    exact = options.dtype == "float32"
    wrong = [
        setup["name"]
        for setup in report["setups"]
        if exact and (setup["tokensEqual"] != setup["tokens"] or setup["maxAbsLogitDifference"] > 1e-5 * report["largestLogit"])
    ]
    print(f"\noutputs: {'DIFFERENT in ' + ', '.join(wrong) if wrong else 'the same tokens everywhere' if exact else 'rounded to bfloat16, see the table'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
