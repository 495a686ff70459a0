"""The entry point ``sglang.srt.plugins`` finds. SGLang calls ``register`` in the main process and in every scheduler, before anything
is built; while SMOE_SGLANG is not 1 it returns at once."""

from __future__ import annotations

import logging
import os
from typing import Any

import numpy

from .copies import check_dispatch, held_copies, owner_first
from .errors import SetupError
from .hooks import Hook, register as register_hooks
from .placement import check_expert_location, sparse_layers
from .plan import Plan, read_plan
from .requests import RequestPlacer
from .settings import Settings
from .supported import check_server, check_version, first_dense_layers, places_requests, shuffles

logger = logging.getLogger(__name__)

_COMMUNICATOR = "sglang.srt.layers.communicator"
_SCATTER = ("hidden_states", "residual", "forward_batch", "layernorm", "context", "residual_input_mode")


def register() -> None:
    """Exits the process when switched on and unable to work: SGLang would go on without it otherwise."""
    try:
        settings = Settings.from_environment(os.environ)
        if settings is None:
            return
        from importlib.metadata import version

        check_version(version("sglang"), settings.any_version)
        from sglang.srt.plugins.hook_registry import HookRegistry, HookType

        register_hooks(Plugin(settings, read_plan(settings.plan)).hooks(), HookRegistry, HookType)
    except SetupError as error:
        raise SystemExit(str(error)) from error


class Plugin:
    """One per process."""

    def __init__(self, settings: Settings, plan: Plan) -> None:
        self.settings, self.plan = settings, plan
        self._shuffle: Any = None
        self._placer: RequestPlacer | None = None

    def hooks(self) -> list[Hook]:
        hooks = [Hook("sglang.srt.model_executor.model_runner.ModelRunner.load_model", "AFTER", self.after_load, ("self",))]
        if self.settings.owner_first:
            target = "sglang.srt.eplb.expert_location.ExpertLocationMetadata.init_by_mapping"
            parameters = ("server_args", "model_config", "physical_to_logical_map", "moe_ep_rank")
            hooks.append(Hook(target, "AFTER", self.after_expert_location, parameters))
        if self.settings.shuffle:
            norm, pair = f"{_COMMUNICATOR}.CommunicateWithAllReduceAndLayerNormFn", f"{_COMMUNICATOR}.CommunicateSummableTensorPairFn"
            simple = f"{_COMMUNICATOR}.CommunicateSimpleFn"
            for target, name, parameters in (
                (f"{norm}._scatter_hidden_states_and_residual", "scatter", _SCATTER),
                (f"{norm}._gather_hidden_states_and_residual", "gather_residual", _SCATTER),
                (f"{simple}._scattered_to_tp_attn_full", "gather_for_attention", ("hidden_states", "forward_batch", "context")),
                (f"{pair}._gather", "gather_output", ("hidden_states", "residual", "forward_batch", "context", "kwargs")),
            ):
                hooks.append(Hook(target, "AROUND", self._delegate(name), parameters))
        if self.settings.requests:
            target = "sglang.srt.managers.tokenizer_manager.TokenizerManager._dispatch_to_scheduler"
            hooks.append(Hook(target, "BEFORE", self.before_dispatch, ("self", "obj")))
        return hooks

    def _delegate(self, name: str):
        def hook(original, *arguments, **named):
            # Without a shuffle (attention-DP) SGLang's own path stays as it is.
            if self._shuffle is None:
                return original(*arguments, **named)
            return getattr(self._shuffle, name)(original, *arguments, **named)

        return hook

    def _layers(self, model: Any) -> range:
        """model: SGLang's ModelConfig."""
        return sparse_layers(model.num_hidden_layers, self.plan, first_dense_layers(model.hf_config))

    def after_expert_location(
        self, location: Any, server_args: Any, model_config: Any, physical_to_logical_map: Any, moe_ep_rank: int | None = None
    ) -> None:
        """Writes the plan's choice among copies into the table by which SGLang sends tokens of this rank to experts."""
        import torch

        table = None if location is None else location.logical_to_rank_dispatch_physical_map
        if table is None or moe_ep_rank is None:
            # A setup without such a table: ``after_load`` says so where there are copies.
            return
        experts, layers = location.physical_to_logical_map_cpu.numpy(), self._layers(model_config)
        check_expert_location(experts, location.ep_size, self.plan, layers)
        chosen = owner_first(experts, location.ep_size, moe_ep_rank, self.plan, layers)
        table[layers.start : layers.stop] = torch.from_numpy(chosen).to(table)

    def after_load(self, result: Any, runner: Any) -> None:
        """In a scheduler, once the model is there: checks the setup and the placement, and sets the shuffle up."""
        from sglang.srt.eplb.expert_location import get_global_expert_location_metadata

        arguments = runner.server_args
        check_server(arguments, self.settings)
        model = runner.model_config
        if model.vocab_size < self.plan.vocabulary:
            raise SetupError(
                f"the plan knows {self.plan.vocabulary} token ids, the model {model.vocab_size}", "use a plan made for this model"
            )
        location = get_global_expert_location_metadata()
        if location is None:
            raise SetupError("SGLang keeps no expert locations for this model", "this model class cannot take a placement")
        layers = self._layers(model)
        experts = location.physical_to_logical_map_cpu.numpy()
        check_expert_location(experts, arguments.ep_size, self.plan, layers)
        copies = self._check_copies(location, experts, runner.ps.moe_ep_rank, layers)
        if shuffles(arguments, self.settings):
            self._shuffle = self._token_shuffle(runner)
        logger.info(
            "smoe_sglang: on. Experts of %d layers are where %s says; copies: %s; shuffle %s; requests %s.",
            len(layers),
            self.settings.plan,
            copies,
            f"on ({self.settings.collectives})" if self._shuffle is not None else "off",
            "placed" if places_requests(arguments, self.settings) else "not placed",
        )

    def _check_copies(self, location: Any, experts: numpy.ndarray, rank: int, layers: range) -> str:
        """Reads SGLang's dispatch table back; what to log about copies."""
        if experts.shape[1] == self.plan.experts:
            return "none"
        if not self.settings.owner_first:
            return "SGLang's choice"
        table = location.logical_to_rank_dispatch_physical_map
        if table is None:
            raise SetupError(
                "SGLang keeps no dispatch table, so copies of experts would serve at random",
                "start SGLang with --ep-dispatch-algorithm static, or leave copies to SGLang: SMOE_SGLANG_OWNER_FIRST=0",
            )
        check_dispatch(table.cpu().numpy(), experts, location.ep_size, rank, self.plan, layers)
        return "at home, else the owner (%d of the plan's %d held)" % held_copies(experts, location.ep_size, self.plan, layers)

    def _token_shuffle(self, runner: Any):
        import torch
        from sglang.srt.layers.communicator import ScatterMode
        from sglang.srt.layers.dp_attention import attn_tp_all_gather_into_tensor, attn_tp_reduce_scatter_tensor
        from sglang.srt.runtime_context import get_parallel

        from .collectives import LibraryCollectives, SharedMemoryCollectives
        from .kernels.assignment import pack_entries
        from .shuffle import TokenShuffle

        parallel = get_parallel()
        rank, ranks = parallel.attn_tp_rank, parallel.attn_tp_size
        devices, confidences = self.plan.token_predictions(ranks)
        table = pack_entries(torch.from_numpy(devices), torch.from_numpy(confidences)).to(runner.device)
        if self.settings.collectives == "shared":
            arguments = runner.server_args
            tokens = max(arguments.chunked_prefill_size or 0, arguments.max_prefill_tokens, ranks)
            collectives = SharedMemoryCollectives(
                parallel.attn_tp_group.device_group, -(-tokens // ranks) * ranks, runner.model_config.hidden_size, runner.dtype, table.device
            )
        else:
            collectives = LibraryCollectives(ranks, attn_tp_reduce_scatter_tensor, attn_tp_all_gather_into_tensor)
        return TokenShuffle(table, rank, ranks, collectives, ScatterMode.SCATTERED)

    def before_dispatch(self, manager: Any, obj: Any) -> None:
        """In the tokenizer's process: chooses the rank of requests that come without one."""
        from sglang.srt.managers.io_struct import BatchTokenizedGenerateReqInput, TokenizedGenerateReqInput

        if not places_requests(manager.server_args, self.settings):
            return
        if isinstance(obj, BatchTokenizedGenerateReqInput):
            requests = obj.batch
        elif isinstance(obj, TokenizedGenerateReqInput):
            requests = [obj]
        else:
            return
        if self._placer is None:
            self._placer = RequestPlacer(self.plan.needs_by_rank(manager.server_args.dp_size), self.settings.load_bound)
        for request in requests:
            if request.routed_dp_rank is not None:
                self._placer.note(request.rid, request.routed_dp_rank)
            elif request.input_ids is not None:
                request.routed_dp_rank = self._placer.place(request.rid, request.input_ids, manager.rid_to_state)
