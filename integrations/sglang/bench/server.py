"""A whole SGLang server over DeepEP, with and without placement and plug-in: same texts, rows sent, throughput, latency.

    python integrations/sglang/bench/server.py --model models/demo --plan plan.json --experts experts.json \
      --text models/demo/heldout/evaluation.jsonl --ranks 2 --out server.json -- --attention-backend triton

Needs as many GPUs as ranks, SGLang 0.5.17, DeepEP, and smoe-sglang installed. What follows ``--`` goes to every server. All servers run at
once on the same GPUs, each with a part of the memory, and get their requests in turn, so that the machine's moods meet all alike. A server that
does not start is reported with the end of its log; the others are measured.

Texts are asked one at a time (the batch is the same each time) and all at once; greedy. ``prefill``: all texts at once, one new token.
``decode``: many short prompts at once, 64 new tokens each. ``first``: one prompt alone, one new token. ``step``: one token of one
request alone. Rows are counted apart from timings (count_rows/sitecustomize.py).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

HERE = Path(__file__).parent
PLACED = ["--init-expert-location", "EXPERTS", "--ep-dispatch-algorithm", "static"]
ON = {"SMOE_SGLANG": "1"}
DP = ["--dp-size", "RANKS", "--enable-dp-attention"]
SETUPS = {
    "sglang": ([], {}),
    "placement": (PLACED, {}),
    "shuffle": (PLACED, ON),
    "shared": (PLACED, {**ON, "SMOE_SGLANG_COLLECTIVES": "shared"}),
    "dp": (DP, {}),
    "dp-placement": (PLACED + DP, {}),
    "dp-requests": (PLACED + DP, ON),
}
DECODE_TOKENS = 64
STEPS = 32
TEXT_TOKENS = 32


class Server:
    def __init__(self, name: str, arguments: argparse.Namespace, port: int, folder: Path) -> None:
        flags, environment = SETUPS[name]
        self.name, self.url, self.counts = name, f"http://127.0.0.1:{port}", folder / f"{name}-rows"
        self.counts.mkdir()
        self.log = Path(arguments.logs or folder) / f"{name}.log"
        values = {"EXPERTS": arguments.experts, "RANKS": str(arguments.ranks)}
        command = [sys.executable, "-m", "sglang.launch_server", "--model-path", arguments.model, "--host", "127.0.0.1", "--port", str(port)]
        command += ["--nccl-port", str(port + 500), "--tp-size", str(arguments.ranks), "--ep-size", str(arguments.ranks)]
        command += ["--moe-a2a-backend", "deepep", "--deepep-mode", "normal", "--disable-radix-cache"]
        command += [values.get(flag, flag) for flag in flags] + arguments.rest
        paths = [str(HERE / "count_rows"), os.environ.get("PYTHONPATH", "")]
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("SMOE_")}
        own = {"SMOE_SGLANG_PLAN": arguments.plan, "SMOE_COUNT_ROWS": str(self.counts), "PYTHONPATH": os.pathsep.join(filter(None, paths))}
        self.command = command
        self.process = subprocess.Popen(
            command, env={**inherited, **own, **environment}, stdout=self.log.open("w"), stderr=subprocess.STDOUT, start_new_session=True
        )

    def post(self, path: str, body: dict, timeout: float = 90):
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return json.loads(answer.read())

    def generate(self, prompts: list[list[int]], tokens: int, **rest):
        """prompts: token ids. Greedy; exactly ``tokens`` new ones each."""
        sampling = {"temperature": 0, "max_new_tokens": tokens, "ignore_eos": True}
        return self.post("/generate", {"input_ids": prompts, "sampling_params": sampling, **rest})

    def wait(self, until: float) -> str | None:
        """None once it answers, else why not."""
        while time.time() < until:
            if self.process.poll() is not None:
                return f"exited with {self.process.returncode}"
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=2):
                    pass
                self.generate([[5, 6, 7, 8, 9, 10, 11, 12]], 4)
                return None
            except OSError as error:
                if isinstance(error, urllib.error.HTTPError) and error.code != 503:
                    return f"{error}: {error.read()[:300]!r}"
                time.sleep(0.5)
        return "no answer in time"

    def tail(self, lines: int = 40) -> str:
        return "\n".join(line[:400] for line in self.log.read_text(errors="replace").splitlines()[-lines:])

    def said(self) -> list[str]:
        return [line for line in self.log.read_text(errors="replace").splitlines() if "smoe_sglang" in line]

    def count(self, ranks: int, call) -> dict:
        for old in self.counts.glob("rows-*"):
            old.unlink()
        (self.counts / "on").touch()
        time.sleep(0.1)
        call()
        (self.counts / "on").unlink()
        files = [self.counts / f"rows-{rank}.json" for rank in range(ranks)]
        until = time.time() + 10
        while not all(file.exists() for file in files) and time.time() < until:
            time.sleep(0.05)
        counted = [json.loads(file.read_text()) for file in files]
        sent = sum(rows for rank, one in enumerate(counted) for to, rows in enumerate(one["toRank"]) if to != rank)
        kept = sum(one["toRank"][rank] for rank, one in enumerate(counted))
        return {"dispatches": counted[0]["dispatches"], "rows": sum(one["rows"] for one in counted), "sent": sent, "kept": kept}

    def stop(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)


def seconds(call) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def texts(server: Server, prompts: list[list[int]], tokens: int) -> dict:
    """Greedy answers: one prompt at a time, then all at once."""
    alone = [server.generate(prompt_ids, tokens, return_logprob=True) for prompt_ids in prompts]
    together = server.generate(prompts, tokens)
    return {
        "alone": [one["output_ids"] for one in alone],
        "logprobs": [[entry[0] for entry in one["meta_info"]["output_token_logprobs"]] for one in alone],
        "together": [one["output_ids"] for one in together],
    }


def compare(mine: dict, other: dict) -> dict:
    """How many answers are the same, and how far log-probabilities are apart up to the first difference."""
    apart = 0.0
    for a, b, first, second in zip(mine["alone"], other["alone"], mine["logprobs"], other["logprobs"]):
        same = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), len(a))
        apart = max([apart, *(abs(x - y) for x, y in zip(first[:same], second[:same]))])
    return {
        "of": len(mine["alone"]),
        "alone": sum(a == b for a, b in zip(mine["alone"], other["alone"])),
        "together": sum(a == b for a, b in zip(mine["together"], other["together"])),
        "largestLogprobDifference": apart,
    }


def attempt(servers: list[Server], server: Server, failed: dict, call):
    """A server that fails leaves the list; the others go on."""
    try:
        return call()
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        print(f"{server.name}: {why}\n{server.tail()}", file=sys.stderr, flush=True)
        failed[server.name] = why
        servers.remove(server)
        server.stop()
        return None


def measure(servers: list[Server], prompts: list[list[int]], ranks: int, rounds: int, until: float, failed: dict) -> tuple[dict, dict]:
    short = [ids[:64] for ids in prompts[:128] if len(ids) >= 64]
    long = max(prompts, key=len)
    cases = {
        "prefill": lambda server: server.generate(prompts, 1),
        "decode": lambda server: server.generate(short, DECODE_TOKENS),
        "first": lambda server: server.generate([long], 1),
        "steps": lambda server: server.generate([long[:16]], STEPS),
    }
    times: dict = {server.name: {case: [] for case in cases} for server in servers}
    for turn in range(-1, rounds):
        if time.time() > until:
            break
        begin = turn % len(servers)
        for server in servers[begin:] + servers[:begin]:
            taken = attempt(servers, server, failed, lambda: {case: seconds(lambda: call(server)) for case, call in cases.items()})
            if taken and turn >= 0:
                for case, value in taken.items():
                    times[server.name][case].append(value)
    rows = {}
    for server in list(servers):
        counted = attempt(
            servers, server, failed, lambda: {case: server.count(ranks, lambda: cases[case](server)) for case in ("prefill", "decode")}
        )
        rows[server.name] = counted or {}
    times = {name: one for name, one in times.items() if one["prefill"]}
    sizes = {"promptTokens": sum(map(len, prompts)), "prompts": len(prompts), "decodeRequests": len(short), "longest": len(long)}
    return {"sizes": sizes, "seconds": times}, rows


def report(result: dict) -> None:
    sizes, line = result["sizes"], "{:13} {:>12} {:>12} {:>9} {:>9} {:>10} {:>10}  {}".format
    print(result["machine"])
    print(f"{sizes['prompts']} prompts of {sizes['promptTokens']} tokens together; {sizes['decodeRequests']} requests x {DECODE_TOKENS} tokens decoded")
    print(line("setup", "prompt tok/s", "new tok/s", "first ms", "step ms", "sent pf", "sent dec", "same greedy answers (alone, together)"))
    base = next(iter(result["seconds"]))
    for name, times in result["seconds"].items():
        median = {case: statistics.median(values) for case, values in times.items()}
        shares = ["{:.4f}".format(rows["sent"] / rows["rows"]) for rows in result["rows"].get(name, {}).values()] or ["-", "-"]
        same = result.get("texts", {}).get(name)
        print(
            line(
                name,
                round(sizes["promptTokens"] / median["prefill"]),
                round(sizes["decodeRequests"] * DECODE_TOKENS / median["decode"]),
                f"{median['first'] * 1e3:.2f}",
                f"{median['steps'] * 1e3 / STEPS:.2f}",
                *(shares + ["-"])[:2],
                f"{same['alone']}/{same['of']}, {same['together']}/{same['of']} of {base}; logprob {same['largestLogprobDifference']:.3g}" if same else "void",
            )
        )
    for name, pair in result.get("pairs", {}).items():
        print(f"{name}: {pair['alone']}/{pair['of']} alone, {pair['together']}/{pair['of']} together, logprob {pair['largestLogprobDifference']:.3g}")
    for name, why in result["failed"].items():
        print(f"{name}: did not start: {why}")


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model")
    parser.add_argument("--plan")
    parser.add_argument("--experts")
    parser.add_argument("--text", help="JSON lines with a field text")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--setups", default="sglang,placement,shuffle,shared")
    parser.add_argument("--prompts", type=int, default=192)
    parser.add_argument("--prompt-tokens", type=int, default=1024)
    parser.add_argument("--compared", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--start-seconds", type=float, default=300)
    parser.add_argument("--seconds", type=float, default=3600, help="no new round later than this after the start")
    parser.add_argument("--logs")
    parser.add_argument("--out")
    parser.add_argument("--show")
    parser.add_argument("rest", nargs="*", help="after --: flags for every server")
    arguments = parser.parse_args()
    if arguments.show:
        report(json.loads(Path(arguments.show).read_text()))
        return 0

    # A time limit must not leave servers behind: leave by the way of ``finally``.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))

    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(f"{arguments.model}/tokenizer.json")
    lines = Path(arguments.text).read_text().splitlines()[: arguments.prompts]
    prompts = [tokenizer.encode(json.loads(one)["text"]).ids[: arguments.prompt_tokens] for one in lines]
    with tempfile.TemporaryDirectory() as folder:
        servers, failed = [], {}
        try:
            for index, name in enumerate(arguments.setups.split(",")):
                servers.append(Server(name, arguments, 30000 + index * 1000, Path(folder)))
            until = time.time() + arguments.start_seconds
            begin = time.time()
            for server in list(servers):
                why = server.wait(until)
                print(f"{server.name}: {why or 'started'} after {time.time() - begin:.0f} s", file=sys.stderr, flush=True)
                if why:
                    failed[server.name] = why
                    print(server.tail(), file=sys.stderr, flush=True)
                    servers.remove(server)
                    server.stop()
            if not servers:
                return 1
            compared = [ids[:48] for ids in prompts[: arguments.compared]]
            answers = {}
            for server in list(servers):
                answer = attempt(servers, server, failed, lambda: server.generate(compared, 8) and texts(server, compared, TEXT_TOKENS))
                if answer:
                    answers[server.name] = answer
                    if len(answers) == 1:
                        repeated = compare(texts(server, compared, TEXT_TOKENS), answer)
            print(f"texts after {time.time() - begin:.0f} s", file=sys.stderr, flush=True)
            measured, rows = measure(servers, prompts, arguments.ranks, arguments.rounds, begin + arguments.seconds, failed)
            print(f"measured after {time.time() - begin:.0f} s", file=sys.stderr, flush=True)
            base = answers[next(iter(answers))]
            distinct = len({token for one in base["alone"] for token in one})
            if distinct < 2 * len(base["alone"]):
                print(f"answers have {distinct} different tokens: comparing them says nothing; is the head loaded?", file=sys.stderr)
            import torch

            name, count = torch.cuda.get_device_name(0), arguments.ranks
            placed = answers.get("placement")
            result = {
                "machine": f"{count} x {name}, PyTorch {torch.__version__}, NCCL {'.'.join(map(str, torch.cuda.nccl.version()))}",
                "commands": {server.name: server.command[1:] for server in servers},
                "said": {server.name: server.said() for server in servers},
                **measured,
                "rows": rows,
                "texts": {name: compare(one, base) for name, one in answers.items()},
                "pairs": {
                    f"{next(iter(answers))} asked again": repeated,
                    **{
                        f"{name} against placement": compare(answers[name], placed)
                        for name in ("shuffle", "shared")
                        if name in answers and placed
                    },
                },
                "answers": {
                    name: hashlib.sha256(json.dumps([one["alone"], one["together"]]).encode()).hexdigest()[:16] for name, one in answers.items()
                },
                "distinctTokens": distinct,
                "failed": failed,
            }
        finally:
            for server in servers:
                server.stop()
    report(result)
    if arguments.out:
        Path(arguments.out).write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
