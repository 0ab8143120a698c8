"""Names of the recordings that are evaluated, where a CSV file holds absolute paths."""

import warnings

from binaural.data import NetworkInput
from binaural.evaluate.protocol import EvaluationSet, Protocol


def test_recordings_outside_the_data_folder_keep_their_absolute_path(rooms, tmp_path, monkeypatch):
    folder = rooms.resolve() / "Simulated"
    (tmp_path / "index/Simulated").mkdir(parents=True)
    table = (folder / "test.csv").read_text().replace("Simulated/", f"{folder}/")
    (tmp_path / "index/Simulated/test.csv").write_text(table)
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the files outside
        network_input = NetworkInput("simulated", 32, 10.0, "default")
        files = EvaluationSet(Protocol("simulated", "index", "test", 10.0, 32), network_input).files
    assert files == [str(folder / f"audio/audio_{index}.wav") for index in range(4, 9)]
