"""The recordings that a prediction is asked for."""

from collections.abc import Iterable
from pathlib import Path

from torch import Tensor

from binaural.data import NetworkInput
from binaural.data.files import read_wav


def find_recordings(inputs: Iterable[Path]) -> dict[str, Path]:
    """WAV files by the names of what will be made of them: each input itself, or all in it that end in .wav.

    Raises:
        FileNotFoundError: an input is not there, or a folder without a WAV file.
        ValueError: two files would share a name.
    """
    found: dict[str, Path] = {}
    for path in inputs:
        if path.is_dir():
            files = sorted(file for file in path.iterdir() if file.suffix.lower() == ".wav")
            if not files:
                raise FileNotFoundError(f"{path}: no .wav file in this folder")
        elif path.is_file():
            files = [path]
        else:
            raise FileNotFoundError(f"{path}: no such file or folder, expected a WAV recording or a folder")
        for file in files:
            if file.stem in found:
                raise ValueError(
                    f"{found[file.stem]} and {file} would write files of one name: predict them separately"
                )
            found[file.stem] = file
    return found


def read_input(path: Path, network_input: NetworkInput) -> Tensor:
    """The network's input [C, S, S] of a stereo WAV file of any sample rate, as the network was trained.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not a readable WAV file, not stereo, too short; the message names the file.
    """
    length = network_input.length
    recording, _ = read_wav(path, None if length is None else network_input.start + length)
    network_input.check_length(recording, path)
    return network_input(recording)
