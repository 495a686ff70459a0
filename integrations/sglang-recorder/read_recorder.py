#!/usr/bin/env python3
"""Reads dumps of SGLang's expert distribution recorder and writes them to stdout as flat binary.

    read_recorder.py DUMP.pt [DUMP.pt ...]

`smoe trace import --format sglang-recorder` runs it, so that PyTorch is needed only here. Files are loaded with
`weights_only=True`: nothing in them is executed. Every shape and type is checked before it is written.

Output, little-endian; one part per file:
    "SMRD", u32 version (1), u32 kind
    kind 0 (per_token):
        u32 layers, u32 physical experts, i32 map [layers][physical] (physical expert -> logical expert)
        any number of: u8 1, i32 rank, i32 pass, i32 forward mode, u32 tokens, u32 segments (0xFFFFFFFF: none), u32 columns,
                       i32 input ids [tokens], i32 positions [tokens], i32 segment lengths [segments],
                       i32 physical experts [layers][tokens][columns] (-1: not filled)
        u8 0
    kind 1 (stat): u32 layers, u32 experts, u64 count [layers][experts]
"""

import struct
import sys


class BadDump(Exception):
    """A dump that does not hold what the recorder writes (srt/eplb/expert_distribution.py)."""


def main(paths):
    try:
        import torch
    except ImportError:
        return fail("TORCH", f"{sys.executable} has no PyTorch, which wrote these dumps")
    for path in paths:
        try:
            data = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # whatever a damaged or hostile file makes the loader say
            return fail("LOAD", f"{path}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'cannot be loaded'}")
        try:
            write(torch, data, sys.stdout.buffer)
        except BadDump as error:
            return fail("DUMP", f"{path}: {error}")
    sys.stdout.buffer.flush()
    return 0


def fail(kind, message):
    """One line that the importer turns into an error of its own."""
    print(f"smoe-recorder {kind} {message}", file=sys.stderr)
    return 1


def write(torch, data, out):
    if not isinstance(data, dict):
        raise BadDump("not a dictionary")
    if "records" in data:
        write_per_token(torch, data, out)
    elif "logical_count" in data:
        write_stat(torch, data, out)
    else:
        raise BadDump(f"neither records nor logical_count, but {', '.join(map(str, data)) or 'nothing'}")


def write_stat(torch, data, out):
    """`stat` and `stat_approx`: counts [steps, layers, experts], already summed over ranks."""
    counts = tensor(torch, data, "logical_count", 3)
    total = counts.to(torch.int64).sum(dim=0)
    if bool((total < 0).any()):
        raise BadDump("logical_count holds negative counts")
    out.write(b"SMRD" + struct.pack("<4I", 1, 1, *total.shape))
    out.write(total.contiguous().numpy().astype("<u8").tobytes())


def write_per_token(torch, data, out):
    physical_map = tensor(torch, data, "last_physical_to_logical_map", 2)
    layers, physical = physical_map.shape
    records = data["records"]
    if not isinstance(records, list):
        raise BadDump("records is not a list")
    out.write(b"SMRD" + struct.pack("<4I", 1, 0, layers, physical) + int32(torch, physical_map))
    for index, record in enumerate(records):
        if not isinstance(record, dict):
            raise BadDump(f"records[{index}] is not a dictionary")
        if "topk_ids_of_layer" not in record:
            raise BadDump(
                f"records[{index}] has no topk_ids_of_layer: it was recorded per pass, which keeps counts; record with "
                "--expert-distribution-recorder-mode per_token"
            )
        where = f"records[{index}]."
        topk = tensor(torch, record, "topk_ids_of_layer", 3, where)
        tokens = topk.shape[1]
        input_ids = integers(record, "input_ids", where)
        positions = integers(record, "positions", where)
        if len(input_ids) != tokens or len(positions) != tokens or topk.shape[0] != layers:
            raise BadDump(
                f"{where}topk_ids_of_layer {tuple(topk.shape)} for {len(input_ids)} input ids, {len(positions)} positions "
                f"and {layers} layers"
            )
        segments = record.get("extend_seq_lens")
        lengths = [] if segments is None else integers(record, "extend_seq_lens", where)
        # Columns that no layer filled: the recorder always keeps eight.
        filled = (topk >= 0).reshape(-1, topk.shape[2]).any(dim=0)
        columns = int(filled.nonzero().max()) + 1 if bool(filled.any()) else 0
        out.write(
            b"\x01"
            + struct.pack(
                "<3i3I",
                number(record, "rank", where),
                number(record, "forward_pass_id", where),
                number(record, "forward_mode", where),
                tokens,
                0xFFFFFFFF if segments is None else len(lengths),
                columns,
            )
            + b"".join(struct.pack(f"<{len(values)}i", *values) for values in (input_ids, positions, lengths))
            + int32(torch, topk[:, :, :columns])
        )
    out.write(b"\x00")


def tensor(torch, fields, name, dimensions, where=""):
    value = fields.get(name)
    if not isinstance(value, torch.Tensor) or value.dim() != dimensions or value.is_floating_point():
        raise BadDump(f"{where}{name} is not a tensor of whole numbers with {dimensions} dimensions")
    return value


def int32(torch, value):
    return value.to(torch.int32).contiguous().numpy().astype("<i4").tobytes()


def integers(fields, name, where):
    value = fields.get(name)
    if not isinstance(value, list) or not all(type(item) is int and -(2**31) <= item < 2**31 for item in value):
        raise BadDump(f"{where}{name} is not a list of 32-bit numbers")
    return value


def number(fields, name, where):
    value = fields.get(name)
    if type(value) is not int or not -(2**31) <= value < 2**31:
        raise BadDump(f"{where}{name} is not a 32-bit number")
    return value


if __name__ == "__main__":
    if len(sys.argv) < 2:
        print(__doc__, file=sys.stderr)
        sys.exit(2)
    try:
        sys.exit(main(sys.argv[1:]))
    except BrokenPipeError:
        sys.exit(1)
