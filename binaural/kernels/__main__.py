"""`python -m binaural.kernels`: the backends that this machine can use, and the reason for each other one."""

import torch

from binaural.kernels.dispatch import extension
from binaural.kernels.dispatch.backends import OPERATIONS, WHY_UNAVAILABLE
from binaural.kernels.dispatch.coverage import coverage


def main() -> None:
    cuda = f"CUDA {torch.version.cuda}" if torch.version.cuda else "no CUDA"
    print(f"torch      {torch.__version__} ({cuda})")
    print(f"extension  {extension.WHY_NOT_LOADED or 'loaded'}")
    for operation, backends in OPERATIONS.items():
        print(operation)
        for backend in backends:
            reason = WHY_UNAVAILABLE[backend, operation]
            print(f"  {backend:<9}  {'available' if reason is None else f'unavailable: {reason}'}")
            print(f"  {'':<9}  covers {coverage(operation, backend)}")


if __name__ == "__main__":
    main()
