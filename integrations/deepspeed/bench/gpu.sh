#!/usr/bin/env bash
# expert_traffic.py with NCCL on this machine's GPUs, from a folder of wheels and no network:
#
#   integrations/deepspeed/bench/gpu.sh WHEELS OUT
#
# Wants Python with torch, transformers and numpy; WHEELS holds DeepSpeed and what it needs besides (see docs/deepspeed.md). With four GPUs or more:
# correctness, bytes and time, in float32, about three and a half minutes. With fewer: four ranks on the first GPU, correctness and bytes.
set -euo pipefail
wheels=$(realpath "$1")
out=$(realpath "$2")
cd "$(dirname "$0")/../../.."

packages=$(mktemp -d)
trap 'rm -rf "$packages"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --no-index --no-deps --target "$packages" "$wheels"/*.whl
export PYTHONPATH=$packages DS_ACCELERATOR=cuda OMP_NUM_THREADS=4
traffic() { timeout 330 python3 integrations/deepspeed/bench/expert_traffic.py --backend nccl "$@"; }

if (($(python3 -c 'import torch; print(torch.cuda.device_count())') >= 4)); then
  traffic --prompts 8 --time 20 --json "$out/nccl-4-gpus-float32.json"
else
  traffic --one-device --prompts 8 --new-tokens 4 --json "$out/nccl-1-gpu-float32.json"
fi
