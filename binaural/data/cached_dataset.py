"""A data set whose samples are decoded and transformed once, and mapped into memory from then on."""

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from binaural.data.augmentation import augment_cells
from binaural.data.cache_file import build_cache, locked, open_cache
from binaural.data.echo_dataset import EchoDataset, Recording
from binaural.data.front_end import FrontEnd
from binaural.data.noise import CellNoise
from binaural.data.spectrogram import LogSpectrogram, OfficialSpectrogram
from binaural.features import MAGNITUDE

_VERSION = "3"  # raise it when the same recordings and options would give another file than before


class CachedEchoes(Dataset[tuple[Tensor, ...]]):
    """`dataset`, served from a file that is made on first use and whenever the recordings or options change.

    The file holds what comes before the random variation: the depth map as it is, the camera's picture, and
    of the sound

    - the network's input where nothing varies it;
    - the magnitude of each cell where the input is a spectrogram (half precision where its scale is
      logarithmic: within 0.02 dB), so that mirror and gain stay exact and noise is added as power
      (`binaural.data.noise`);
    - the waveform where the input is anything else, or the device's work.

    It also holds what was met in making it, so that `dataset.remarks()` says so each time.

    Several processes may do this at the same time: one makes the file, the others wait.

    Args:
        dataset: what to serve; its options hold here too.
        folder: of the file; made if it is not there.
        name: of the split, and so of the file.
        num_workers: processes that decode while the file is made.

    Raises:
        OSError: the file cannot be written, for lack of space, say; what was there stays.
        ValueError: a recording cannot be used.
    """

    def __init__(self, dataset: EchoDataset, folder: Path, name: str, num_workers: int = 0) -> None:
        self.dataset = dataset
        self._cells = _cells(dataset)
        if dataset.waveforms or (dataset.augment and self._cells is None):
            self._kind = "waveform"
        else:
            self._kind = "magnitude" if dataset.augment else "input"
        self.path = folder / f"{name}-{self._kind}.safetensors"
        self._made_of = {
            "version": _VERSION,
            **dataset.description(),
            "recordings": _identity(dataset.recordings),
        }
        self._arrays = self._open(num_workers)
        self._noise: CellNoise | None = None
        if self._kind == "magnitude":
            assert self._cells is not None
            self._noise = CellNoise(self._cells.power, dataset.load(0)[0].shape[-1])

    @property
    def recordings(self) -> list[Recording]:
        return self.dataset.recordings

    @property
    def features(self) -> tuple[str, ...]:
        return self.dataset.features

    @property
    def front_end(self) -> FrontEnd | OfficialSpectrogram:
        return self.dataset.front_end

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        sound, *seen = (array[index] for array in self._arrays.values())
        seen = [x / 255 if x.dtype == torch.uint8 else x for x in seen]
        if self._kind == "input":
            return sound, *seen
        if self._kind == "waveform":
            return self.dataset.vary(sound, *seen)
        assert self._cells is not None
        assert self._noise is not None
        power, *seen = augment_cells(sound, *seen, noise=self._noise)
        return self._cells.scale(power), *seen

    def depths(self) -> Iterator[Tensor]:
        """The depth maps [1, S, S] of all items in order, without their sound."""
        return iter(self._arrays["depth"])

    def __getstate__(self) -> dict[str, Any]:
        """For a process that does not inherit the mapping: it maps the file itself."""
        return {**self.__dict__, "_arrays": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._arrays = self._map()

    def _map(self) -> dict[str, Tensor]:
        arrays = open_cache(self.path, self._made_of)
        self.dataset.met.copy_(arrays.pop("met"))
        return arrays

    def _open(self, num_workers: int) -> dict[str, Tensor]:
        try:
            return self._map()
        except (FileNotFoundError, ValueError):
            pass
        with ExitStack() as stack:
            with _naming_options(self.path, errno.EROFS, errno.EACCES, errno.EPERM):
                self.path.parent.mkdir(parents=True, exist_ok=True)
                stack.enter_context(locked(self.path))
            try:
                return self._map()  # another process has made it meanwhile
            except FileNotFoundError:
                pass
            except ValueError as difference:
                print(f"{self.path}: {difference}; making it anew")
            transformed = _Transformed(self.dataset, self._kind)
            first = transformed[0]
            names = ("sound", "depth", "met") if len(first) == 3 else ("sound", "depth", "picture", "met")
            arrays = {name: (part.dtype, part.shape) for name, part in zip(names, first, strict=True)}
            samples = DataLoader(transformed, None, num_workers=num_workers)
            bar = tqdm(samples, desc=f"caching {self.path.stem}", unit="sample")
            with _naming_options(self.path, errno.ENOSPC, errno.EDQUOT):
                build_cache(self.path, self._made_of, arrays, len(self), bar)
        return self._map()


@contextmanager
def _naming_options(path: Path, *numbers: int) -> Iterator[None]:
    """Let an OSError with one of these numbers name the options for another folder, or for no cache."""
    try:
        yield
    except OSError as error:
        if error.errno not in numbers:
            raise
        raise OSError(
            error.errno,
            f"{error.strerror}: cannot cache samples; name another folder with --cache_dir, or do "
            "without by --no-cache",
            str(path),
        ) from error


Echoes = EchoDataset | CachedEchoes


class _Transformed(Dataset[tuple[Tensor, ...]]):
    """What the file holds of each recording: sound in the form of that kind, depth, picture, what was met."""

    def __init__(self, dataset: EchoDataset, kind: str) -> None:
        self.dataset, self.kind, self.cells = dataset, kind, _cells(dataset)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        if self.kind == "input":
            return *self.dataset[index], self.dataset.met[index]
        sound, depth, *pictures = self.dataset.load_all(index)
        if self.kind == "magnitude":
            assert self.cells is not None
            sound = self.cells.power(sound).sqrt().to(self.cells.MAGNITUDE_DTYPE)
        pictures = [(255 * x).round().to(torch.uint8) for x in pictures]
        return sound, depth, *pictures, self.dataset.met[index]


def _cells(dataset: EchoDataset) -> LogSpectrogram | OfficialSpectrogram | None:
    """What makes the input, if that is a spectrogram and nothing else."""
    if dataset.features != MAGNITUDE:
        return None
    front_end = dataset.front_end
    return front_end if isinstance(front_end, OfficialSpectrogram) else front_end.spectrogram


def _identity(recordings: list[Recording]) -> str:
    """How many, and a digest of the files' names, sizes and times of change, wherever their folder lies."""
    files = [path for recording in recordings for path in recording.files]
    root = os.path.commonpath([path.parent for path in files])
    digest = hashlib.sha256()
    for path in files:
        status = path.stat()
        digest.update(f"{os.path.relpath(path, root)}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return f"{len(recordings)} ({digest.hexdigest()[:32]})"
