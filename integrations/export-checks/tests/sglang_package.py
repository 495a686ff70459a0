"""The published SGLang package, made importable beside a newer transformers than it pins, on a CPU."""

from __future__ import annotations

from types import SimpleNamespace

from transformers.models.auto import configuration_auto

# SGLang 0.5.17 registers model types that transformers has had since: registering twice is all right.
_register = configuration_auto._LazyConfigMapping.register
configuration_auto._LazyConfigMapping.register = lambda self, key, value, exist_ok=False: _register(self, key, value, exist_ok=True)

from sglang.srt.eplb import expert_distribution, expert_location, expert_location_dispatch  # noqa: E402
from sglang.srt.model_executor.forward_batch_info import ForwardMode as forward_modes  # noqa: E402

__all__ = ["engine_context", "expert_distribution", "expert_location", "expert_location_dispatch", "forward_modes"]


def engine_context(monkeypatch, *, ep_size, layers, experts, **moe):
    """What a server's flags and process groups tell SGLang's placement code; the code itself is untouched."""
    settings = SimpleNamespace(
        **{
            "ep_num_redundant_experts": 0,
            "ep_dispatch_algorithm": "static",
            "moe_a2a_backend": "deepep",
            "ep_join_mode": None,
            "init_expert_location": "trivial",
            **moe,
        }
    )
    parallel = SimpleNamespace(ep_size=ep_size, nnodes=1, tp_size=ep_size, elastic_ep_initial_size=None, ep_join_rank_offset=0)
    import sglang.srt.runtime_context as runtime_context

    for module in (runtime_context, expert_location, expert_location_dispatch):
        for name, value in (("get_exec", SimpleNamespace(moe=settings)), ("get_parallel", parallel)):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, lambda value=value: value)
    monkeypatch.setattr(expert_location, "_prefer_same_node_experts", lambda: True)
    monkeypatch.setattr(
        expert_location.ModelConfigForExpertLocation,
        "from_model_config",
        staticmethod(lambda _: expert_location.ModelConfigForExpertLocation(num_layers=layers, num_logical_experts=experts)),
    )
    return SimpleNamespace(device="cpu", tp_size=ep_size, init_expert_location=settings.init_expert_location, eplb_algorithm="auto")
