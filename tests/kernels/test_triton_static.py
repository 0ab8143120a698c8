"""What the compiler makes of the Triton kernels for GPUs, found out without one."""

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("triton")

# In a process of its own, because kernels that are interpreted here cannot be compiled here.
COMPILE = """
import dataclasses, json, torch
from benchmarks.gpu_calls import cross_attention_entries
from benchmarks.gpu_static import ARCHITECTURES, compile_launch
found = []
for entry in cross_attention_entries():
    if "(128, 32" in entry.label or "(64, 16" in entry.label:
        for launch in entry.launches(torch.device("meta"), entry.count):
            for architecture in ARCHITECTURES:
                compiled, _ = compile_launch(launch, architecture)
                found.append([entry.label, architecture, dataclasses.asdict(compiled)])
print(json.dumps(found))
"""


@pytest.mark.slow
def test_tensor_cores_and_no_spills() -> None:
    """At the two deepest levels; `python -m benchmarks.gpu_report` looks at all of them."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", COMPILE], env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    found = json.loads(done.stdout)
    assert len(found) == 12
    for label, architecture, compiled in found:
        assert compiled["tensor_core"] > 0, (label, architecture)
        assert compiled["spills"] == compiled["stack"] == 0, (label, architecture, compiled)
