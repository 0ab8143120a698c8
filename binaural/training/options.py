"""The command line of `train.py`, and what its options default to."""

import argparse
import importlib.util
import json
from pathlib import Path
from typing import Any, get_args

from binaural.command_line import SIMULATED_DIR, natural, not_negative, positive, positive_int
from binaural.data import BatVisionV2
from binaural.features import CAMERA, MAGNITUDE, SOUND
from binaural.models.binaural_attention import Matching
from binaural.models.checks import check_levels, check_skips
from binaural.models.levels import ALL_SKIPS
from binaural.simulate.constants import FRAMES

# What differs between a laptop's five minutes on simulated rooms and the full-size job on recordings.
_FULL_SIZE = {
    "image_size": 256,
    "max_depth": 30.0,
    "base_channels": 64,
    "batch_size": 32,
    "nb_epochs": 80,
    "num_workers": 8,
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
    "matching": "attention",
    "teacher": None,
    "attention_levels": [3, 5],
    "heads": 4,
    "scope": "time",
    "similarity": "shared",
    "max_lag": None,
    "ear_width": 1.0,
    "symmetric": True,
    "view_levels": None,
    "skip_levels": None,
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
    "channels_last": True,
    "kernel_backend": None,
    "experiment_name": None,
    "runs_dir": "runs",
    "resume": False,
    "log_interval": 10,
    "metric_threshold": 0.0,
    "use_wandb": False,
}
VIEW_LEVELS: dict[str, list[int]] = {"binaural": [3], "unet": []}
"""By default, of the models that can have a view transform."""
SKIP_LEVELS: dict[str, list[int]] = {"binaural": [3], "unet": list(ALL_SKIPS)}
"""By default, of the models that can go without some; `binaural` adds the levels that are matched."""

# A resumed run may change these; anything else would make it another run.
CHANGEABLE = {
    "dataset_dir", "cache_dir", "num_workers", "nb_epochs", "device", "compile", "kernel_backend",
    "checkpoint_activations", "log_interval", "use_wandb", "resume", "runs_dir", "experiment_name",
}  # fmt: skip

BEFORE_IT_WAS_AN_OPTION: dict[str, Any] = {
    "symmetric": False,
    "view_levels": [],
    "skip_levels": list(ALL_SKIPS),
}
"""What runs did whose config.json does not name these options, where that is not today's default."""

MODELS = ("binaural", "unet", "unet_pix2pix", "base_residual", "adabins_teacher", "adabins_distill")
_EDGE_AWARE = ("binaural", "unet")  # trained by the edge-aware loss; the others have losses of their own
_EDGE_AWARE_OPTIONS = ("use_adaptive_loss", "lambda_recon", "lambda_edge", "lambda_smooth")

Options = argparse.Namespace


def make_parser() -> argparse.ArgumentParser:
    """The parser; an option that was not given is absent from its result, so that it can be told apart."""
    parser = argparse.ArgumentParser(
        prog="train.py",
        description="Train a network that sees depth in binaural echoes. Without arguments: on echoes of "
        "simulated rooms, made on first use, in minutes on a laptop. With --dataset batvisionv2 "
        "--dataset_dir ...: on recordings, full size.",
        argument_default=argparse.SUPPRESS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="The run goes to RUNS_DIR/EXPERIMENT_NAME/: config.json, log.jsonl, metrics.json, best/ and "
        "last/ (weights as safetensors), predictions.png, curves.png. Ctrl-C saves and stops; --resume goes "
        "on.",
    )

    def add(group: argparse._ArgumentGroup, name: str, help: str, **kwargs: Any) -> None:
        key = name.removeprefix("--")
        by_dataset = {d: v[key] for d, v in DEFAULTS_BY_DATASET.items() if key in v}
        if by_dataset:
            values = ", ".join(f"{d}: {v}" for d, v in by_dataset.items() if v is not None)
            help += f" (default {values})"
        elif DEFAULTS[key] not in (None, False):
            value = DEFAULTS[key]
            help += f" (default {' '.join(map(str, value)) if isinstance(value, list) else value})"
        group.add_argument(name, help=help.replace("%", "%%"), **kwargs)

    data = parser.add_argument_group("data")
    add(data, "--dataset", "what to train on", choices=tuple(DEFAULTS_BY_DATASET))
    add(data, "--dataset_dir", "its folder", type=str)
    add(data, "--image_size", "rows and columns of spectrogram and depth map", type=positive_int)
    add(data, "--max_depth", "metres; echoes and depths beyond are cut", type=positive)
    add(
        data,
        "--preprocessing",
        "of recordings; official: as BatVision's code",
        choices=("default", "official"),
    )
    add(data, "--features", "what the network hears: magnitude, interaural phase difference (ipd), "
        "interaural cross-correlogram (gcc_phat), waveform windows; one or several", nargs="+",
        choices=SOUND)  # fmt: skip
    add(data, "--exclude_locations", "batvisionv2: locations to hold out of training and validation; the "
        "test is then on them alone", nargs="+", metavar="NAME")  # fmt: skip
    add(data, "--augment", "mirror the room, vary the gain, add noise", action=argparse.BooleanOptionalAction)
    add(data, "--cache", "decode and transform recordings once, and keep the result in files",
        action=argparse.BooleanOptionalAction)  # fmt: skip
    add(data, "--cache_dir", "folder of these files; DATASET_DIR/cache if not given", type=str)
    add(data, "--features_on", "what makes the features for training: the loader, from the cache; or the "
        "device, in batches, from waveforms with noise added", choices=("loader", "device"))  # fmt: skip
    add(data, "--simulated_rooms", "simulated: training rooms", type=positive_int)
    add(data, "--num_workers", "processes that load data", type=natural)

    model = parser.add_argument_group("model")
    add(model, "--model", "the network", choices=MODELS)
    add(model, "--teacher", "adabins_distill: folder of the trained adabins_teacher to learn from", type=str)
    add(model, "--base_channels", "channels of the finest level", type=positive_int)
    add(model, "--attention_levels", "levels that match the ears, 1 (finest) to 5", nargs="*", type=int)
    add(model, "--matching", "of the ears: by attention, or by a cost volume over lags up to --max_lag",
        choices=get_args(Matching))  # fmt: skip
    add(model, "--heads", "attention heads, or groups of the correlation", type=positive_int)
    add(model, "--scope", "match along time in each frequency, or the whole plane", choices=("time", "plane"))
    add(model, "--similarity", "one matrix for both directions, or one each", choices=("shared", "separate"))
    add(
        model,
        "--max_lag",
        "time steps beyond which echoes never match; attention has no limit and a cost volume 4 if not given",
        type=natural,
    )
    add(
        model,
        "--ear_width",
        "width of an ear's encoder relative to the U-Net's: at 0.63 the two need no more arithmetic than "
        "one, at 0.375 a large network takes half of the U-Net's time",
        type=positive,
    )
    add(
        model,
        "--symmetric",
        "the ears share their weights, and swapping them mirrors the picture by construction; off for ears "
        "that are no mirror images of each other",
        action=argparse.BooleanOptionalAction,
    )
    by_model = ", ".join(f"{name}: {' '.join(map(str, v)) or 'none'}" for name, v in VIEW_LEVELS.items())
    add(model, "--view_levels", "levels that also go through a view transform, from what is heard to where "
        f"the camera looks (default {by_model})", nargs="*", type=int)  # fmt: skip
    add(model, "--skip_levels", "levels, 1 to 4, whose maps the decoder sees beside what comes up from "
        "below (default binaural: 3 and those of --attention_levels; else all)",
        nargs="*", type=int)  # fmt: skip

    loss = parser.add_argument_group("loss")
    add(loss, "--use_adaptive_loss", "raise edge and smoothness weights during training", action="store_true")
    add(loss, "--lambda_recon", "weight of the depth error", type=not_negative)
    add(loss, "--lambda_edge", "weight of the edge error", type=not_negative)
    add(loss, "--lambda_smooth", "weight of the smoothness", type=not_negative)

    optimisation = parser.add_argument_group("optimisation")
    add(optimisation, "--batch_size", "samples a step, of all processes together", type=positive_int)
    add(optimisation, "--nb_epochs", "passes over the training set", type=positive_int)
    add(optimisation, "--learning_rate", "at its peak", type=positive)
    add(optimisation, "--optimizer", "the optimiser", choices=("adamw", "adam", "sgd"))
    add(optimisation, "--scheduler", "of the learning rate, after a short warm-up; step: a tenth after each "
        "third of the run", choices=("cosine", "step", "none"))  # fmt: skip
    add(optimisation, "--weight_decay", "of the optimiser", type=not_negative)
    add(optimisation, "--clip_gradient", "largest norm of the gradient; 0 for no limit", type=not_negative)
    add(optimisation, "--accumulate", "batches whose gradients make one step", type=positive_int)
    add(optimisation, "--seed", "of weights, order and augmentation", type=natural)

    speed = parser.add_argument_group("speed")
    add(speed, "--device", "auto, cpu, cuda or cuda:N", type=str)
    add(
        speed,
        "--precision",
        "auto: bf16 where the hardware multiplies it, else fp16 on a GPU and fp32 on a CPU",
        choices=("auto", "fp32", "bf16", "fp16"),
    )
    add(speed, "--compile", "torch.compile; auto: on a GPU", choices=("auto", "on", "off"))
    add(speed, "--checkpoint_activations", "forget activations and compute them again, to save memory",
        action="store_true")  # fmt: skip
    add(speed, "--sync_batchnorm", "with torchrun: batch norm over the samples of all processes",
        action="store_true")  # fmt: skip
    add(speed, "--channels_last", "memory layout", action=argparse.BooleanOptionalAction)
    add(speed, "--kernel_backend", "of attention, loss and fused layers; the best available if not given",
        choices=("reference", "cpp", "triton", "cuda"))  # fmt: skip

    run = parser.add_argument_group("run")
    add(run, "--experiment_name", "folder of the run; DATASET-MODEL, numbered, if not given", type=_file_name)
    add(run, "--runs_dir", "folder of the runs", type=str)
    add(run, "--resume", "go on with the run of that name from its last checkpoint", action="store_true")
    add(run, "--log_interval", "steps between updates of progress bar and log", type=positive_int)
    add(
        run,
        "--metric_threshold",
        "metres; pixels whose true depth is not above it do not count",
        type=not_negative,
    )
    add(run, "--use_wandb", "log to Weights & Biases too (pip install wandb)", action="store_true")
    return parser


def parse_options(arguments: list[str] | None = None) -> Options:
    """The options of a run: what was given, then what the resumed run had, then the defaults.

    Exits with a message, before anything is written, where an option is wrong.
    """
    parser = make_parser()
    given = vars(parser.parse_args(arguments))
    saved: dict[str, Any] = {}
    if given.get("resume"):
        if "experiment_name" not in given:
            parser.error("--resume needs --experiment_name: which run should go on?")
        saved = _saved_options(parser, given)
    dataset = given.get("dataset", saved.get("dataset", DEFAULTS["dataset"]))
    options = Options(**{**DEFAULTS, **DEFAULTS_BY_DATASET[dataset], **saved, **given})
    if options.view_levels is None:
        options.view_levels = VIEW_LEVELS.get(options.model, [])
    if options.skip_levels is None:
        matched = options.attention_levels if options.model == "binaural" else []
        options.skip_levels = sorted({*SKIP_LEVELS.get(options.model, ALL_SKIPS), *matched} & {*ALL_SKIPS})
    if options.model == "adabins_teacher" and "features" not in given:
        options.features = list(CAMERA)
    _check_together(parser, options)
    return options


def _saved_options(parser: argparse.ArgumentParser, given: dict[str, Any]) -> dict[str, Any]:
    path = Path(given.get("runs_dir", DEFAULTS["runs_dir"])) / given["experiment_name"] / "config.json"
    if not path.is_file():
        parser.error(f"--resume: there is no run at {path.parent}")
    try:
        saved = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        parser.error(f"--resume: {path} is not the JSON that train.py writes ({error})")
    saved = {**BEFORE_IT_WAS_AN_OPTION, **saved}
    for name, value in given.items():
        if name not in CHANGEABLE and name in saved and saved[name] != value:
            parser.error(
                f"--resume: the run was started with {name} = {saved[name]!r} and cannot go on with {value!r}"
            )
    return saved


def _check_together(parser: argparse.ArgumentParser, options: Options) -> None:
    """Refuse combinations that cannot work."""
    if options.dataset_dir is None:
        parser.error(f"--dataset {options.dataset} needs --dataset_dir, the folder that holds it")
    if options.dataset != "simulated" and not Path(options.dataset_dir).is_dir():
        parser.error(f"--dataset_dir: there is no folder {options.dataset_dir}")
    if (options.model == "adabins_teacher") != (tuple(options.features) == CAMERA):
        parser.error("--features: adabins_teacher sees the camera's picture, the others hear")
    if (options.model == "adabins_distill") != (options.teacher is not None):
        parser.error(
            "--teacher, a folder such as runs/simulated-adabins_teacher/best, goes with --model "
            "adabins_distill: train the teacher first, with --model adabins_teacher"
        )
    if options.model.startswith("adabins") and options.dataset == "batvisionv1":
        parser.error(f"--model {options.model} needs camera pictures: batvisionv2 and simulated have them")
    if options.features_on == "device" and tuple(options.features) == CAMERA:
        parser.error("--features_on device: a picture is read, not made of a waveform")
    if len(set(options.features)) != len(options.features):
        parser.error(f"--features must be different ones, got {' '.join(options.features)}")
    if options.preprocessing == "official" and tuple(options.features) not in (MAGNITUDE, CAMERA):
        parser.error("--features: the official preprocessing knows the magnitude alone")
    if options.image_size % 16:
        parser.error(f"--image_size must be a multiple of 16 for five levels, got {options.image_size}")
    if options.exclude_locations and options.dataset != "batvisionv2":
        parser.error(f"--exclude_locations: {options.dataset} has no locations, batvisionv2 does")
    if options.dataset == "simulated":
        if options.batch_size > options.simulated_rooms:
            parser.error(f"--batch_size {options.batch_size} is more than --simulated_rooms has")
        if BatVisionV2.frames_to(options.max_depth, options.preprocessing) > FRAMES:
            parser.error(
                f"--max_depth: simulated recordings end before the echo from {options.max_depth:g} m"
            )
    if options.seed >= 2**63:
        parser.error(f"--seed must be below 2^63, got {options.seed}")
    if options.use_wandb and importlib.util.find_spec("wandb") is None:
        parser.error("--use_wandb needs the package wandb: pip install wandb")
    try:
        check_levels("attention_levels", options.attention_levels)
        check_levels("view_levels", options.view_levels)
        attention = options.attention_levels if options.model == "binaural" else ()
        check_skips(options.skip_levels, options.view_levels, attention)
    except ValueError as error:
        parser.error(f"--{error}")
    if options.model not in SKIP_LEVELS and len(options.skip_levels) < len(ALL_SKIPS):
        parser.error(f"--skip_levels: {options.model} has no such option, {' and '.join(SKIP_LEVELS)} do")
    if options.view_levels and options.model not in VIEW_LEVELS:
        parser.error(f"--view_levels: {options.model} has no view transform, {' and '.join(VIEW_LEVELS)} do")
    if options.scope == "plane" and options.matching != "attention":
        parser.error(f"--matching {options.matching} needs --scope time: on a plane a lag has no meaning")
    if options.scope == "plane" and options.max_lag is not None:
        parser.error("--max_lag needs --scope time: on a plane a lag has no meaning")
    if options.model == "binaural" and options.symmetric and options.base_channels % 2:
        parser.error(
            f"--base_channels must be even, got {options.base_channels}; --no-symmetric takes odd ones too"
        )
    if options.model not in _EDGE_AWARE:
        changed = [name for name in _EDGE_AWARE_OPTIONS if getattr(options, name) != DEFAULTS[name]]
        if changed:
            parser.error(f"--{changed[0]}: {options.model} is trained by a loss of its own")
    if options.lambda_recon == options.lambda_edge == options.lambda_smooth == 0:
        parser.error("--lambda_recon, --lambda_edge and --lambda_smooth are all 0: there is nothing to learn")


def _file_name(text: str) -> str:
    if not text or Path(text).name != text or text in (".", ".."):
        raise argparse.ArgumentTypeError(f"expected the name of a folder, without a path, got {text!r}")
    return text
