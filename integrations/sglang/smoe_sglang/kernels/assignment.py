"""Which device every token of a step goes to, in slices of equal size, computed on the GPU.

T = tokens of the step, G = devices, C = T / G the size of a slice, V = vocabulary. Every rank runs this on the same inputs and
gets the same answer: integers only, ties by token index, no atomic whose order could matter. Shapes are static and
nothing is read back to the host, so the launches can be captured into a CUDA graph.

The rule (``smoe_sglang.reference`` states it in NumPy):

1. A token's prediction is the table entry of its id, or the entry of the devices it was at home on one and two layers before where
   that one is at least as confident (paper: T where T_p > A_p, else A). Ids outside the table have no prediction.
2. Of the tokens that want a device it keeps the C most confident, ties to the lower index.
3. The others, in order of device, confidence and index, and last the tokens without a prediction, fill the devices with room in
   ascending order. Padding, the tokens from ``valid_tokens`` on, stays in place.

Up to ``SINGLE_LAUNCH_TOKENS`` tokens one launch does it: a token's rank among all is found by comparing it with all, which is less work
than a sort while T^2 fits the GPU's width. Above, a first launch sorts blocks the same way and a second one ranks a token in
every other block by binary search.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

# Keys are device (7 bits) | 255 - confidence (8 bits) | token index (16 bits) in an int32, so that comparing keys is the whole rule.
MAX_TOKENS = 1 << 16
MAX_DEVICES = 64
SINGLE_LAUNCH_TOKENS = 1024

NO_PREDICTION = MAX_DEVICES << 8
"""Table entry of an id that nothing is known about: (no device, confidence 0)."""

_NO_PREDICTION = tl.constexpr(NO_PREDICTION)
_PAST_THE_END = tl.constexpr(0x7F000000)


@triton.jit
def _keys(
    index,
    ids,
    valid_tokens,
    token_table,
    transition_table,
    home_before,
    home_two_before,
    tokens,
    vocabulary,
    DEVICES: tl.constexpr,
    TRANSITIONS: tl.constexpr,
):
    # Sort keys of the tokens at `index`; past the end of the batch they are larger than any other and distinct.
    inside = index < tokens
    valid = inside & (index < tl.load(valid_tokens))
    token = tl.load(ids + index, mask=inside, other=-1)
    known = valid & (token >= 0) & (token < vocabulary)
    entry = tl.load(token_table + token, mask=known, other=_NO_PREDICTION).to(tl.int32)
    if TRANSITIONS:
        one = tl.load(home_before + index, mask=inside, other=0).to(tl.int32)
        two = tl.load(home_two_before + index, mask=inside, other=0).to(tl.int32)
        moved = tl.load(transition_table + one * DEVICES + two, mask=valid, other=_NO_PREDICTION).to(tl.int32)
        entry = tl.where((entry & 255) > (moved & 255), entry, moved)
    key = ((entry >> 8) << 24) | ((255 - (entry & 255)) << 16) | index
    return tl.where(inside, key, _PAST_THE_END + index)


@triton.jit
def _store_places(
    key,
    rank,
    held,
    position,
    order,
    home,
    valid,
    capacity,
    DEVICES: tl.constexpr,
    DEVICE_BLOCK: tl.constexpr,
):
    # key, rank: [B] of some tokens and their rank among all keys; held: [DEVICE_BLOCK] tokens that want each device.
    device = tl.arange(0, DEVICE_BLOCK)
    index = key & 0xFFFF
    wanted = key >> 24
    inside = key < _PAST_THE_END
    predicted = wanted < DEVICES

    # The engine counts padding off the end of every slice, so padding must stay where it is.
    fits = tl.where(device < DEVICES, tl.minimum(tl.maximum(valid - device * capacity, 0), capacity), 0)
    surplus = tl.maximum(held - fits, 0)
    room = tl.maximum(fits - held, 0)
    room_through = tl.cumsum(room, 0)
    held_through = tl.cumsum(held, 0)
    surplus_through = tl.cumsum(surplus, 0)

    # Tokens without a prediction come after all others: everything predicted lies before them.
    last = tl.minimum(wanted, DEVICES - 1)
    before = tl.gather(held_through - held, last, 0)
    surplus_before = tl.gather(surplus_through - surplus, last, 0)
    before = tl.where(predicted, before, tl.sum(held, 0))
    surplus_before = tl.where(predicted, surplus_before, tl.sum(surplus, 0))
    within = rank - before
    fits_there = tl.where(predicted, tl.gather(fits, last, 0), 0)
    keeps = within < fits_there
    overflow = surplus_before + within - fits_there

    filled = (room_through[None, :] <= overflow[:, None]) & (device < DEVICES)[None, :]
    target = tl.minimum(tl.sum(filled.to(tl.int32), 1), DEVICES - 1)
    # A place past those the device's own tokens and earlier overflow take.
    spare = tl.gather(device * capacity + held - (room_through - room), target, 0) + overflow

    place = tl.where(keeps, wanted * capacity + within, spare)
    place = tl.where(index < valid, place, index)
    tl.store(position + index, place, mask=inside)
    tl.store(order + place, index, mask=inside)
    tl.store(home + index, (place // capacity).to(tl.uint8), mask=inside)


@triton.jit
def _assign_by_comparison(
    ids,
    valid_tokens,
    token_table,
    transition_table,
    home_before,
    home_two_before,
    position,
    order,
    home,
    tokens,
    capacity,
    vocabulary,
    DEVICES: tl.constexpr,
    DEVICE_BLOCK: tl.constexpr,
    TRANSITIONS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CHUNKS: tl.constexpr,
):
    index = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    key = _keys(
        index, ids, valid_tokens, token_table, transition_table, home_before, home_two_before, tokens, vocabulary,
        DEVICES, TRANSITIONS,
    )  # fmt: skip
    below = tl.zeros([ROWS, COLUMNS], dtype=tl.int32)
    held = tl.zeros([DEVICE_BLOCK], dtype=tl.int32)
    for chunk in range(0, CHUNKS):
        other = _keys(
            chunk * COLUMNS + tl.arange(0, COLUMNS), ids, valid_tokens, token_table, transition_table, home_before, home_two_before,
            tokens, vocabulary, DEVICES, TRANSITIONS,
        )  # fmt: skip
        below += (other[None, :] < key[:, None]).to(tl.int32)
        wanted = other >> 24
        held += tl.histogram(tl.where(wanted < DEVICES, wanted, 0), DEVICE_BLOCK, mask=wanted < DEVICES)
    rank = tl.sum(below, 1)
    _store_places(key, rank, held, position, order, home, tl.load(valid_tokens), capacity, DEVICES, DEVICE_BLOCK)


@triton.jit
def _sort_blocks(
    ids,
    valid_tokens,
    token_table,
    transition_table,
    home_before,
    home_two_before,
    sorted_keys,
    block_held,
    tokens,
    vocabulary,
    DEVICES: tl.constexpr,
    DEVICE_BLOCK: tl.constexpr,
    TRANSITIONS: tl.constexpr,
    BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    # sorted_keys: [blocks, BLOCK] keys ascending within a block; block_held: [blocks, DEVICE_BLOCK].
    block = tl.program_id(0)
    part = tl.program_id(1)
    first = block * BLOCK
    key = _keys(
        first + part * ROWS + tl.arange(0, ROWS), ids, valid_tokens, token_table, transition_table, home_before,
        home_two_before, tokens, vocabulary, DEVICES, TRANSITIONS,
    )  # fmt: skip
    below = tl.zeros([ROWS, COLUMNS], dtype=tl.int32)
    held = tl.zeros([DEVICE_BLOCK], dtype=tl.int32)
    for start in range(0, BLOCK, COLUMNS):
        other = _keys(
            first + start + tl.arange(0, COLUMNS), ids, valid_tokens, token_table, transition_table, home_before,
            home_two_before, tokens, vocabulary, DEVICES, TRANSITIONS,
        )  # fmt: skip
        below += (other[None, :] < key[:, None]).to(tl.int32)
        if part == 0:
            wanted = other >> 24
            held += tl.histogram(tl.where(wanted < DEVICES, wanted, 0), DEVICE_BLOCK, mask=wanted < DEVICES)
    tl.store(sorted_keys + first + tl.sum(below, 1), key)
    if part == 0:
        tl.store(block_held + block * DEVICE_BLOCK + tl.arange(0, DEVICE_BLOCK), held)


@triton.jit
def _assign_by_search(
    valid_tokens,
    sorted_keys,
    block_held,
    position,
    order,
    home,
    capacity,
    blocks,
    DEVICES: tl.constexpr,
    DEVICE_BLOCK: tl.constexpr,
    BLOCK: tl.constexpr,
    HALVINGS: tl.constexpr,
    ROWS: tl.constexpr,
    SEARCHES: tl.constexpr,
    CHUNKS: tl.constexpr,
):
    key = tl.load(sorted_keys + tl.program_id(0) * ROWS + tl.arange(0, ROWS))
    device = tl.arange(0, DEVICE_BLOCK)
    below = tl.zeros([ROWS, SEARCHES], dtype=tl.int32)
    held = tl.zeros([DEVICE_BLOCK], dtype=tl.int32)
    for chunk in range(0, CHUNKS):
        block = chunk * SEARCHES + tl.arange(0, SEARCHES)
        there = (block < blocks)[None, :]
        base = sorted_keys + (block * BLOCK)[None, :]
        low = tl.zeros([ROWS, SEARCHES], dtype=tl.int32)
        for halving in tl.static_range(1, HALVINGS + 1):
            step = BLOCK >> halving
            probe = tl.load(base + low + (step - 1), mask=there, other=2147483647)
            low += tl.where(probe < key[:, None], step, 0)
        probe = tl.load(base + low, mask=there, other=2147483647)
        below += low + (probe < key[:, None]).to(tl.int32)
        counts = tl.load(
            block_held + block[:, None] * DEVICE_BLOCK + device[None, :], mask=(block < blocks)[:, None], other=0
        )
        held += tl.sum(counts, 0)
    _store_places(
        key, tl.sum(below, 1), held, position, order, home, tl.load(valid_tokens), capacity, DEVICES, DEVICE_BLOCK
    )


class AssignmentBuffers:
    """Memory for the answer and between the launches, allocated once: a CUDA graph needs fixed addresses.

    position: [T] int32, place of each token in the shuffled order; slice d is places d * C to (d + 1) * C - 1.
    order: [T] int32, the inverse: the token at each place.
    home: [T] uint8, device of each token.
    """

    def __init__(self, tokens: int, devices: int, device: torch.device | str) -> None:
        if not 1 <= devices <= MAX_DEVICES:
            raise ValueError(f"{devices} devices: the shuffle kernels take 1 to {MAX_DEVICES}")
        if not 1 <= tokens <= MAX_TOKENS:
            raise ValueError(f"{tokens} tokens: the shuffle kernels take 1 to {MAX_TOKENS}")
        if tokens % devices:
            raise ValueError(f"{tokens} tokens do not divide into {devices} equal slices")
        self.tokens, self.devices = tokens, devices
        self.device_block = triton.next_power_of_2(max(2, devices))
        self.position = torch.empty(tokens, dtype=torch.int32, device=device)
        self.order = torch.empty(tokens, dtype=torch.int32, device=device)
        self.home = torch.empty(tokens, dtype=torch.uint8, device=device)
        self.sort_block = 256 if tokens <= 8192 else 512
        self.blocks = triton.cdiv(tokens, self.sort_block)
        if tokens > SINGLE_LAUNCH_TOKENS:
            self.sorted_keys = torch.empty(self.blocks * self.sort_block, dtype=torch.int32, device=device)
            self.block_held = torch.empty(self.blocks * self.device_block, dtype=torch.int32, device=device)


def pack_entries(devices: torch.Tensor, confidences: torch.Tensor) -> torch.Tensor:
    """Table entries, int16 [...], from devices and confidences (0 to 255) of the same shape: device * 256 + confidence."""
    return (devices.to(torch.int32) * 256 + confidences.to(torch.int32)).to(torch.int16)


def assign(
    buffers: AssignmentBuffers,
    ids: torch.Tensor,
    valid_tokens: torch.Tensor,
    token_table: torch.Tensor,
    transition_table: torch.Tensor | None = None,
    home_before: torch.Tensor | None = None,
    home_two_before: torch.Tensor | None = None,
) -> None:
    """Fills ``buffers`` for one batch; enqueues one or two kernels on the current stream.

    ids: [T] int32 or int64. valid_tokens: [1] int32 on the device; tokens from there on are padding.
    token_table: [V] int16 entries (``pack_entries``). transition_table: [G * G] int16 entries at [before * G + two before];
    home_before, home_two_before: [T] uint8.
    """
    tokens, devices = buffers.tokens, buffers.devices
    transitions = transition_table is not None
    # An argument must point somewhere; without transitions it is never read.
    transition_table = transition_table if transitions else token_table
    home_before = home_before if transitions else buffers.home
    home_two_before = home_two_before if transitions else buffers.home
    # Block sizes: the fastest of those tried on an H100 (docs/sglang.md).
    if tokens <= SINGLE_LAUNCH_TOKENS:
        rows = 4 if tokens <= 512 else 8
        columns = 128 if tokens <= 256 else 512
        _assign_by_comparison[(triton.cdiv(tokens, rows),)](
            ids, valid_tokens, token_table, transition_table, home_before, home_two_before,
            buffers.position, buffers.order, buffers.home, tokens, tokens // devices, token_table.numel(),
            DEVICES=devices, DEVICE_BLOCK=buffers.device_block, TRANSITIONS=transitions, ROWS=rows, COLUMNS=columns,
            CHUNKS=triton.cdiv(tokens, columns), num_warps=4,
        )  # fmt: skip
        return
    block = buffers.sort_block
    rows = 16
    _sort_blocks[(buffers.blocks, block // rows)](
        ids, valid_tokens, token_table, transition_table, home_before, home_two_before,
        buffers.sorted_keys, buffers.block_held, tokens, token_table.numel(),
        DEVICES=devices, DEVICE_BLOCK=buffers.device_block, TRANSITIONS=transitions, BLOCK=block, ROWS=rows, COLUMNS=256,
        num_warps=4,
    )  # fmt: skip
    rows, searches = (32, 16) if buffers.blocks <= 16 else (16, 32)
    _assign_by_search[(buffers.blocks * block // rows,)](
        valid_tokens, buffers.sorted_keys, buffers.block_held, buffers.position, buffers.order, buffers.home, tokens // devices,
        buffers.blocks, DEVICES=devices, DEVICE_BLOCK=buffers.device_block, BLOCK=block, HALVINGS=block.bit_length() - 1,
        ROWS=rows, SEARCHES=searches, CHUNKS=triton.cdiv(buffers.blocks, searches), num_warps=4,
    )  # fmt: skip
