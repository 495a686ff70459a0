import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from ranks import prepare_deepspeed

torch.set_num_threads(1)
# Before any rank is forked, so that ranks share the imported modules.
prepare_deepspeed("gloo")
