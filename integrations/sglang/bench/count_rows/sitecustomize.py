"""Counts the rows DeepEP is given for each rank, inside SGLang's processes: put this folder first in PYTHONPATH.

While the folder SMOE_COUNT_ROWS holds a file ``on``, every dispatch is counted (and waited for: not for timings). When the file goes,
each rank writes ``rows-RANK.json`` there: dispatches, its own rows, rows per destination.
"""

import importlib.abc
import importlib.util
import json
import os
import sys
import threading
import time

FOLDER = os.environ.get("SMOE_COUNT_ROWS")


class Counter:
    def __init__(self) -> None:
        self.counting, self.rank, self.dispatches, self.rows, self.to_rank = False, 0, 0, 0, []
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            time.sleep(0.02)
            asked = os.path.exists(os.path.join(FOLDER, "on"))
            if self.counting and not asked and self.dispatches:
                name = os.path.join(FOLDER, f"rows-{self.rank}.json")
                with open(f"{name}.part", "w") as file:
                    json.dump({"dispatches": self.dispatches, "rows": self.rows, "toRank": self.to_rank}, file)
                os.replace(f"{name}.part", name)
                self.dispatches, self.rows, self.to_rank = 0, 0, []
            self.counting = asked

    def wrap(self, buffer) -> None:
        dispatch = buffer.dispatch

        def counted(this, x, *arguments, **named):
            counting, per_rank = self.counting, named.get("num_tokens_per_rank")
            result = dispatch(this, x, *arguments, **named)
            if counting and per_rank is not None:
                import torch

                torch.cuda.synchronize()
                counts = per_rank.tolist()
                self.rank, self.dispatches = this.rank, self.dispatches + 1
                self.rows += len(x[0] if isinstance(x, tuple) else x)
                self.to_rank = [a + b for a, b in zip(self.to_rank or [0] * len(counts), counts)]
            return result

        buffer.dispatch = counted


class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "deep_ep":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is None:
            return None
        run = spec.loader.exec_module

        def exec_module(module):
            run(module)
            Counter().wrap(module.Buffer)

        spec.loader.exec_module = exec_module
        return spec


if FOLDER:
    sys.meta_path.insert(0, Finder())
