import os
import sys
from pathlib import Path

import torch

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]
if not torch.cuda.is_available():
    # Read when a kernel is defined: must be set before the package is imported.
    os.environ["TRITON_INTERPRET"] = "1"
