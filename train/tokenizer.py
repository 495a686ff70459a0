"""Trains the byte-level BPE tokenizer and turns the corpus into a stream of token ids.

    python train/tokenizer.py train  --work <scratch folder> [--out models/demo]
    python train/tokenizer.py encode --work <scratch folder> --tokenizer models/demo --out <folder>

`train` writes tokenizer.json, tokenizer_config.json and generation_config.json. `encode` writes
`tokens.u16.xz` (training) and `valid.u16` (held out): little-endian uint16, documents in a seeded random order,
each followed by `<|endoftext|>`.
"""

import argparse
import json
import lzma
import random
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

END_OF_TEXT, PADDING = "<|endoftext|>", "<|pad|>"
# Lookahead only and no inline flags, so that a JavaScript engine runs the same expression with its u flag.
SPLIT = (
    r"'(?:[sdmtSDMT]|ll|LL|re|RE|ve|VE)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Two-byte alignment for the literal and position contexts: the data are uint16.
XZ_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 5, "lc": 2, "lp": 1, "pb": 1}]
XZ_STREAM_TOKENS = 4_000_000


def readTexts(path: Path) -> list[str]:
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line)["text"] for line in lines]


def train(options: argparse.Namespace) -> None:
    texts = readTexts(options.work / "documents.jsonl")
    random.Random(options.seed).shuffle(texts)
    sample, size = [], 0
    for text in texts:
        if size >= options.sample_bytes:
            break
        sample.append(text)
        size += len(text.encode())
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(sample, trainers.BpeTrainer(
        vocab_size=options.entries,
        special_tokens=[END_OF_TEXT, PADDING],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        max_token_length=24,
        show_progress=False,
    ))
    options.out.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(options.out / "tokenizer.json"))
    writeJson(options.out / "tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": 2048,
        "eos_token": END_OF_TEXT,
        "pad_token": PADDING,
        "clean_up_tokenization_spaces": False,
        "added_tokens_decoder": {
            str(index): {"content": token, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
            for index, token in enumerate((END_OF_TEXT, PADDING))
        },
    })
    writeJson(options.out / "generation_config.json", {"eos_token_id": 0, "pad_token_id": 1, "do_sample": False})
    print(f"{tokenizer.get_vocab_size()} entries from {size / 1e6:.1f} MB")


def writeJson(path: Path, value: dict) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def encodeTexts(tokenizer: Tokenizer, texts: list[str]) -> numpy.ndarray:
    """Returns uint16 [tokens], every text closed by id 0. Special tokens written inside a text stay ordinary text."""
    tokenizer.encode_special_tokens = True
    parts = []
    for start in range(0, len(texts), 512):
        for encoding in tokenizer.encode_batch_fast(texts[start:start + 512]):
            parts.append(numpy.array(encoding.ids + [0], dtype=numpy.uint16))
    return numpy.concatenate(parts)


def compress(chunk: bytes) -> bytes:
    return lzma.compress(chunk, filters=XZ_FILTERS)


def encode(options: argparse.Namespace) -> None:
    tokenizer = Tokenizer.from_file(str(options.tokenizer / "tokenizer.json"))
    texts = readTexts(options.work / "documents.jsonl")
    random.Random(options.seed).shuffle(texts)
    tokens = encodeTexts(tokenizer, texts)
    heldout = readTexts(options.work / "valid.jsonl")
    random.Random(options.seed).shuffle(heldout)
    valid = encodeTexts(tokenizer, heldout)[:options.valid_tokens]
    print(f"{tokens.size} training tokens from {sum(len(text.encode()) for text in texts)} bytes, {valid.size} held-out tokens", flush=True)
    tokens = tokens[:options.tokens].astype("<u2")
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "valid.u16").write_bytes(valid.astype("<u2").tobytes())
    chunks = [tokens[start:start + XZ_STREAM_TOKENS].tobytes() for start in range(0, tokens.size, XZ_STREAM_TOKENS)]
    with ProcessPoolExecutor(options.workers) as pool, (options.out / "tokens.u16.xz").open("wb") as target:
        for stream in pool.map(compress, chunks):
            target.write(stream)
    print(f"{tokens.size} tokens kept, {(options.out / 'tokens.u16.xz').stat().st_size / 2**20:.2f} MiB compressed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    commands = parser.add_subparsers(required=True)
    trainer = commands.add_parser("train")
    trainer.add_argument("--work", type=Path, required=True)
    trainer.add_argument("--out", type=Path, default=Path("models/demo"))
    trainer.add_argument("--entries", type=int, default=16_384)
    trainer.add_argument("--sample-bytes", type=int, default=40_000_000)
    trainer.set_defaults(run=train)
    encoder = commands.add_parser("encode")
    encoder.add_argument("--work", type=Path, required=True)
    encoder.add_argument("--tokenizer", type=Path, default=Path("models/demo"))
    encoder.add_argument("--out", type=Path, required=True)
    encoder.add_argument("--tokens", type=int, default=48_000_000, help="training tokens to keep at most")
    encoder.add_argument("--valid-tokens", type=int, default=300_000)
    encoder.add_argument("--workers", type=int, default=2)
    encoder.set_defaults(run=encode)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
