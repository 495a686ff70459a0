"""Turning Speculative MoE on and off in a model under DeepSpeed AutoEP."""

from __future__ import annotations

import os
import sys
import weakref
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Callable, Iterator, Literal

import deepspeed.comm as dist
import torch
from deepspeed.module_inject.auto_ep_comm import COMM_BACKEND
from deepspeed.module_inject.auto_ep_layer import AutoEPMoELayer
from deepspeed.runtime.zero.utils import is_zero_param
from deepspeed.utils import logger
from torch import Tensor, nn

from . import exchange
from .counters import dist_device
from .errors import SmoeError
from .fingerprint import Checkpoint, fingerprint
from .homes import HomePredictor, Slices, contiguous_slices
from .placement import place, placed_order
from .plan import Plan, read_plan

TESTED_DEEPSPEED = "0.19.8"
#: Largest difference of an output of a MoE layer at start-up, as a share of the layer's largest. In 16 bits it is unmodified AutoEP that rounds
#: after every expert.
PROBE_TOLERANCE = {torch.float16: 1e-2, torch.bfloat16: 5e-2}

Dispatch = Literal["send", "reuse"]


@dataclass
class Status:
    """What the hooks have done since `enable`."""

    layers: int
    predictor: str
    dispatch: Dispatch
    forwards: int = 0
    """MoE layer calls that ran here."""
    stock_forwards: int = 0
    """MoE layer calls left to DeepSpeed, because gradients were wanted."""
    unpredicted_forwards: int = 0
    """MoE layer calls without the token ids: slices by index, more bytes, same outputs."""
    probe_difference: float | None = None
    """Largest difference between a MoE layer's unmodified and this output for the same input at start-up, as a share of the largest output."""


class _Runtime:
    """The hooks of one model."""

    def __init__(self, module: nn.Module, layers: list[AutoEPMoELayer], predictor: HomePredictor, dispatch: Dispatch):
        self.layers = layers
        self.predictor = predictor
        self.status = Status(len(layers), predictor.predictor, dispatch)
        self.slices: list[Slices] | None = None
        self.undo: list[Callable[[], None]] = []
        self._module = weakref.ref(module)

    def install(self) -> None:
        handle = self._module().register_forward_pre_hook(self._see_token_ids, with_kwargs=True)
        self.undo.append(handle.remove)
        handle = self._module().register_forward_hook(self._forget_token_ids, always_call=True)
        self.undo.append(handle.remove)
        for index, layer in enumerate(self.layers):
            layer._forward = self._forward_of(layer, index)
            self.undo.append(lambda layer=layer: delattr(layer, "_forward"))

    def remove(self) -> None:
        while self.undo:
            self.undo.pop()()

    def _see_token_ids(self, _module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        ids = named.get("input_ids", arguments[0] if arguments else None)
        usable = torch.is_tensor(ids) and not ids.is_floating_point()
        self.slices = self.predictor.predict(ids) if usable else None

    def _forget_token_ids(self, *_: Any) -> None:
        self.slices = None

    def _forward_of(self, layer: AutoEPMoELayer, index: int) -> Callable[[Tensor], Any]:
        stock = type(layer)._forward

        def forward(hidden_states: Tensor) -> Any:
            if torch.is_grad_enabled() and (hidden_states.requires_grad or layer.router.gate.weight.requires_grad):
                self.status.stock_forwards += 1
                return stock(layer, hidden_states)
            self.status.forwards += 1
            return self._run(layer, index, hidden_states)

        return forward

    def _run(self, layer: AutoEPMoELayer, index: int, hidden_states: Tensor) -> Any:
        """[B, S, H] -> as AutoEPMoELayer._forward, whose routing and final steps these are."""
        batch, length, width = hidden_states.shape
        hidden = hidden_states.reshape(-1, width)
        scores, selected, tokens_per_expert = layer.router(hidden, layer.expert_bias)
        layer.tokens_per_expert.add_(tokens_per_expert)
        routing = exchange.Routing.of(selected, scores)

        slices, tensor_rank = self._slices_of(layer, index, hidden)
        mine = slices.of(tensor_rank)
        local_experts = layer.num_local_experts
        if self.status.dispatch == "reuse":
            arrivals = exchange.reuse_rows(hidden, routing, slices, tensor_rank, local_experts)
        else:
            arrivals = exchange.send_rows(hidden[mine], routing.take(mine), layer, local_experts)
        sums = exchange.partial_sums(arrivals, layer, local_experts).to(hidden.dtype)
        home = exchange.return_sums(sums, arrivals, mine.shape[0], layer).to(hidden.dtype)
        if len(slices.sizes) > 1:
            home = exchange.gather_slices(home, slices, layer)
        return layer._finalize_output(home.reshape(batch, length, width), hidden, hidden_states, width)

    def _slices_of(self, layer: AutoEPMoELayer, index: int, hidden: Tensor) -> tuple[Slices, int]:
        ranks, rank = _tensor_group(layer)
        if self.slices is not None and self.slices[index].order.shape[0] == hidden.shape[0]:
            return self.slices[index], rank
        if ranks > 1:
            self.status.unpredicted_forwards += 1
            if self.status.unpredicted_forwards == 1:
                logger.warning(
                    "smoe_deepspeed: the model was called without input_ids of its tokens; slicing by index, which moves "
                    "more bytes and gives the same outputs"
                )
        return contiguous_slices(hidden.shape[0], ranks, hidden.device), rank


_runtimes: "weakref.WeakKeyDictionary[nn.Module, _Runtime]" = weakref.WeakKeyDictionary()


def enable(
    engine: Any,
    plan: Plan | str | Path,
    *,
    checkpoint: str | Path | None = None,
    predictor: str = "token",
    dispatch: Dispatch = "send",
    verify_checkpoint: bool = True,
    probe: Callable[[], Any] | None = None,
) -> Status:
    """Places experts as `plan` says and keeps tokens by predicted device, from the next forward pass on. For inference.

    A collective: every rank calls it, with the same arguments, after `deepspeed.initialize`.

    plan: a plan, a plan file, or what `smoe export --to deepspeed` wrote (placement alone: predictor `index`).
    engine: what `deepspeed.initialize` returned first, or its module, with `expert_parallel` enabled.
    checkpoint: the directory the model was loaded from; else where transformers says it was.
    predictor: `token` (token table), `transition` (homes in the layers before) or `index` (no prediction, to compare with).
    dispatch: `send` rows to the ranks of their experts; or `reuse`, where tensor and expert ranks are the same: every rank holds
        all rows already, so nothing is sent. `reuse` relies on all ranks routing alike, as unmodified AutoEP does.
    verify_checkpoint: False accepts a plan whose model cannot be told (made from a server's traces).
    probe: runs the model on a few tokens, the same each time; else it is called with a few `input_ids`.

    Raises SmoeError, leaving the model as it was, unless plan and model fit and the probe shows that the hooks run in every layer and change no output.
    """
    module = _module_of(engine)
    if isinstance(plan, (str, Path)):
        plan = read_plan(plan)
    if module in _runtimes:
        raise SmoeError("ALREADY_ENABLED", "Speculative MoE is on in this model", "call smoe_deepspeed.disable first")
    layers = _check(engine, module, plan, dispatch)
    if verify_checkpoint:
        _check_checkpoint(module, layers, plan, checkpoint)
    orders = [placed_order(plan, layer) for layer in range(plan.layers)]
    peers = _peer_devices(layers[0])
    runtime = _Runtime(module, layers, HomePredictor(plan, peers, predictor, layers[0].router.gate.weight.device), dispatch)
    probe = probe or (lambda: _probe(module, plan, layers[0]))
    was_training = module.training
    module.eval()
    try:
        with torch.no_grad():
            with _recorded(layers) as before:
                probe()
            for layer, order in zip(layers, orders):
                runtime.undo.append(place(layer, order))
            runtime.install()
            with _recorded(layers, before) as after:
                probe()
        _check_probe(runtime.status, before, after)
    except BaseException:
        runtime.remove()
        raise
    finally:
        module.train(was_training)
    runtime.status.forwards = 0
    runtime.status.unpredicted_forwards = 0
    _runtimes[module] = runtime
    if dist.get_rank() == 0:
        # Not through DeepSpeed's logger, which shows warnings only.
        print(
            f"smoe_deepspeed: on in {len(layers)} layers, predictor {predictor}, dispatch {dispatch}, plan {plan.where}; largest "
            f"difference of a layer's output at start-up {runtime.status.probe_difference:.1e} of the largest output",
            file=sys.stderr,
        )
    return runtime.status


def disable(engine: Any) -> None:
    """Takes the hooks out and puts every expert back where it was; a collective. No effect where it is not on."""
    runtime = _runtimes.pop(_module_of(engine), None)
    if runtime is not None:
        with torch.no_grad():
            runtime.remove()


def status(engine: Any) -> Status | None:
    """None where it is not on."""
    runtime = _runtimes.get(_module_of(engine))
    return None if runtime is None else runtime.status


def initialize(*positional: Any, **named: Any) -> tuple[Any, ...]:
    """`deepspeed.initialize`, followed by `enable` when the environment names a plan:

    SMOE_DEEPSPEED_PLAN (a file; unset: nothing is changed), SMOE_DEEPSPEED_CHECKPOINT, SMOE_DEEPSPEED_PREDICTOR,
    SMOE_DEEPSPEED_DISPATCH.
    """
    import deepspeed

    made = _stock_initialize(deepspeed)(*positional, **named)
    plan = os.environ.get("SMOE_DEEPSPEED_PLAN")
    if plan:
        enable(
            made[0],
            plan,
            checkpoint=os.environ.get("SMOE_DEEPSPEED_CHECKPOINT") or None,
            predictor=os.environ.get("SMOE_DEEPSPEED_PREDICTOR") or "token",
            dispatch=os.environ.get("SMOE_DEEPSPEED_DISPATCH") or "send",
        )
    return made


def hook_initialize() -> None:
    """Makes `deepspeed.initialize` this package's, for scripts that are not to be changed (`python -m smoe_deepspeed`)."""
    import deepspeed

    if deepspeed.initialize is not initialize:
        initialize.stock = deepspeed.initialize
        deepspeed.initialize = initialize


def _stock_initialize(deepspeed: Any) -> Callable[..., tuple[Any, ...]]:
    return getattr(initialize, "stock", deepspeed.initialize)


def _module_of(engine: Any) -> nn.Module:
    module = getattr(engine, "module", engine)
    if not isinstance(module, nn.Module):
        raise SmoeError("NOT_A_MODEL", f"{type(engine).__name__} is neither a DeepSpeed engine nor a module")
    return module


def _check(engine: Any, module: nn.Module, plan: Plan, dispatch: str) -> list[AutoEPMoELayer]:
    """The AutoEP layers, once everything fits."""
    installed = version("deepspeed")
    if installed != TESTED_DEEPSPEED:
        logger.warning(f"smoe_deepspeed: DeepSpeed {installed} is installed, {TESTED_DEEPSPEED} was tested; the start-up probe decides")
    layers = [submodule for submodule in module.modules() if isinstance(submodule, AutoEPMoELayer)]
    if not layers:
        raise SmoeError(
            "NO_AUTOEP_LAYERS",
            "the model has no AutoEP layer: call enable after deepspeed.initialize with expert_parallel enabled",
            "deepspeed.moe.layer.MoE pads every expert to one capacity and cannot gain from a plan (docs/deepspeed.md)",
        )
    if getattr(engine, "optimizer", None) is not None:
        raise SmoeError("TRAINING", "the engine has an optimizer, whose copies of the weights would no longer match", "initialize without one")
    for index, layer in enumerate(layers):
        for name, ours, theirs in (
            ("experts", plan.experts, layer.num_experts),
            ("experts per token", plan.top_k, layer.top_k),
            ("expert-parallel ranks", plan.devices, layer.ep_size),
        ):
            if ours != theirs:
                raise SmoeError("PLAN_MISMATCH", f"{plan.where} is for {ours} {name}, MoE layer {index} has {theirs}", "solve a plan for this model and number of ranks")
        if any(is_zero_param(weight) for weight in layer.experts.parameters()):
            raise SmoeError("ZERO_3", "experts are partitioned by ZeRO stage 3", "use stage 0, 1 or 2 for inference")
        if layer.comm_backend != COMM_BACKEND:
            raise SmoeError("UNSUPPORTED_BACKEND", f"comm_backend {layer.comm_backend!r}", 'set expert_parallel.comm_backend to "comm"')
    if len(layers) != plan.layers:
        raise SmoeError("PLAN_MISMATCH", f"{plan.where} is for {plan.layers} MoE layers, the model has {len(layers)}", "solve a plan for this model")
    vocabulary = getattr(getattr(module, "config", None), "vocab_size", None)
    if vocabulary is not None and plan.vocabulary_size not in (0, vocabulary):
        raise SmoeError("PLAN_MISMATCH", f"{plan.where} is for a vocabulary of {plan.vocabulary_size}, the model's is {vocabulary}")
    if layers[0].ep_size == 1:
        raise SmoeError("ONE_RANK", "autoep_size is 1: nothing is exchanged, so nothing can be saved")
    if any(copies for of_layer in plan.replicas for copies in of_layer):
        logger.warning("smoe_deepspeed: DeepSpeed holds no copies of experts; the plan's replicas are left out, and its promise is not reached")
    if dispatch not in ("send", "reuse"):
        raise SmoeError("DISPATCH_UNKNOWN", f"dispatch {dispatch!r}; known are send, reuse")
    if dispatch == "reuse" and _peer_devices(layers[0]) != list(range(layers[0].ep_size)):
        raise SmoeError("DISPATCH_UNUSABLE", "dispatch reuse needs the tensor group and the expert-parallel group to be the same ranks", "use dispatch send")
    return layers


def _check_checkpoint(module: nn.Module, layers: list[AutoEPMoELayer], plan: Plan, directory: str | Path | None) -> None:
    """The plan is for the checkpoint, and the checkpoint's routers are the model's."""
    if directory is None:
        directory = getattr(getattr(module, "config", None), "_name_or_path", "") or ""
    if not directory or not Path(directory).is_dir():
        raise SmoeError(
            "CHECKPOINT_UNKNOWN",
            f"cannot tell which checkpoint the model is: {str(directory)!r} is no directory",
            "pass checkpoint=DIRECTORY, or verify_checkpoint=False if you are sure",
        )
    found = fingerprint(directory)
    if found != plan.model_fingerprint:
        raise SmoeError(
            "PLAN_FOR_ANOTHER_MODEL",
            f"{plan.where} is for model {plan.model_fingerprint}, {directory} is {found}",
            "solve a plan from traces of this checkpoint",
        )
    stored = Checkpoint(directory)
    for index, layer in enumerate(layers):
        weight = layer.router.gate.weight.detach()
        if not torch.equal(weight.cpu(), torch.from_numpy(stored.router(index).copy()).to(weight.dtype)):
            raise SmoeError(
                "PLAN_FOR_ANOTHER_MODEL",
                f"the router of MoE layer {index} differs from the one in {directory}: the model was trained or changed after loading",
                "save the model and solve a plan from traces of it",
            )


def _tensor_group(layer: AutoEPMoELayer) -> tuple[int, int]:
    """Size of the tensor group and this rank in it."""
    handles = layer.folding_group_handles
    if handles is None or handles.spec.tp_size == 1:
        return 1, 0
    return handles.spec.tp_size, dist.get_rank(group=layer.tp_group)


def _peer_devices(layer: AutoEPMoELayer) -> list[int]:
    """[tp] expert-parallel rank, that is plan device, of every rank of the tensor group."""
    handles = layer.folding_group_handles
    if handles is None or handles.spec.tp_size == 1:
        return [layer.ep_rank]
    # Expert groups are runs of consecutive ranks (deepspeed/module_inject/auto_ep_folding.py, expected_folding_group_tables).
    return [rank % handles.spec.stage_size % layer.ep_size for rank in handles.tp_ranks]


def _probe(module: nn.Module, plan: Plan, layer: AutoEPMoELayer) -> None:
    """Runs 4 G + 1 token ids, so that not all slices can be full."""
    vocabulary = plan.vocabulary_size or module.config.vocab_size
    count = 4 * layer.ep_size + 1
    ids = torch.arange(count, device=layer.router.gate.weight.device)[None] * (vocabulary // count)
    try:
        module(input_ids=ids, use_cache=False)
    except (TypeError, AttributeError) as error:
        raise SmoeError("PROBE_FAILED", f"cannot run the model with input_ids alone: {error}", "pass probe=FUNCTION") from error


@contextmanager
def _recorded(layers: list[AutoEPMoELayer], inputs_of: list[tuple[Tensor, Tensor]] | None = None) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Input and output of every MoE layer in the forward pass inside the block. With `inputs_of`, each layer is given the
    input it had there, so that what it adds is not hidden, or blown up, by the layers before it."""
    records: list[tuple[Tensor, Tensor]] = []
    handles = []
    for index, layer in enumerate(layers):
        if inputs_of is not None:
            handles.append(layer.register_forward_pre_hook(lambda _layer, _arguments, index=index: (inputs_of[index][0],)))
        handles.append(layer.register_forward_hook(lambda _layer, arguments, output: records.append((arguments[0], _first(output)))))
    try:
        yield records
    finally:
        for handle in handles:
            handle.remove()


def _first(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


def _check_probe(status: Status, before: list[tuple[Tensor, Tensor]], after: list[tuple[Tensor, Tensor]]) -> None:
    problem = None
    if not status.forwards == len(before) == len(after) == status.layers:
        problem = f"the hooks ran in {status.forwards} of {status.layers} MoE layers"
    elif status.unpredicted_forwards:
        problem = f"token ids did not reach {status.unpredicted_forwards} MoE layers"
    else:
        differences = [
            ((ours - stock).abs().max() / stock.abs().max().clamp(min=1e-30)).item() for (_, stock), (_, ours) in zip(before, after)
        ]
        tolerance = PROBE_TOLERANCE.get(before[0][1].dtype, 1e-5)
        wrong = next((layer for layer, difference in enumerate(differences) if not difference <= tolerance), None)
        status.probe_difference = max(differences)
        if wrong is not None:
            problem = f"an output of MoE layer {wrong} changed by {differences[wrong]:.3g} of the largest, for the same input"
    # Every rank raises or none, so that no rank waits for the others.
    failed = torch.tensor([problem is not None], dtype=torch.int32, device=dist_device())
    dist.all_reduce(failed, op=dist.ReduceOp.MAX)
    if failed.item():
        raise SmoeError(
            "HOOKS_NOT_APPLIED",
            problem or "the start-up probe failed on another rank",
            f"DeepSpeed {version('deepspeed')} is installed, {TESTED_DEEPSPEED} was tested",
        )
