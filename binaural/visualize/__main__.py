"""python -m binaural.visualize: predictions beside true depth, and the lags that the attention matches."""

import argparse
from pathlib import Path

from binaural.checkpoint import Checkpoint, load_checkpoint
from binaural.command_line import add_data_options, choose_data, errors_in_one_line, natural
from binaural.device import choose_device
from binaural.evaluate.protocol import EvaluationSet, Protocol
from binaural.features import swap_ears
from binaural.pictures.predictions import draw_predictions
from binaural.visualize.attention_picture import MatchedRecording, draw_attention
from binaural.visualize.matches import attention_at, attention_levels, levels_of_cells, match

DESCRIPTION = """\
Draw the predictions and the attention of a trained network. Writes to --output:

  predictions.png          both spectrograms, prediction, true depth and error of a few recordings
  attention-I-level-L.png  attention weights of recording I at level L, for networks with attention

The second picture shows the attention weight at each lag between the ears, by frequency, relative to uniform
weights; the learned lag bias; over the spectrogram, the expected lag in milliseconds (the interaural time
difference) and the level difference at matched time steps (the interaural level difference); and both with
the ears swapped, which should change their sign. Colours fade where the level is low.
"""

EPILOG = """\
examples:
  python -m binaural.visualize runs/simulated-binaural/best
  python -m binaural.visualize runs/simulated-binaural/best --level 3 --index 0 7
"""


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m binaural.visualize",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("checkpoint", help="folder of a trained network, a run's best or last")
    add_data_options(parser)
    attention = parser.add_argument_group("attention")
    attention.add_argument(
        "--index", type=natural, nargs="+", default=[0], help="recordings, from 0 (default: 0)"
    )
    attention.add_argument(
        "--level", type=natural, help="1 (finest) to 5 (default: the finest with attention)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("visualization"),
        metavar="FOLDER",
        help="made if it is not there (default: %(default)s)",
    )
    return parser


def main(arguments: list[str] | None = None) -> None:
    options = make_parser().parse_args(arguments)
    with errors_in_one_line("binaural.visualize"):
        run(options)


def run(options: argparse.Namespace) -> None:
    device = choose_device(options.device)
    checkpoint = load_checkpoint(options.checkpoint, device)
    network_input = checkpoint.input
    dataset, folder = choose_data(options, network_input.dataset)
    protocol = Protocol(
        dataset,
        folder,
        options.split,
        max_depth=network_input.max_depth,
        image_size=network_input.image_size,
        preprocessing=network_input.preprocessing,
        locations=None if options.locations is None else tuple(options.locations),
    )
    recordings = EvaluationSet(protocol, network_input)
    network = checkpoint.network
    levels = attention_levels(network)
    level = levels[0] if levels and options.level is None else options.level
    if level is not None and attention_at(network, level).scope != "time":
        raise ValueError(
            f"{checkpoint.name} has attention over the plane: lags can be drawn for scope 'time' only"
        )
    for index in options.index:
        if index >= len(recordings):
            raise ValueError(f"--index {index}: there are {len(recordings)} recordings, from 0")

    options.output.mkdir(parents=True, exist_ok=True)
    draw_predictions(options.output / "predictions.png", network, recordings, device)
    print(f"see {options.output / 'predictions.png'}")
    if level is None:
        print(f"{checkpoint.name} has no attention to draw")
        return
    for index in options.index:
        path = options.output / f"attention-{index}-level-{level}.png"
        draw_level(path, checkpoint, recordings, index, level)
        print(f"see {path}")


def draw_level(path: Path, checkpoint: Checkpoint, recordings: EvaluationSet, index: int, level: int) -> None:
    """Draw the attention weights of `level` for one recording, also with its ears swapped."""
    network = checkpoint.network
    features, _ = recordings[index]
    stride = 2 ** (level - 1)
    recording = recordings.dataset.read_recording(index)
    matched = MatchedRecording(
        levels_of_cells(checkpoint.input.decibels(recording, recordings.lead_in), stride),
        match(network, features, level),
        match(network, swap_ears(features, checkpoint.input.features), level),
        1000 * stride * checkpoint.input.column_seconds(recording),
    )
    attention = attention_at(network, level)
    gains = [float(gain.detach().abs().mean()) for gain in attention.gains]
    title = (
        f"{recordings.files[index]}, level {level}: a time step is {matched.step_ms:.2f} ms; mean gain of "
        f"the attention output {gains[0]:.3f} (left) and {gains[1]:.3f} (right)"
    )
    bias = attention.bias_of_lags()
    draw_attention(path, title, matched, None if bias is None else bias.detach().cpu())


if __name__ == "__main__":
    main()
