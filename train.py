"""Train a network that predicts depth from binaural echoes.

`python train.py` trains on simulated rooms, made on first use; `python train.py --help` lists the options.
"""

import signal
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Subset

from binaural.data import CachedEchoes, EchoDataset, Echoes, open_split
from binaural.data.loading import evaluation_loader
from binaural.device import choose_device, choose_precision
from binaural.evaluate import ConstantPredictor, evaluate, mean_depth
from binaural.kernels import use_backend
from binaural.metrics import METRICS
from binaural.models.loading import load_network
from binaural.pictures.curves import draw_curves
from binaural.pictures.predictions import draw_predictions
from binaural.simulate import simulate_dataset
from binaural.training.activations import checkpoint_activations
from binaural.training.allocator import set_up_heap
from binaural.training.build import make_loss, make_network
from binaural.training.checks import check_backend, check_data
from binaural.training.interruption import Interruption, StopRequested
from binaural.training.optimisation import choose_compile
from binaural.training.options import Options, parse_options
from binaural.training.processes import Processes
from binaural.training.run_folder import RunFolder, claim_run_folder
from binaural.training.sync_batchnorm import synchronise_batchnorm
from binaural.training.trainer import LossNotFinite, Trainer


def main(arguments: list[str] | None = None) -> None:
    options = parse_options(arguments)
    # Attention and loss take the backend as an argument; the fused layers take it from this context.
    kernels = use_backend(options.kernel_backend) if options.kernel_backend else nullcontext()
    try:
        with kernels, Processes(choose_device(options.device)) as processes:
            claim_and_train(options, processes)
    except (ValueError, OSError, LossNotFinite) as error:
        # The message of an error in a worker process is its traceback; the last line is the error.
        sys.exit(f"train.py: {str(error).rstrip().splitlines()[-1]}")
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        sys.exit(f"train.py: a worker process that loads data died, perhaps for lack of memory: {error}")
    except KeyboardInterrupt:
        sys.exit("train.py: stopped")


def claim_and_train(options: Options, processes: Processes) -> None:
    """Train in a folder that no other process uses."""
    claimed = claim_run_folder(options) if processes.main else None
    try:
        train(options, processes, Path(processes.from_main(lambda: str(claimed and claimed.path))))
    finally:
        if claimed is not None:
            claimed.release()


def train(options: Options, processes: Processes, path: Path) -> None:
    set_up_heap()
    torch.manual_seed(options.seed)
    device = processes.device
    precision, why_precision = choose_precision(options.precision, device)
    compiled, why_compiled = choose_compile(options.compile, device, options.sync_batchnorm)
    share = processes.share_of(options.batch_size)

    # Network
    network = make_network(options).to(device).to(memory_format=torch.channels_last)
    if options.sync_batchnorm and processes.count > 1:
        synchronise_batchnorm(network)
    if options.checkpoint_activations:
        checkpoint_activations(network)
    loss = make_loss(options, network)
    if options.kernel_backend is not None:
        check_backend(network, options, device, precision)

    # Data
    if options.dataset == "simulated":
        simulate_dataset(options.dataset_dir, rooms_train=options.simulated_rooms)
    splits = {split: open_dataset(options, split) for split in ("train", "val", "test")}
    train_set: Echoes
    val_set: Echoes
    train_set, val_set, test_set = splits.values()
    sizes = f"{len(train_set)} training, {len(val_set)} validation, {len(test_set)} test samples"
    print(f"{options.dataset}: {sizes}")
    check_data(options, **splits)
    parameters = sum(p.numel() for p in network.parameters())
    print(
        f"{options.model}: {parameters / 1e6:.1f} M parameters on {device}, "
        f"{str(precision).removeprefix('torch.')} ({why_precision}), "
        f"{'compiled' if compiled else 'eager'} ({why_compiled})"
        + (f", {processes.count} processes" if processes.count > 1 else "")
    )

    if options.cache:  # not the test split, which is read once
        train_set, val_set = (cached(options, splits[split], split) for split in ("train", "val"))

    # The run
    run = RunFolder(path, writes=processes.main)
    trainer = Trainer(options, network, loss, train_set, run, processes, precision, compiled)
    print(f"writing to {path}")
    run.begin(wandb_config=vars(options) if options.use_wandb else None)
    if options.resume:
        if (state := run.load_state()) is not None:
            try:
                trainer.load_state(state)
            except ValueError as error:
                raise ValueError(f"{run.state_file}: {error}") from error
        run.trim_log(trainer.total_steps)
        print(f"continuing in epoch {trainer.epoch + 1} after step {trainer.step}")
    run.write_json("config.json", {name: value for name, value in vars(options).items() if name != "resume"})

    def measure(network: torch.nn.Module, dataset: Echoes) -> dict[str, float]:
        """The metrics over all samples; each rank takes an equal share."""
        own = Subset(dataset, range(processes.rank, len(dataset), processes.count))
        batches = evaluation_loader(own, share, options.num_workers)
        metrics = evaluate(
            network,
            interruption.watch(batches),
            device=device,
            precision=precision,
            threshold=options.metric_threshold,
        )
        processes.add_up(metrics.state)
        return metrics.compute()

    with Interruption(processes) as interruption:
        try:
            while trainer.epoch < options.nb_epochs:
                trainer.train_epoch(interruption)
                processes.take_buffers_from_main(network)
                metrics = measure(network, val_set)
                run.log(
                    {"kind": "validation", "epoch": trainer.epoch + 1, "step": trainer.total_steps, **metrics}
                )
                print(f"validation: {describe(metrics)}")
                if trainer.finish_epoch(metrics["rmse"]):
                    run.save_network(run.best, network, description(options))
                save_last(run, trainer, options)

            print(f"test, pixels deeper than {options.metric_threshold:g} m:")
            processes.wait()  # until the first rank has saved
            best = load_network(run.best).to(device).to(memory_format=torch.channels_last)
            constant = ConstantPredictor(mean_depth(interruption.watch(train_set.depths())))
            results, floor = measure(best, test_set), measure(constant, test_set)
        except StopRequested as stop:
            trainer.check_losses()
            save_last(run, trainer, options)
            print(
                f"{stop}: saved in epoch {trainer.epoch + 1} after step {trainer.step}; "
                f"go on with --resume --experiment_name {path.name}"
            )
            return
        finally:
            trainer.close()
            run.close()
    if not processes.main:
        return
    width = max(len(options.model), len("constant"))
    print(f"  {options.model:<{width}} {describe(results)}")
    print(f"  {'constant':<{width}} {describe(floor)}")
    for dataset in splits.values():
        for remark in dataset.remarks():
            print(f"note: {remark}")
    run.write_json("metrics.json", {**results, "constant": floor, "threshold": options.metric_threshold})
    draw_curves(path / "curves.png", run.read_log(), loss.terms)
    draw_predictions(path / "predictions.png", best, test_set, device)
    print(f"see {path / 'predictions.png'} and {path / 'curves.png'}; the best weights are in {run.best}")


def open_dataset(options: Options, split: str) -> EchoDataset:
    """A split of the data set; excluded locations are in the test split alone.

    The training split for distillation also has the camera's pictures, the input of the teacher.
    """
    locations: dict[str, Any] = {}
    if options.exclude_locations:
        key = "locations" if split == "test" else "exclude_locations"
        locations[key] = options.exclude_locations
    dataset = open_split(
        options.dataset,
        options.dataset_dir,
        split,
        max_depth=options.max_depth,
        image_size=options.image_size,
        preprocessing=options.preprocessing,
        features=options.features,
        camera=options.model == "adabins_distill" and split == "train",
        augment=options.augment and split == "train",
        **locations,
    )
    dataset.waveforms = options.features_on == "device" and split == "train"
    return dataset


def cached(options: Options, dataset: EchoDataset, split: str) -> CachedEchoes:
    folder = Path(options.cache_dir or Path(options.dataset_dir, "cache"))
    return CachedEchoes(dataset, folder, split, options.num_workers)


def description(options: Options) -> dict[str, Any]:
    """How the network's input is made, for its `config.json`."""
    names = ("dataset", "image_size", "max_depth", "preprocessing", "features")
    return {"input": {name: getattr(options, name) for name in names}}


def save_last(run: RunFolder, trainer: Trainer, options: Options) -> None:
    run.save_network(run.last, trainer.network, description(options))
    run.save_state(trainer.state())


def describe(metrics: dict[str, float]) -> str:
    return "  ".join(f"{name} {metrics[name]:.3f}" for name in METRICS)


if __name__ == "__main__":
    # Before and after training, SIGTERM and SIGHUP end the run as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as it is under nohup
        signal.signal(signal.SIGHUP, signal.default_int_handler)
    main()
