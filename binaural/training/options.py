"""The command line of `train.py` and the defaults of its options."""

import argparse
import importlib.util
import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, get_args

import torch

from binaural.command_line import SIMULATED_DIR, natural, not_negative, positive, positive_int
from binaural.data import BatVisionV2
from binaural.data.network_input import LARGEST_IMAGE_SIZE
from binaural.features import CAMERA, MAGNITUDE, SOUND
from binaural.models.binaural_attention import BinauralAttentionOptions, Matching
from binaural.models.levels import ALL_SKIPS
from binaural.models.unet import UNetOptions
from binaural.simulate.constants import FRAMES
from binaural.simulate.dataset import available_cores
from binaural.training.batches import steps_per_epoch
from binaural.training.build import MODELS, make_network

# Differences between a few minutes on simulated rooms on a laptop and the full-size job on recordings.
_FULL_SIZE = {
    "image_size": 256,
    "max_depth": 30.0,
    "base_channels": 64,
    "batch_size": 32,
    "nb_epochs": 80,
    "num_workers": min(8, available_cores()),  # PyTorch warns of more workers than cores
}
DEFAULTS_BY_DATASET: dict[str, dict[str, Any]] = {
    "simulated": {
        "dataset_dir": SIMULATED_DIR,
        "image_size": 64,
        "max_depth": 12.0,
        "base_channels": 16,
        "batch_size": 16,
        "nb_epochs": 8,
        "num_workers": 0,
    },
    "batvisionv1": {"dataset_dir": None, **_FULL_SIZE, "max_depth": 12.0},
    "batvisionv2": {"dataset_dir": None, **_FULL_SIZE},
}
DEFAULTS: dict[str, Any] = {
    "dataset": "simulated",
    "preprocessing": "default",
    "features": ["magnitude"],
    "exclude_locations": [],
    "augment": True,
    "cache": True,
    "cache_dir": None,
    "features_on": "loader",
    "simulated_rooms": 1500,
    "model": "binaural",
    "teacher": None,
    "use_adaptive_loss": False,
    "lambda_recon": 1.0,
    "lambda_edge": 0.2,
    "lambda_smooth": 0.1,
    "optimizer": "adamw",
    "learning_rate": 1e-3,
    "weight_decay": 1e-4,
    "scheduler": "cosine",
    "clip_gradient": 1.0,
    "accumulate": 1,
    "seed": 0,
    "device": "auto",
    "precision": "auto",
    "compile": "auto",
    "checkpoint_activations": False,
    "sync_batchnorm": False,
    "kernel_backend": None,
    "experiment_name": None,
    "runs_dir": "runs",
    "resume": False,
    "log_interval": 10,
    "metric_threshold": 0.0,
    "use_wandb": False,
}
MODEL_OPTIONS: dict[str, type[BinauralAttentionOptions] | type[UNetOptions]] = {
    "binaural": BinauralAttentionOptions,
    "unet": UNetOptions,
}
"""Options that only some models have; their defaults are those of these classes."""

MODEL_OPTION_NAMES = tuple(field.name for field in fields(BinauralAttentionOptions))
_DEFAULTS_SHOWN = {**asdict(BinauralAttentionOptions()), **DEFAULTS, "view_levels": None, "skip_levels": None}

# A resumed run may change these options; any other change would make it another run.
CHANGEABLE = {
    "dataset_dir", "cache_dir", "num_workers", "nb_epochs", "device", "compile", "kernel_backend",
    "checkpoint_activations", "log_interval", "use_wandb", "resume", "runs_dir", "experiment_name",
}  # fmt: skip

OLDER_DEFAULTS: dict[str, Any] = {
    "symmetric": False,
    "view_levels": [],
    "skip_levels": list(ALL_SKIPS),
}
"""Values for runs whose config.json lacks these options because they did not exist yet."""

_EDGE_AWARE = ("binaural", "unet")  # trained with the edge-aware loss; the other models have their own losses
_EDGE_AWARE_OPTIONS = ("use_adaptive_loss", "lambda_recon", "lambda_edge", "lambda_smooth")

Options = argparse.Namespace


def make_parser() -> argparse.ArgumentParser:
    """The parser; options that are not given are absent from its result."""
    parser = argparse.ArgumentParser(
        prog="train.py",
        description="Train a network that predicts depth from binaural echoes. Without arguments: on echoes "
        "of simulated rooms, made on first use, in minutes on a laptop. With --dataset batvisionv2 "
        "--dataset_dir ...: on recordings, full size.",
        argument_default=argparse.SUPPRESS,
        epilog="The run goes to RUNS_DIR/EXPERIMENT_NAME/: config.json, log.jsonl, metrics.json, best/ and "
        "last/ (weights as safetensors), predictions.png, curves.png. Ctrl-C saves and stops; --resume "
        "continues.",
    )

    def add(group: argparse._ArgumentGroup, name: str, help: str, **kwargs: Any) -> None:
        if "choices" in kwargs:
            kwargs["type"] = str.lower
        key = name.removeprefix("--")
        by_dataset = {d: v[key] for d, v in DEFAULTS_BY_DATASET.items() if key in v}
        if by_dataset:
            values = ", ".join(f"{d}: {v}" for d, v in by_dataset.items() if v is not None)
            help += f" (default {values})"
        elif (value := _DEFAULTS_SHOWN.get(key)) is True:
            help += " (default on)"
        elif value not in (None, []) and value is not False:
            help += f" (default {' '.join(map(str, value)) if isinstance(value, list | tuple) else value})"
        group.add_argument(name, help=help.replace("%", "%%"), **kwargs)

    data = parser.add_argument_group("data")
    add(data, "--dataset", "the training data", choices=tuple(DEFAULTS_BY_DATASET))
    add(data, "--dataset_dir", "folder of the data set", type=str)
    add(data, "--image_size", "rows and columns of spectrogram and depth map", type=positive_int)
    add(data, "--max_depth", "metres; later echoes and larger depths are cut", type=positive)
    add(
        data,
        "--preprocessing",
        "preprocessing of recordings; official: as in BatVision's code",
        choices=("default", "official"),
    )
    add(data, "--features", "input features, one or several: magnitude, interaural phase difference (ipd), "
        "interaural cross-correlogram (gcc_phat), waveform windows", nargs="+",
        choices=SOUND)  # fmt: skip
    add(data, "--exclude_locations", "batvisionv2: locations to exclude from training and validation; the "
        "test split is then these locations", nargs="+", metavar="NAME")  # fmt: skip
    add(data, "--augment", "mirror the room, vary the gain, add noise", action=argparse.BooleanOptionalAction)
    add(data, "--cache", "keep decoded and transformed samples in files",
        action=argparse.BooleanOptionalAction)  # fmt: skip
    add(data, "--cache_dir", "folder of these files (default DATASET_DIR/cache)", type=str)
    add(data, "--features_on", "where training features are computed: in the loader, from the cache, or in "
        "batches on the device, from waveforms with noise added", choices=("loader", "device"))  # fmt: skip
    add(data, "--simulated_rooms", "simulated: number of training rooms", type=positive_int)
    add(data, "--num_workers", "worker processes that load data", type=natural)

    model = parser.add_argument_group("model")
    add(model, "--model", "the system", choices=tuple(MODELS))
    add(model, "--teacher", "adabins_distill: folder of the trained adabins_teacher", type=str)
    add(model, "--base_channels", "channels of the finest level", type=positive_int)
    add(
        model,
        "--attention_levels",
        "binaural: levels, 1 (finest) to 5, with cross-attention between the ears",
        nargs="*",
        type=int,
    )
    add(
        model,
        "--matching",
        "binaural: match the ears by attention or by a cost volume over lags",
        choices=get_args(Matching),
    )
    add(
        model,
        "--ear_width",
        "binaural: width of each ear's encoder relative to the U-Net's; at 0.63 both need no more arithmetic "
        "than one full encoder, at 0.375 a large network takes half of the U-Net's time",
        type=positive,
    )
    add(
        model,
        "--symmetric",
        "binaural: tie the weights of both ears, so that swapping the ears mirrors the prediction; "
        "--no-symmetric for ears that are not mirror images of each other",
        action=argparse.BooleanOptionalAction,
    )
    add(
        model,
        "--view_levels",
        "binaural, unet: levels whose features also pass through a view transform, from frequency and "
        "time to elevation and azimuth (default 3 for binaural, none for unet)",
        nargs="*",
        type=int,
    )
    add(
        model,
        "--skip_levels",
        "binaural, unet: levels, 1 to 4, with a skip connection to the decoder (default 3 and the attention "
        "levels for binaural, all for unet)",
        nargs="*",
        type=int,
    )

    loss = parser.add_argument_group("loss")
    add(loss, "--use_adaptive_loss", "raise edge and smoothness weights during training", action="store_true")
    add(loss, "--lambda_recon", "weight of the depth error", type=not_negative)
    add(loss, "--lambda_edge", "weight of the edge error", type=not_negative)
    add(loss, "--lambda_smooth", "weight of the smoothness", type=not_negative)

    optimisation = parser.add_argument_group("optimisation")
    add(optimisation, "--batch_size", "samples per step, over all ranks", type=positive_int)
    add(optimisation, "--nb_epochs", "passes over the training set", type=positive_int)
    add(optimisation, "--learning_rate", "peak learning rate", type=positive)
    add(optimisation, "--optimizer", "the optimiser", choices=("adamw", "adam", "sgd"))
    add(optimisation, "--scheduler", "learning rate schedule after a warm-up; step: divide by ten after "
        "each third of the run", choices=("cosine", "step", "none"))  # fmt: skip
    add(optimisation, "--weight_decay", "weight decay", type=not_negative)
    add(optimisation, "--clip_gradient", "largest norm of the gradient; 0 for no limit", type=not_negative)
    add(optimisation, "--accumulate", "batches per optimiser step", type=positive_int)
    add(optimisation, "--seed", "seed of weights, order and augmentation", type=natural)

    speed = parser.add_argument_group("speed")
    add(speed, "--device", "auto, cpu, cuda or cuda:N", type=str)
    add(
        speed,
        "--precision",
        "auto: bf16 where the hardware multiplies it, else fp16 on a GPU and fp32 on a CPU",
        choices=("auto", "fp32", "bf16", "fp16"),
    )
    add(speed, "--compile", "torch.compile; auto: on a GPU", choices=("auto", "on", "off"))
    add(speed, "--checkpoint_activations", "recompute activations in the backward pass, to save memory",
        action="store_true")  # fmt: skip
    add(speed, "--sync_batchnorm", "with torchrun: batch norm over the samples of all ranks",
        action="store_true")  # fmt: skip
    add(speed, "--kernel_backend", "backend of the fused operations (default the best available)",
        choices=("reference", "cpp", "triton", "cuda"))  # fmt: skip

    run = parser.add_argument_group("run")
    add(run, "--experiment_name", "folder of the run (default DATASET-MODEL, numbered)", type=_file_name)
    add(run, "--runs_dir", "folder of the runs", type=str)
    add(run, "--resume", "continue the run of that name from its last checkpoint", action="store_true")
    add(run, "--log_interval", "steps between updates of progress bar and log", type=positive_int)
    add(
        run,
        "--metric_threshold",
        "metres; only pixels with a larger true depth count in the metrics",
        type=not_negative,
    )
    add(run, "--use_wandb", "also log to Weights & Biases (pip install wandb)", action="store_true")
    return parser


def parse_options(arguments: list[str] | None = None) -> Options:
    """The options of a run: those given, then those of the resumed run, then the defaults.

    A resumed run keeps options that the command line no longer has, such as `heads`. Exits with a message,
    before anything is written, if an option is wrong.
    """
    parser = make_parser()
    given = vars(parser.parse_args(arguments))
    saved: dict[str, Any] = {}
    if given.get("resume"):
        if "experiment_name" not in given:
            parser.error("--resume needs --experiment_name, the name of the run to continue")
        saved = _saved_options(parser, given)
        _check_unchanged(parser, given, _with_defaults(saved))
    options = _with_defaults(saved | given)
    _check_given(parser, given, options.model)
    _check_together(parser, options)
    return options


def _with_defaults(chosen: dict[str, Any]) -> Options:
    """All options: the chosen ones, and the defaults of data set and model for the others."""
    by_dataset = DEFAULTS_BY_DATASET[chosen.get("dataset", DEFAULTS["dataset"])]
    options = DEFAULTS | by_dataset | chosen
    if options["model"] == "adabins_teacher" and "features" not in chosen:
        options["features"] = list(CAMERA)
    return Options(**(options | _model_options(options)))


def _model_options(merged: dict[str, Any]) -> dict[str, Any]:
    """All `MODEL_OPTION_NAMES`: from `merged` those that the model has, fixed values for the others."""
    kind = MODEL_OPTIONS.get(merged["model"])
    own = [] if kind is None else _names(kind)
    values = asdict(BinauralAttentionOptions(view_levels=(), skip_levels=ALL_SKIPS))
    if kind is not None:
        values |= asdict(kind(**{name: merged[name] for name in own if name in merged}))
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def _names(kind: type[BinauralAttentionOptions] | type[UNetOptions]) -> list[str]:
    return [field.name for field in fields(kind)]


def _saved_options(parser: argparse.ArgumentParser, given: dict[str, Any]) -> dict[str, Any]:
    path = Path(given.get("runs_dir", DEFAULTS["runs_dir"])) / given["experiment_name"] / "config.json"
    if not path.is_file():
        parser.error(f"--resume: there is no run at {path.parent}")
    try:
        saved = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        parser.error(f"--resume: {path} is not the JSON that train.py writes ({error})")
    if not isinstance(saved, dict):
        parser.error(f"--resume: {path} must be a JSON object of options, got {type(saved).__name__}")
    _check_saved(parser, path, saved)
    return {**OLDER_DEFAULTS, **saved}


def _check_unchanged(parser: argparse.ArgumentParser, given: dict[str, Any], resumed: Options) -> None:
    """Refuse given options that would make the resumed run a different one."""
    for name, value in given.items():
        if name not in CHANGEABLE and (before := getattr(resumed, name)) != value:
            parser.error(
                f"--resume: the run was started with {name} = {before!r}, which cannot become {value!r}"
            )


def _check_given(parser: argparse.ArgumentParser, given: dict[str, Any], model: str) -> None:
    """Refuse options that the system does not have."""
    own = _names(MODEL_OPTIONS[model]) if model in MODEL_OPTIONS else []
    for name in given:
        if name in MODEL_OPTION_NAMES and name not in own:
            models = " and ".join(model for model, other in MODEL_OPTIONS.items() if name in _names(other))
            parser.error(f"--{name} is an option of {models}, got --model {model}")
        if name in _EDGE_AWARE_OPTIONS and model not in _EDGE_AWARE:
            parser.error(f"--{name} is an option of {' and '.join(_EDGE_AWARE)}, got --model {model}")


def _check_saved(parser: argparse.ArgumentParser, path: Path, saved: dict[str, Any]) -> None:
    """Refuse a damaged config.json: unknown choices, and values of another type than the default."""
    choices = {action.dest: {*action.choices} for action in parser._actions if action.choices is not None}
    choices["features"].update(CAMERA)
    for name, value in saved.items():
        items = value if isinstance(value, list) else [value]
        if name in choices and value is not None and not {*map(str, items)} <= choices[name]:
            parser.error(f"--resume: {path}: {name} must be of {sorted(choices[name])}, got {value!r}")
        default = {**DEFAULTS, **DEFAULTS_BY_DATASET["simulated"]}.get(name)
        if default is not None and value is not None and not _is_alike(value, default):
            parser.error(f"--resume: {path}: {name} must be like {default!r}, got {value!r}")


def _is_alike(value: object, default: object) -> bool:
    """Whether a saved value has the type of the default; a whole number may stand for a float."""
    kinds = (int, float) if isinstance(default, float) else type(default)
    return isinstance(value, kinds) and isinstance(value, bool) == isinstance(default, bool)


def _check_together(parser: argparse.ArgumentParser, options: Options) -> None:
    """Refuse combinations that cannot work. The network itself checks its arguments."""
    if options.dataset_dir is None:
        parser.error(f"--dataset {options.dataset} needs --dataset_dir, the folder of the data set")
    if options.dataset != "simulated" and not Path(options.dataset_dir).is_dir():
        parser.error(f"--dataset_dir: there is no folder {options.dataset_dir}")
    if (options.model == "adabins_teacher") != (tuple(options.features) == CAMERA):
        parser.error(
            "--features: the input of adabins_teacher is the camera's picture, of other models sound"
        )
    if (options.model == "adabins_distill") != (options.teacher is not None):
        parser.error(
            "--teacher, a folder such as runs/simulated-adabins_teacher/best, goes with --model "
            "adabins_distill: train the teacher first, with --model adabins_teacher"
        )
    if options.model.startswith("adabins") and options.dataset == "batvisionv1":
        parser.error(f"--model {options.model} needs camera pictures: batvisionv2 and simulated have them")
    if options.features_on == "device" and tuple(options.features) == CAMERA:
        parser.error("--features_on device works for features of sound, got the camera's picture")
    if options.preprocessing == "official" and tuple(options.features) not in (MAGNITUDE, CAMERA):
        parser.error("--features: the official preprocessing has magnitude alone")
    if options.image_size % 16 or options.image_size > LARGEST_IMAGE_SIZE:
        parser.error(
            f"--image_size must be a multiple of 16 for five levels, at most {LARGEST_IMAGE_SIZE}, "
            f"got {options.image_size}"
        )
    if options.exclude_locations and options.dataset != "batvisionv2":
        parser.error(f"--exclude_locations: {options.dataset} has no locations, batvisionv2 does")
    if options.dataset == "simulated":
        try:
            steps_per_epoch(options.simulated_rooms, options.batch_size, options.accumulate)
        except ValueError as error:
            parser.error(f"--{error}")
        if BatVisionV2.frames_to(options.max_depth, options.preprocessing) > FRAMES:
            parser.error(
                f"--max_depth: simulated recordings end before the echo from {options.max_depth:g} m"
            )
    if options.seed >= 2**63:
        parser.error(f"--seed must be below 2^63, got {options.seed}")
    if options.use_wandb and importlib.util.find_spec("wandb") is None:
        parser.error("--use_wandb needs the package wandb: pip install wandb")
    try:
        with torch.device("meta"):  # no memory, no random numbers
            make_network(options)
    except ValueError as error:
        parser.error(f"--{error}")
    if options.lambda_recon == options.lambda_edge == options.lambda_smooth == 0:
        parser.error("--lambda_recon, --lambda_edge and --lambda_smooth must not all be 0")


def _file_name(text: str) -> str:
    if not text or Path(text).name != text or text in (".", ".."):
        raise argparse.ArgumentTypeError(f"expected the name of a folder, without a path, got {text!r}")
    return text
