"""What a compiler tells about a GPU kernel: registers, spills, shared memory, tensor-core instructions."""

import os
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ARCHITECTURES = (80, 90, 100)
# HMMA: warp level; HGMMA: Hopper's warp groups; UTC..MMA: Blackwell's tensor memory.
TENSOR_CORE = r"\b(HMMA|HGMMA|UTC\w*MMA)\b"


@dataclass(frozen=True)
class Gpu:
    """Limits of one multiprocessor (CUDA C++ Programming Guide) and the data sheet's peaks of one card."""

    name: str
    flops: float  # dense bfloat16 and float16 with tensor cores, per second
    bandwidth: float  # bytes per second
    shared_memory: int  # bytes per multiprocessor
    warps: int = 64
    blocks: int = 32
    registers: int = 65536

    def occupancy(self, registers: int, shared_memory: int, warps: int) -> float:
        """Share of the warps of a multiprocessor that can be resident."""
        # Registers are given to a warp by 256; every block takes 1 KB of shared memory for the system.
        per_block = warps * (-(-registers * 32 // 256) * 256)
        blocks = min(
            self.blocks,
            self.warps // warps,
            self.registers // per_block,
            self.shared_memory // (shared_memory + 1024),
        )
        return blocks * warps / self.warps


# Data-sheet values, not measured ones.
GPUS = {
    80: Gpu("A100 SXM 80 GB", 312e12, 2.039e12, 164 << 10),
    90: Gpu("H100 SXM", 989e12, 3.35e12, 228 << 10),
    100: Gpu("B200", 2250e12, 8e12, 228 << 10),
}


@dataclass(frozen=True)
class Compiled:
    """What was found in the machine code of one kernel for one architecture."""

    registers: int
    stack: int  # bytes per thread; spilled registers lie there
    spills: int  # instructions that write or read the stack
    shared_memory: int  # bytes per block
    tensor_core: int  # instructions


def tool(name: str) -> str:
    """Path of cuobjdump or nvdisasm, which come with Triton."""
    import triton

    return str(Path(triton.__file__).parent / "backends/nvidia/bin" / name)


def inspect_cubin(cubin: bytes, shared_memory: int) -> Compiled:
    """Registers, stack and instructions of a cubin of one kernel with dynamic `shared_memory`."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        usage = _output(tool("cuobjdump"), "--dump-resource-usage", file.name)
        code = _output(tool("nvdisasm"), file.name)
    return parse(usage, code, shared_memory)


def parse(usage: str, code: str, shared_memory: int) -> Compiled:
    """Read cuobjdump's line of one function, and its machine code."""
    found = {name: int(value) for name, value in re.findall(r"(REG|STACK|SHARED):(\d+)", usage)}
    return Compiled(
        registers=found["REG"],
        stack=found["STACK"],
        spills=len(re.findall(r"\b(STL|LDL)\b", code)),
        shared_memory=found["SHARED"] + shared_memory,
        tensor_core=len(re.findall(TENSOR_CORE, code)),
    )


def inspect_library(library: Path) -> dict[tuple[str, int], Compiled]:
    """Every CUDA kernel in a shared library, by its mangled name and architecture.

    Dynamic shared memory is decided at launch and not in it.
    """
    kernels = {}
    for arch in ARCHITECTURES:
        usage = _output(
            tool("cuobjdump"), "--dump-resource-usage", f"--gpu-architecture=sm_{arch}", str(library)
        )
        code = _output(tool("cuobjdump"), "-sass", f"--gpu-architecture=sm_{arch}", str(library))
        bodies = dict(re.findall(r"Function : (\S+)\n(.*?)(?=\n\s*Function :|\Z)", code, re.DOTALL))
        for name, line in re.findall(r"Function (\S+):\n(.*)", usage):
            if name in bodies:
                kernels[name, arch] = parse(line, bodies[name], 0)
    return kernels


class CompileOnly:
    """A driver for Triton that compiles for `architecture` where there is no GPU, and launches nothing."""

    def __init__(self) -> None:
        self.architecture = ARCHITECTURES[0]

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", self.architecture, 32)

    def get_current_device(self) -> int:
        return self.architecture  # Triton keeps what it compiled by device

    def get_current_stream(self, device: int) -> int:
        return 0


def compile_launch(launch: Any, architecture: int) -> tuple[Compiled, int]:
    """Compile a Triton `Launch` of tensors on the meta device as a GPU would; also its warps.

    TRITON_INTERPRET must not be set: interpreted kernels cannot be compiled.
    """
    from triton.runtime.driver import driver

    if os.environ.get("TRITON_INTERPRET") == "1":
        raise RuntimeError("TRITON_INTERPRET=1 is set: kernels are interpreted, and cannot be compiled")
    compiler = CompileOnly()
    compiler.architecture = architecture
    driver.set_active(compiler)
    kernel = launch.kernel.warmup(
        *launch.arguments, grid=(1,), **launch.constants, **launch.config_for(architecture)
    )
    return inspect_cubin(kernel.asm["cubin"], kernel.metadata.shared), kernel.metadata.num_warps


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
