"""Tiny tokenizers, one of each kind the supported families use, and golden encodings by the tokenizers library."""

import collections
import json

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

SPECIAL_TOKENS = ["<pad>", "<s>", "</s>"]
SENTENCEPIECE_ALPHABET = 36

# The split pattern of Qwen's tokenizers.
QWEN_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

TRAINING_TEXT = [
    "the expert that owns the token sends the rows to the other experts and the tokens stay on the device",
    "for (let index = 0; index < tokens.length; index += 1) { return experts[index]; }",
    "der die das und nicht ein eine Schicht, die Gewichte werden auf den Geräten verteilt, größer über für",
    "les jetons sont envoyés à l'expert, le réseau a été entraîné après déjà où ça",
    "#\ufeff# #\ufeff# #\ufeff#",  # U+FEFF is white space to JavaScript, not to the tokenizers library
] * 4

GOLDEN_TEXTS = [
    "",
    " ",
    "a",
    "The expert that owns the token.",
    "don't  you'll WE'VE it's",
    "for (let i = 0; i < 10; i++) {\n\treturn experts[i];\n}\n",
    "def f(x):\n    return x ** 2  # größer als 12345.67\r\n\r\n",
    "Größenverhältnisse über die Straße, ß und ẞ, „Anführung“",
    "L'été où le réseau a été entraîné : déjà 1 234 €, œuvre, «ça»",
    "e\u0301 and \u00e9, A\u030a and \u00c5",
    "emoji 😀 👩‍👩‍👧‍👦 🇩🇪 👍🏽 end",
    "日本語のテキスト 漢字 한국어 العربية हिन्दी",
    "tabs\t\ttwo  spaces   three \n\n\n newlines \u00a0nbsp\u2003em\u3000ideographic",
    "next\u0085line vertical\u000btab form\u000cfeed bom\ufeffmark zero\u200bwidth line\u2028separator",
    "#\ufeff# and #\u0085#",
    "replacement \ufffd\ufffd character",
    "null \u0000 and \u0001 \u007f controls",
    "special <s> in the </s>middle",
    "x" * 40,
    "    leading and trailing    ",
    "²³½ Ⅷ ١٢٣ mixed1digits22and333",
]


def byte_level(vocabulary):
    """GPT-2 kind: the byte-level splitter's own pattern (OLMoE, GPT-NeoX)."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return _train_byte_level(tokenizer, vocabulary)


def qwen(vocabulary):
    """Qwen kind: NFC, an explicit split pattern, then bytes."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(QWEN_PATTERN), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    return _train_byte_level(tokenizer, vocabulary)


def _train_byte_level(tokenizer, vocabulary):
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
    )
    tokenizer.train_from_iterator(TRAINING_TEXT, trainer)
    return tokenizer


def sentencepiece(vocabulary):
    """Llama and Mixtral kind: spaces become U+2581, unknown characters fall back to bytes, <s> comes first."""
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    learner = Tokenizer(models.BPE())
    learner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    texts = [text.lower() for text in TRAINING_TEXT]
    # The trainer breaks ties between equally frequent characters at random, so the alphabet is chosen here.
    counts = collections.Counter("▁".join(texts).replace(" ", "▁"))
    alphabet = sorted(counts, key=lambda character: (-counts[character], character))[:SENTENCEPIECE_ALPHABET]
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(SPECIAL_TOKENS) - len(byte_tokens), initial_alphabet=alphabet,
        limit_alphabet=len(alphabet), show_progress=False,
    )
    learner.train_from_iterator(texts, trainer)
    learned = json.loads(learner.to_str())["model"]
    entries = SPECIAL_TOKENS + byte_tokens + sorted(learned["vocab"], key=learned["vocab"].get)
    tokenizer = Tokenizer(models.BPE(
        vocab={token: index for index, token in enumerate(entries)},
        merges=[tuple(merge) for merge in learned["merges"]],
        unk_token="<pad>", fuse_unk=True, byte_fallback=True,
    ))
    tokenizer.normalizer = learner.normalizer
    tokenizer.decoder = decoders.Sequence([
        decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0),
    ])
    tokenizer.add_special_tokens(SPECIAL_TOKENS)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", SPECIAL_TOKENS.index("<s>"))]
    )
    return tokenizer


TOKENIZERS = {"qwen3_moe": qwen, "mixtral": sentencepiece, "olmoe": byte_level}


def write_tokenizer(make, vocabulary, directory):
    """Writes tokenizer.json, tokenizer_config.json and golden-tokenizer.json."""
    tokenizer = make(vocabulary)
    assert tokenizer.get_vocab_size() == vocabulary, tokenizer.get_vocab_size()
    golden = []
    for text in GOLDEN_TEXTS:
        ids = tokenizer.encode(text).ids
        golden.append({
            "text": text, "ids": ids, "decoded": tokenizer.decode(ids, skip_special_tokens=True),
            "decodedWithSpecial": tokenizer.decode(ids, skip_special_tokens=False),
        })
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    files = {
        "tokenizer.json": json.loads(tokenizer.to_str()),
        "tokenizer_config.json": config,
        "golden-tokenizer.json": golden,
    }
    for name, value in files.items():
        (directory / name).write_text(json.dumps(value, separators=(",", ":")) + "\n", encoding="utf-8")
