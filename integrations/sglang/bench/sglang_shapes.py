"""Copy of a Qwen3-MoE checkpoint in shapes SGLang 0.5.17's CUDA kernels take, computing the same function.

    python integrations/sglang/bench/sglang_shapes.py models/demo DIR

Expert width padded with zeros to 128 (DeepGEMM's tiles). Heads of 32 spread over 128 places (SGLang's rotary kernels take 64, 128, 256, 512):
place 4i of each half has the frequency that place i had; the norms' mean of squares then is a quarter, the score's scale a half:
halving the keys' weights makes both good, all powers of two. Only the norms' epsilon weighs 4 times as much. Tied embeddings are written
out: SGLang's Qwen3-MoE has a head of its own and leaves it unset when the checkpoint has none, and every answer is then token 0.
"""
from __future__ import annotations

import glob
import json
import os
import shutil
import sys

import torch
from safetensors.torch import load_file, save_file

src, dst, width, head = sys.argv[1], sys.argv[2], 128, 128
os.makedirs(dst, exist_ok=True)
for f in glob.glob(src + "/*.json"):
    if "plan" not in f:
        shutil.copy(f, dst)
c = json.load(open(src + "/config.json"))
old, tied = c["head_dim"], c["tie_word_embeddings"]
step = head // old
if step != 4 or c["moe_intermediate_size"] > width:
    raise SystemExit("for heads of 32 and experts of at most 128")
c["moe_intermediate_size"], c["head_dim"], c["tie_word_embeddings"] = width, head, False
json.dump(c, open(dst + "/config.json", "w"), indent=1)
half = old // 2
place = torch.tensor([step * i for i in range(half)] + [head // 2 + step * i for i in range(half)])


def spread(w: torch.Tensor, d: int) -> torch.Tensor:
    n = w.shape[d] // old
    s = list(w.shape); s[d] = n * head
    out = w.new_zeros(s)
    idx = torch.cat([place + h * head for h in range(n)])
    if d == 0:
        out[idx] = w
    else:
        out[:, idx] = w
    return out


for f in sorted(glob.glob(src + "/*.safetensors")):
    t = load_file(f)
    if tied and "model.embed_tokens.weight" in t:
        t["lm_head.weight"] = t["model.embed_tokens.weight"].clone()
        listed = f"{dst}/model.safetensors.index.json"
        index = json.load(open(listed))
        index["weight_map"]["lm_head.weight"] = os.path.basename(f)
        json.dump(index, open(listed, "w"), indent=1)
    for n, w in list(t.items()):
        if ".experts." in n:
            d = 1 if "down_proj" in n else 0
            s = list(w.shape)
            s[d] = width - s[d]
            t[n] = torch.cat([w, w.new_zeros(s)], d).contiguous()
        elif any(p in n for p in ("q_proj", "k_proj", "v_proj")):
            t[n] = spread(w, 0)
        elif "o_proj" in n:
            t[n] = spread(w, 1)
        elif "q_norm" in n:
            t[n] = spread(w, 0)
        elif "k_norm" in n:
            t[n] = spread(w, 0) / 2
    save_file(t, dst + "/" + os.path.basename(f), metadata={"format": "pt"})
