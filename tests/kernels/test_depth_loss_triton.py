"""What is special to the Triton kernels of the depth loss: guards, and what is compiled for a GPU."""

import os
import re
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from backend import Backend
from depth_loss_cases import make, run

from binaural.kernels import edge_aware_loss

COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from binaural.kernels.depth_loss.triton_kernels import sweep

types = dict.fromkeys(["pred", "target", "weights", "coded", "partial"], "*fp32")
types |= dict.fromkeys(["pred_strides", "target_strides"], ("i64", "i64", "i64"))
types |= dict(height="i32", width="i32", ROWS="constexpr", COLUMNS="constexpr")
constants = {(sweep.arg_names.index(name),): value for name, value in (("ROWS", 16), ("COLUMNS", 128))}
source = ASTSource(fn=sweep, signature=types, constexprs=constants)
print(triton.compile(source, target=GPUTarget("cuda", 80, 32), options={"num_warps": 4}).asm["ttir"])
"""


def test_the_compiled_loop_carries_all_that_the_interpreted_one_does() -> None:
    # Triton 3.8 drops a variable that starts as the same tensor as the one that it is assigned in the loop;
    # its interpreter does not, so that only the compiled code shows it.
    pytest.importorskip("triton")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    ran = subprocess.run([sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    carried = re.search(r":(\d+) = scf\.for", ran.stdout)
    assert carried is not None
    # 5 sums, 2 rows of the gradient, 2 of the difference, and 2 rows of 5 columns of either image
    assert int(carried[1]) == 5 + 2 + 2 + 2 * 5 * 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 17, 33), (1, 40, 5)], ids=str)
def test_nothing_else_is_written(
    shape: tuple[int, ...], dtype: torch.dtype, check_guards: Callable[[], None]
) -> None:
    backend = Backend("triton", "cuda" if torch.cuda.is_available() else "cpu")
    backend.skip_unless_available("edge_aware_loss")
    run(*(t.to(backend.device, dtype) for t in make(shape)), backend.name)
    check_guards()


def test_float64_is_left_to_the_reference() -> None:
    backend = Backend("triton", "cuda" if torch.cuda.is_available() else "cpu")
    backend.skip_unless_available("edge_aware_loss")
    image = torch.ones(1, 4, 4, dtype=torch.float64, device=backend.device)
    with pytest.raises(ValueError, match="cannot run edge_aware_loss here: its kernels compute in float32"):
        edge_aware_loss(image, image, backend="triton")
