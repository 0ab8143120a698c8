"""python -m binaural.visualize: predictions beside the truth, and what the attention matches."""

import argparse
import sys
from pathlib import Path

from binaural.checkpoint import Checkpoint, load_checkpoint
from binaural.command_line import add_data_options, choose_data, natural
from binaural.device import choose_device
from binaural.evaluate.protocol import EvaluationSet, Protocol
from binaural.features import swap_ears
from binaural.pictures.predictions import draw_predictions
from binaural.visualize.attention_picture import Heard, draw_attention
from binaural.visualize.matches import attention_at, attention_levels, levels_of_cells, match

DESCRIPTION = """\
Look inside a trained network. Writes to --output:

  predictions.png          both spectrograms, prediction, truth and error of a few recordings
  attention-I-level-L.png  what the ears match in recording I at level L of a network with attention

The second picture shows, by frequency, how much weight lies on each lag between the ears, against an
attention without preference; the learned bias of lags; over the spectrogram, the expected lag in milliseconds
(the interaural time difference that the network reads) and the level difference between an ear and what it
reads in the other (the interaural level difference), fading where the reader hears little; and how both move
with the ears swapped, when they should change their sign.
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
    attention.add_argument("--level", type=natural, help="1 (finest) to 5 (default: the finest that matches)")
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
    try:
        run(options)
    except (ValueError, OSError) as error:
        sys.exit(f"binaural.visualize: {error}")
    except KeyboardInterrupt:
        sys.exit("binaural.visualize: stopped")


def run(options: argparse.Namespace) -> None:
    device = choose_device(options.device)
    checkpoint = load_checkpoint(options.checkpoint, device)
    heard = checkpoint.input
    dataset, folder = choose_data(options, heard.dataset)
    protocol = Protocol(
        dataset,
        folder,
        options.split,
        max_depth=heard.max_depth,
        image_size=heard.image_size,
        preprocessing=heard.preprocessing,
        locations=None if options.locations is None else tuple(options.locations),
    )
    recordings = EvaluationSet(protocol, heard)
    network = checkpoint.network
    levels = attention_levels(network)
    level = levels[0] if levels and options.level is None else options.level
    if level is not None and attention_at(network, level).scope != "time":
        raise ValueError(f"{checkpoint.name} matches whole planes: its lags have no picture")
    for index in options.index:
        if index >= len(recordings):
            raise ValueError(f"--index {index}: there are {len(recordings)} recordings, from 0")

    options.output.mkdir(parents=True, exist_ok=True)
    draw_predictions(options.output / "predictions.png", network, recordings, device)
    print(f"see {options.output / 'predictions.png'}")
    if level is None:
        print(f"{checkpoint.name} has no attention to look at")
        return
    for index in options.index:
        path = options.output / f"attention-{index}-level-{level}.png"
        look_inside(path, checkpoint, recordings, index, level)
        print(f"see {path}")


def look_inside(
    path: Path, checkpoint: Checkpoint, recordings: EvaluationSet, index: int, level: int
) -> None:
    """Draw the attention of `level` on one recording, and with its ears swapped."""
    network = checkpoint.network
    features, _ = recordings[index]
    stride = 2 ** (level - 1)
    recording = recordings.dataset.read_recording(index)
    heard = Heard(
        levels_of_cells(checkpoint.input.decibels(recording, recordings.lead_in), stride),
        match(network, features, level),
        match(network, swap_ears(features, checkpoint.input.features), level),
        1000 * stride * checkpoint.input.column_seconds(recording),
    )
    attention = attention_at(network, level)
    gains = [float(gain.detach().abs().mean()) for gain in attention.gains]
    title = (
        f"{recordings.files[index]}, level {level}: a time step is {heard.step_ms:.2f} ms; what is read is "
        f"added with a mean gain of {gains[0]:.3f} (left) and {gains[1]:.3f} (right)"
    )
    bias = attention.bias_of_lags()
    draw_attention(path, title, heard, None if bias is None else bias.detach().cpu())


if __name__ == "__main__":
    main()
