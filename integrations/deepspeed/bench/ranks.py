"""Runs a program on several ranks of this machine and brings back what it returns. Also used by the tests."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import time
import traceback
from multiprocessing.connection import wait
from typing import Any, Callable

import torch
import torch.multiprocessing as multiprocessing


def run_ranks(
    program: Callable[..., Any], ranks: int, *arguments: Any, backend: str = "gloo", one_device: bool = False, timeout: float = 1800
) -> list[Any]:
    """[ranks] what `program(rank, *arguments)` returned on each. The first failure ends all ranks and is raised.

    gloo: forked, so that modules and a model loaded by the caller are shared. nccl: spawned, one GPU a rank, or all on the first with
    `one_device`.
    """
    context = multiprocessing.get_context("fork" if backend == "gloo" else "spawn")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    processes, pipes = [], {}
    try:
        for rank in range(ranks):
            mine, theirs = context.Pipe()
            process = context.Process(target=_rank_main, args=(theirs, program, rank, ranks, port, backend, one_device, arguments), daemon=True)
            process.start()
            theirs.close()
            processes.append(process)
            pipes[mine] = rank
        results: list[Any] = [None] * ranks
        deadline = time.monotonic() + timeout
        while pipes:
            ready = wait(list(pipes), timeout=max(0.0, deadline - time.monotonic()))
            if not ready:
                raise TimeoutError(f"ranks {sorted(pipes.values())} did not answer within {timeout} s")
            for pipe in ready:
                rank = pipes.pop(pipe)
                try:
                    error, results[rank] = pipe.recv()
                except EOFError:
                    error = "the process ended without an answer"
                if error is not None:
                    raise RuntimeError(f"rank {rank}: {error}")
        return results
    finally:
        for process in processes:
            process.terminate() if process.is_alive() and pipes else None
            process.join(timeout=20)
            if process.is_alive():
                process.kill()


def _rank_main(pipe: Any, program: Callable[..., Any], rank: int, ranks: int, port: int, backend: str, one_device: bool, arguments: tuple[Any, ...]) -> None:
    # End with the parent, however it ends (Linux: PR_SET_PDEATHSIG).
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
    device = 0 if one_device else rank
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(device), WORLD_SIZE=str(ranks), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    if one_device:
        # NCCL refuses two ranks on one device unless it takes them for different hosts.
        os.environ.update(NCCL_HOSTID=f"rank{rank}", NCCL_SOCKET_IFNAME="lo", NCCL_IB_DISABLE="1")
    try:
        prepare_deepspeed(backend)
        import deepspeed

        if backend == "nccl":
            torch.cuda.set_device(device)
        else:
            torch.set_num_threads(1)
        deepspeed.init_distributed(dist_backend=backend, verbose=False)
        result = program(rank, *arguments)
        torch.distributed.barrier()
        pipe.send((None, result))
        torch.distributed.destroy_process_group()
    except BaseException:
        pipe.send((traceback.format_exc(), None))


def prepare_deepspeed(backend: str) -> None:
    """Imports DeepSpeed for `backend`, quietly and without compiling anything."""
    if backend == "gloo":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import logging

    import deepspeed.ops
    from deepspeed.utils import logger

    logger.setLevel(logging.WARNING)
    # On a CPU DeepSpeed compiles a shared-memory all-reduce at first use, which wants a compiler and a minute; gloo does it too.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
