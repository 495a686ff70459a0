"""What the plug-in was written for and what it refuses to run with, each with the reason."""

from __future__ import annotations

import re
from typing import Any

from .errors import SetupError
from .settings import Settings

SGLANG_VERSION = "0.5.17"
"""The one release whose internals the hooks were read from and tested with. Newer ones replaced the layer communicator."""


def check_version(version: str, any_version: bool) -> None:
    """Development suffixes count as another version."""
    if version != SGLANG_VERSION and not any_version:
        raise SetupError(
            f"SGLang {version} is installed; the hooks are for {SGLANG_VERSION}",
            f"install sglang=={SGLANG_VERSION}, or try at your own risk: SMOE_SGLANG_ANY_VERSION=1 (hooks are still verified)",
        )


def check_server(arguments: Any, settings: Settings) -> None:
    """arguments: SGLang's ServerArgs. Raises for the first setup that cannot work or cannot gain."""
    refusals = [
        (arguments.moe_a2a_backend == "none", "--moe-a2a-backend none exchanges every row whatever the placement", "use deepep"),
        (arguments.ep_size < 2, "there is one expert-parallel rank", "set --ep-size to the number of GPUs"),
        (arguments.enable_eplb, "--enable-eplb moves experts away from the plan", "drop it"),
        (arguments.elastic_ep_backend is not None, "elastic expert parallelism moves experts", "drop --elastic-ep-backend"),
    ]
    if settings.shuffle and not arguments.enable_dp_attention:
        whole = arguments.dp_size == 1 and arguments.tp_size == arguments.ep_size
        graphs = arguments.cuda_graph_config
        refusals += [
            (not whole, "the shuffle needs attention-TP over all expert-parallel ranks", "set --tp-size and --ep-size alike, --dp-size 1"),
            (arguments.pp_size > 1, "pipeline stages hand on rows without their order", "use --pp-size 1"),
            (arguments.attn_cp_size > 1, "context parallelism scatters rows itself", "use --attn-cp-size 1"),
            (arguments.enable_two_batch_overlap, "two-batch overlap splits scattered rows", "drop --enable-two-batch-overlap"),
            (arguments.speculative_algorithm is not None, "speculative decoding's draft layers have no table", "drop it"),
            (
                arguments.enable_return_routed_experts,
                "routed experts would be returned in shuffled order",
                "record without the plug-in: SMOE_SGLANG=0",
            ),
            (
                arguments.expert_distribution_recorder_mode in ("per_token", "per_pass"),
                "the expert recorder would write tokens in shuffled order",
                "record without the plug-in: SMOE_SGLANG=0",
            ),
            (arguments.enable_torch_compile, "torch.compile has not been tried with the hooks", "drop --enable-torch-compile"),
            (
                graphs is not None and "tc_piecewise" in (graphs.prefill.backend, graphs.decode.backend),
                "piecewise CUDA graphs compile the model around the hooks",
                "choose another CUDA graph backend",
            ),
        ]
    if places_requests(arguments, settings):
        refusals.append(
            (
                arguments.tokenizer_worker_num > 1,
                "requests are placed in the tokenizer's process and there are several",
                "use --tokenizer-worker-num 1, or SMOE_SGLANG_REQUESTS=0",
            )
        )
    for refused, message, hint in refusals:
        if refused:
            raise SetupError(message, hint)


def shuffles(arguments: Any, settings: Settings) -> bool:
    """With attention-DP tokens stay where their request is, so there is nothing to shuffle."""
    return settings.shuffle and not arguments.enable_dp_attention


def places_requests(arguments: Any, settings: Settings) -> bool:
    return settings.requests and arguments.enable_dp_attention and arguments.dp_size > 1


def first_dense_layers(config: Any) -> int:
    """Dense layers before the sparse ones, from a Hugging Face config; other arrangements are refused."""
    config = getattr(config, "text_config", config)
    scattered = getattr(config, "mlp_only_layers", None) or getattr(config, "decoder_sparse_step", 1) != 1
    step = getattr(config, "moe_layer_freq", 1)
    if isinstance(step, list):
        pattern = "".join(str(int(bool(sparse))) for sparse in step)
        if re.fullmatch("0*1+", pattern):
            return pattern.count("0")
        scattered = True
    elif step != 1:
        scattered = True
    if scattered:
        raise SetupError("the model has dense layers between sparse ones", "the plug-in does not support it")
    return getattr(config, "first_k_dense_replace", 0) or 0
