"""Worker processes that load data end with the process that started them."""

import subprocess
import sys

ERROR_WHILE_WORKERS_LOAD = """
import torch
from binaural.data.loading import evaluation_loader

class Samples(torch.utils.data.Dataset):
    def __len__(self):
        return 64
    def __getitem__(self, index):
        if index == 9:
            raise ValueError("sample 9 cannot be read")
        return torch.zeros(1)

kept = iter(evaluation_loader(Samples(), 2, 2))
for _ in kept:
    pass
"""


def test_an_error_in_a_worker_ends_the_process() -> None:
    """The workers ignore SIGTERM, so Python would wait for them at its exit."""
    command = [sys.executable, "-c", ERROR_WHILE_WORKERS_LOAD]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert "sample 9 cannot be read" in done.stderr
