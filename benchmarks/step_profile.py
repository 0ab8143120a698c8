"""Where the time of a training step goes, kernel by kernel: `python -m benchmarks.step_profile`.

Steps of the network that train.py makes and of the U-Net, compiled on a GPU as train.py does, under
`torch.profiler`. Prints a table of the kernels that take the longest, and how long the device is idle.
"""

import argparse
import time
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.report import table
from benchmarks.step_networks import FAST_UNET, OURS, SYSTEMS, Problem, Setting, Step
from binaural.device import choose_precision

STEPS, WARM_UP, SHOWN = 5, 3, 25
PROBLEMS = {"cuda": Problem(64, 256, 32), "cpu": Problem(8, 32, 2)}


def profile_step(name: str, problem: Problem, setting: Setting) -> tuple[list[tuple[str, float, int]], float]:
    """Name, milliseconds and launches of each kernel in a step, longest first; milliseconds of a step."""
    step = Step(SYSTEMS[name], problem, setting)
    on_gpu = setting.device == "cuda"

    def wait() -> None:
        if on_gpu:
            torch.cuda.synchronize()

    for _ in range(WARM_UP):
        step()
    wait()
    start = time.perf_counter()  # without the profiler, which slows the host
    for _ in range(STEPS):
        step()
    wait()
    milliseconds = 1e3 * (time.perf_counter() - start) / STEPS
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities) as recorded:
        for _ in range(STEPS):
            step()
        wait()

    def own_time(event: Any) -> float:
        return event.self_device_time_total if on_gpu else event.self_cpu_time_total

    # On a GPU only what ran there: the events of operators repeat the times of their kernels.
    events = [e for e in recorded.key_averages() if not on_gpu or e.device_type.name == "CUDA"]
    kernels = [(e.key, own_time(e) / 1e3 / STEPS, round(e.count / STEPS)) for e in events]
    return sorted(kernels, key=lambda kernel: -kernel[1]), milliseconds


def main() -> None:
    parser = argparse.ArgumentParser(description="Where the time of a training step goes, kernel by kernel.")
    devices = ("cuda", "cpu") if torch.cuda.is_available() else ("cpu",)
    parser.add_argument("--device", choices=devices, default=devices[0])
    options = parser.parse_args()
    problem, device = PROBLEMS[options.device], options.device
    precision, _ = choose_precision("auto", torch.device(device))
    print(f"# Profile of a training step: {problem}, {str(precision).removeprefix('torch.')}")
    for name in (OURS, FAST_UNET):
        kernels, milliseconds = profile_step(name, problem, Setting(device, precision, device == "cuda"))
        busy = sum(time for _, time, _ in kernels)
        print(f"\n## {name}\n")
        print(f"{milliseconds:.2f} ms per step; kernels take {busy:.2f} ms ({busy / milliseconds:.0%}).\n")
        lines = [
            (f"`{key[:100]}`", f"{time:.3f}", f"{time / busy:.1%}", launches)
            for key, time, launches in kernels[:SHOWN]
        ]
        print(table(("kernel", "ms per step", "share", "launches"), lines), flush=True)


if __name__ == "__main__":
    main()
