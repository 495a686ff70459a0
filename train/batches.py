"""The token stream as training batches: windows at a random offset, in a random order, each once per pass."""

import lzma
from pathlib import Path

import numpy
import torch
from torch import Tensor


def unpack(packed: Path, plain: Path) -> None:
    """Writes the uint16 tokens of an .xz file as a plain file, once."""
    if not plain.exists():
        unfinished = plain.with_suffix(".part")
        unfinished.write_bytes(lzma.decompress(packed.read_bytes()))
        unfinished.rename(plain)


def readTokens(path: Path, device: torch.device) -> Tensor:
    """uint16 file -> int32 [tokens] on the device."""
    return torch.from_numpy(numpy.fromfile(path, dtype="<u2").astype(numpy.int32)).to(device)


class Batches:
    """Iterates (ids, targets), int64 [sequences, length] each, without end."""

    def __init__(self, tokens: Tensor, sequences: int, length: int, seed: int) -> None:
        self.tokens, self.sequences, self.length = tokens, sequences, length
        self.generator = torch.Generator().manual_seed(seed)
        self.window = torch.arange(length + 1, device=tokens.device)
        self.starts = torch.empty(0, dtype=torch.int64, device=tokens.device)

    def next(self) -> tuple[Tensor, Tensor]:
        while self.starts.numel() < self.sequences:
            offset = int(torch.randint(self.length, (1,), generator=self.generator))
            windows = (self.tokens.numel() - 1 - offset) // self.length
            order = torch.randperm(windows, generator=self.generator) * self.length + offset
            self.starts = torch.cat((self.starts, order.to(self.tokens.device)))
        starts, self.starts = self.starts[: self.sequences], self.starts[self.sequences:]
        rows = self.tokens[starts[:, None] + self.window].long()
        return rows[:, :-1].contiguous(), rows[:, 1:].contiguous()
