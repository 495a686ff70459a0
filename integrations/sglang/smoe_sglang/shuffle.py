"""The shuffle inside SGLang's layer communicator (srt/layers/communicator.py of the pinned release).

With an all-to-all back end SGLang scatters a layer's rows over the attention-TP ranks before the sparse layer, leaves the
residual there, and gathers rows only for attention. So one permutation per forward pass costs no exchange: it is computed where the
residual is first scattered, applied inside every reduce-scatter, and undone inside every gather. Attention, positions and the KV cache
see the original order throughout; padding keeps its places, as SGLang counts it off the end of each rank's rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from .collectives import ShuffledCollectives
from .errors import SetupError
from .kernels.assignment import AssignmentBuffers, assign
from .kernels.rows import gather_rows

_ATTRIBUTE = "_smoe_shuffle"


@dataclass
class Shuffle:
    """T = tokens, C = T / ranks. order, position: [T] int32 (kernels/assignment.py); mine: [C] int32, this rank's tokens."""

    order: torch.Tensor
    position: torch.Tensor
    mine: torch.Tensor


class TokenShuffle:
    """Hooks for one process. token_table: [V] int16 on the device (``pack_entries``); rank: this one of ``ranks`` in attention TP."""

    def __init__(self, token_table: torch.Tensor, rank: int, ranks: int, collectives: ShuffledCollectives, scattered: Any) -> None:
        self._token_table, self._rank, self._ranks = token_table, rank, ranks
        self._collectives = collectives
        # SGLang's ScatterMode.SCATTERED and TP_ATTN_FULL, passed in so that this file needs no SGLang to import.
        self._scattered = scattered
        self.passes = 0

    def begin(self, forward_batch: Any, tokens: int) -> Shuffle:
        """Computes the permutation of a forward pass and leaves it on the batch.

        Recomputed on every pass, never kept: under a CUDA graph the launches must be in the graph.
        """
        ids = forward_batch.input_ids
        if ids is None:
            # Embeddings came from outside: no predictions, which is the original order.
            ids = torch.full((tokens,), -1, dtype=torch.int32, device=self._token_table.device)
        if len(ids) != tokens:
            raise SetupError(f"a batch of {tokens} rows has {len(ids)} token ids", "switch the shuffle off: SMOE_SGLANG_SHUFFLE=0")
        # Padded rows write to slot 0 of the KV cache, which no token owns; num_token_non_padded is already per rank here.
        valid = (forward_batch.out_cache_loc != 0).sum(dtype=torch.int32)
        buffers = AssignmentBuffers(tokens, self._ranks, self._token_table.device)
        assign(buffers, ids, valid, self._token_table)
        capacity = tokens // self._ranks
        shuffle = Shuffle(buffers.order, buffers.position, buffers.order[self._rank * capacity : (self._rank + 1) * capacity])
        setattr(forward_batch, _ATTRIBUTE, shuffle)
        self.passes += 1
        return shuffle

    def _active(self, forward_batch: Any) -> Shuffle:
        shuffle = getattr(forward_batch, _ATTRIBUTE, None)
        if shuffle is None:
            raise SetupError("rows are scattered but were never shuffled", "switch the shuffle off: SMOE_SGLANG_SHUFFLE=0")
        return shuffle

    def scatter(
        self, original: Callable, hidden_states, residual, forward_batch, layernorm, context, *, residual_input_mode
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Around ``CommunicateWithAllReduceAndLayerNormFn._scatter_hidden_states_and_residual``."""
        if hidden_states.shape[0] == 0:
            return original(
                hidden_states, residual, forward_batch, layernorm, context, residual_input_mode=residual_input_mode
            )
        if residual_input_mode == self._scattered:
            shuffle = self._active(forward_batch)
        else:
            shuffle = self.begin(forward_batch, len(hidden_states))
            residual = gather_rows(residual, shuffle.mine, residual.new_empty((len(shuffle.mine), residual.shape[1])))
        hidden_states = self._collectives.reduce_scatter(hidden_states, shuffle.order)
        return layernorm(hidden_states, residual)

    def gather_for_attention(self, original: Callable, hidden_states, forward_batch, context):
        """Around ``CommunicateSimpleFn._scattered_to_tp_attn_full``."""
        if isinstance(hidden_states, tuple):
            raise SetupError("quantised rows cannot be shuffled yet", "switch the shuffle off: SMOE_SGLANG_SHUFFLE=0")
        if hidden_states.shape[0] == 0:
            return original(hidden_states, forward_batch, context)
        shuffle = self._active(forward_batch)
        return self._collectives.all_gather(hidden_states, shuffle.order, shuffle.position)

    def gather_output(self, original: Callable, hidden_states, residual, forward_batch, context, **rest):
        """Around ``CommunicateSummableTensorPairFn._gather``: the model's last rows."""
        if hidden_states.shape[0] == 0:
            return original(hidden_states, residual, forward_batch, context, **rest)
        shuffle = self._active(forward_batch)
        hidden_states += residual
        # A copy: the caller may keep these rows past the next gather, which shared-memory collectives overwrite.
        return self._collectives.all_gather(hidden_states, shuffle.order, shuffle.position).clone(), None

    def gather_residual(
        self, original: Callable, hidden_states, residual, forward_batch, layernorm, context, *, residual_input_mode
    ):
        """Around ``CommunicateWithAllReduceAndLayerNormFn._gather_hidden_states_and_residual``: a dense layer after a sparse one."""
        if residual_input_mode == self._scattered and residual.shape[0] != 0:
            shuffle = self._active(forward_batch)
            # The norm adds to the residual in place: not in memory that the next gather overwrites.
            residual = self._collectives.all_gather(residual, shuffle.order, shuffle.position).clone()
            residual_input_mode = None
        return original(hidden_states, residual, forward_batch, layernorm, context, residual_input_mode=residual_input_mode)
