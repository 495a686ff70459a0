"""Where the kernels run in the tests: on a GPU when there is one, else interpreted on the CPU (conftest.py sets that up)."""

import os


def kernel_device() -> str:
    return "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"
