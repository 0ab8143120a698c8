"""The recordings to predict depth from."""

from collections.abc import Iterable
from pathlib import Path

from torch import Tensor

from binaural.data import NetworkInput
from binaural.data.files import read_wav
from binaural.data.recording_checks import recording_faults


def find_recordings(inputs: Iterable[Path]) -> dict[str, Path]:
    """WAV files by the stem of their outputs: each input that is a file, and all .wav files in a folder.

    Hidden files in a folder, such as `._echo.wav` from macOS, are skipped.

    Raises:
        FileNotFoundError: an input does not exist, or is a folder without a WAV file.
        ValueError: two files have the same stem.
    """
    found: dict[str, Path] = {}
    for path in inputs:
        if path.is_dir():
            files = sorted(
                file
                for file in path.iterdir()
                if file.suffix.lower() == ".wav" and not file.name.startswith(".")
            )
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


def read_input(path: Path, network_input: NetworkInput) -> tuple[Tensor, list[str]]:
    """The network's input [C, S, S] of a stereo WAV file, and the recording's faults.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not a readable WAV file, not stereo, too short; the message names the file.
    """
    length = network_input.length
    recording, _ = read_wav(path, None if length is None else network_input.start + length)
    network_input.check_length(recording, path)
    return network_input(recording), recording_faults(recording, network_input.onsets)
