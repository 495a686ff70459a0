"""The commands of docs/deepspeed.md, as a user runs them: an unchanged script, with and without the environment variable."""

import os
import subprocess
import sys

import demo


def launch(*command: str, **environment: str) -> tuple[str, str]:
    folder = demo.ROOT / "integrations" / "deepspeed"
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "4", *command],
        cwd=demo.ROOT,
        env={**os.environ, "PYTHONPATH": str(folder), "DS_ACCELERATOR": "cpu", **environment},
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout.strip().splitlines()[-1], done.stdout + done.stderr


def test_an_unchanged_script_gives_the_same_tokens():
    script = ["integrations/deepspeed/examples/generate.py", "--new-tokens", "4"]
    tokens, log = launch("-m", "smoe_deepspeed", *script, SMOE_DEEPSPEED_PLAN=str(demo.PLAN))
    assert "smoe_deepspeed: on in 8 layers, predictor token, dispatch send" in log
    assert tokens.startswith("sha256 of the token ids")
    plain, log = launch(*script)
    assert plain == tokens and "smoe_deepspeed" not in log
