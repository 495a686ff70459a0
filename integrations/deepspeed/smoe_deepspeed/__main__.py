"""Runs a script unchanged, with `deepspeed.initialize` turning Speculative MoE on when SMOE_DEEPSPEED_PLAN is set.

torchrun --nproc-per-node 4 -m smoe_deepspeed script.py ARGUMENTS
"""

import runpy
import sys

from .speculative import hook_initialize


def main() -> None:
    if len(sys.argv) < 2:
        sys.exit("usage: python -m smoe_deepspeed SCRIPT [ARGUMENT ...]")
    hook_initialize()
    del sys.argv[0]
    runpy.run_path(sys.argv[0], run_name="__main__")


main()
