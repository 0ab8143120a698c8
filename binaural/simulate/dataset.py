"""A data set of simulated recordings in BatVision V2's layout, written in parallel and all or nothing."""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from binaural.simulate import depth_camera, echo_paths
from binaural.simulate.constants import SAMPLE_RATE
from binaural.simulate.mesh import load_mesh, random_mesh_pose
from binaural.simulate.rooms import random_pose, random_room
from binaural.simulate.scene import Pose, Scene

VERSION = 1  # counts changes after which the same seed gives other recordings
MANIFEST = "simulation.json"
LOCATION = "Simulated"
SPLITS = ("train", "val", "test")
COLUMNS = (
    "index", "time", "left audio time", "right audio time", "audio path", "audio file name",
    "camera time", "camera path", "camera file name", "depth time", "depth path", "depth file name",
)  # fmt: skip
DEPTH_WIDTH = 128
_THREAD_SETTINGS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Parameters:
    """All that decides a data set's content, and is written to its simulation.json.

    mesh is the SHA-256 of the mesh file's bytes, or None for random rooms.
    """

    rooms_train: int
    rooms_val: int
    rooms_test: int
    seed: int
    depth_width: int
    mesh: str | None
    version: int = VERSION

    def splits(self) -> Iterator[tuple[str, range]]:
        """Each split's name and the indices of its recordings, which no two splits share."""
        first = 0
        for split in SPLITS:
            count = getattr(self, f"rooms_{split}")
            yield split, range(first, first + count)
            first += count


def simulate_dataset(
    root: str | Path,
    rooms_train: int = 1500,
    rooms_val: int = 200,
    rooms_test: int = 200,
    seed: int = 0,
    depth_width: int = DEPTH_WIDTH,
    workers: int | None = None,
    mesh: str | Path | None = None,
    progress: bool = True,
) -> Path:
    """Write simulated recordings to root, one per room, unless they are there already.

    The same arguments give the same bytes, whatever the number of workers and however often the work was
    interrupted. It is done in `<root>.partial`, which becomes root when it is complete; a call after an
    interruption continues where the last one stopped, and a call for a complete data set returns at once. Two
    processes may call at the same time: one works, the other waits.

    Args:
        root: the data set's folder: `Simulated/{train,val,test}.csv`, `audio/`, `camera/`, `depth/` in it.
        rooms_train, rooms_val, rooms_test: recordings per split. Every recording is made in a room of its
            own, so the splits share no room. With a mesh they are places in that one mesh.
        seed: which rooms; not negative.
        depth_width: width in pixels of depth map and picture, at 16:9. The field of view is that of the
            real camera at any width, and loaders resize to what the network needs, so the default of 128
            serves training and takes 18 KB a sample; 1280 is the real camera's, and takes 1.8 MB.
        workers: processes, by default one per core.
        mesh: a mesh file to simulate in, instead of random rooms.
        progress: show a progress bar.

    Returns:
        root.

    Raises:
        ValueError: a bad argument, or a mesh in which no place for a sensor can be found.
        FileNotFoundError: no such mesh.
        FileExistsError: root or `<root>.partial` holds something else.
        OSError: root cannot be replaced, such as the mount point of a volume, or cannot be written; this is
            known before any room is simulated.
    """
    given, root = Path(root), Path(root).resolve()  # a link to a folder stays, its folder is filled
    parameters = _checked(rooms_train, rooms_val, rooms_test, seed, depth_width, workers, mesh)
    _refuse_other_content(root, parameters)
    _check_ray_casting()
    root.parent.mkdir(parents=True, exist_ok=True)
    with _locked(root.parent):
        if _refuse_other_content(root, parameters):
            return given
        partial = root.with_name(root.name + ".partial")
        _remove_empty(root)
        _prepare(partial, parameters)
        missing = [
            index
            for _, indices in parameters.splits()
            for index in indices
            if not _file(partial, "depth", index).exists()
        ]
        work = _Work(partial, parameters, None if mesh is None else Path(mesh).resolve())
        total = rooms_train + rooms_val + rooms_test
        with tqdm(
            total=total,
            initial=total - len(missing),
            desc="simulating echoes",
            unit="room",
            disable=not progress,
        ) as bar:
            for _ in _simulate_all(work, missing, workers or available_cores()):
                bar.update()
        os.replace(partial, root)
    return given


def _checked(
    rooms_train: int,
    rooms_val: int,
    rooms_test: int,
    seed: int,
    depth_width: int,
    workers: int | None,
    mesh: str | Path | None,
) -> Parameters:
    rooms = {"rooms_train": rooms_train, "rooms_val": rooms_val, "rooms_test": rooms_test}
    for name, value in rooms.items():
        if value < 1:
            raise ValueError(f"{name}: expected at least 1, got {value}")
    if seed < 0:
        raise ValueError(f"seed: expected 0 or more, got {seed}")
    if depth_width < 16 or depth_width % 16:
        raise ValueError(f"depth_width: expected a multiple of 16 (the map is 16:9), got {depth_width}")
    if workers is not None and workers < 1:
        raise ValueError(f"workers: expected at least 1, got {workers}")
    digest = None
    if mesh is not None:
        if not Path(mesh).is_file():
            raise FileNotFoundError(f"mesh {mesh}: no such file")
        digest = hashlib.sha256(Path(mesh).read_bytes()).hexdigest()
    return Parameters(rooms_train, rooms_val, rooms_test, seed, depth_width, digest)


def _refuse_other_content(root: Path, parameters: Parameters) -> bool:
    """Whether root is the complete data set; False when absent or empty; FileExistsError for the rest."""
    if not root.exists():
        return False
    if not root.is_dir():
        raise FileExistsError(f"{root}: expected a folder for the data set, found a file")
    manifest = root / MANIFEST
    if not manifest.exists():
        if any(root.iterdir()):
            raise FileExistsError(f"{root}: holds files but no {MANIFEST}; name an empty or a new folder")
        return False
    _check_manifest(manifest, parameters)
    return True


def _remove_empty(root: Path) -> None:
    """Remove an empty root before the work: if that fails, the finished data set could not replace it."""
    try:
        if root.is_dir():
            root.rmdir()
    except OSError as error:
        raise OSError(
            error.errno,
            f"{error.strerror}: a data set is built beside its folder and moved there, which a mount "
            f"point does not allow; name a folder in it, such as {root / 'simulated'}",
            str(root),
        ) from error


def _check_ray_casting() -> None:
    if find_spec("embreex") is None:
        raise ValueError("simulating needs embreex, which is not installed: pip install embreex")


def _check_manifest(manifest: Path, parameters: Parameters) -> None:
    try:
        found = json.loads(manifest.read_text())
    except json.JSONDecodeError as error:
        raise FileExistsError(f"{manifest}: not the JSON that a simulation writes ({error})") from error
    wanted = asdict(parameters)
    if found != wanted:
        differing = [key for key in wanted if not isinstance(found, dict) or found.get(key) != wanted[key]]
        described = ", ".join(
            f"{key} {found.get(key) if isinstance(found, dict) else None!r} there, {wanted[key]!r} asked for"
            for key in differing
        )
        raise FileExistsError(
            f"{manifest.parent}: holds a simulation with other parameters ({described}); "
            "name another folder or delete this one"
        )


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder's advisory lock, which the system releases however this process ends."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _prepare(partial: Path, parameters: Parameters) -> None:
    """Make the folders, the manifest and the CSV files; refuse a folder begun with other parameters."""
    manifest = partial / MANIFEST
    if partial.exists() and not manifest.exists():
        if any(path.is_file() for path in partial.rglob("*")):
            raise FileExistsError(f"{partial}: holds files but no {MANIFEST}; move it away")
        shutil.rmtree(partial)
    if manifest.exists():
        _check_manifest(manifest, parameters)
    else:
        partial.mkdir()
        _write(manifest, (json.dumps(asdict(parameters), indent=2) + "\n").encode())
    for kind in ("audio", "camera", "depth"):
        (partial / LOCATION / kind).mkdir(parents=True, exist_ok=True)
    for split, indices in parameters.splits():
        rows = [",".join(COLUMNS)]
        for index in indices:
            row = [str(index), "0", "0", "0"]
            for kind in ("audio", "camera", "depth"):
                file = _file(partial, kind, index)
                row += ["0"] * (kind != "audio") + [f"{LOCATION}/{kind}/", file.name]
            rows.append(",".join(row))
        _write(partial / LOCATION / f"{split}.csv", ("\n".join(rows) + "\n").encode())


def _file(root: Path, kind: str, index: int) -> Path:
    suffix = {"audio": "wav", "camera": "jpeg", "depth": "npy"}[kind]
    return root / LOCATION / kind / f"{kind}_{index}.{suffix}"


def _write(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(content)
    os.replace(temporary, path)


@dataclass(frozen=True)
class Recording:
    """One sample: audio [FRAMES, 2] int32, depth [H, W] uint16 in millimetres, picture [H, W, 3] uint8."""

    audio: NDArray[np.int32]
    depth: NDArray[np.uint16]
    picture: NDArray[np.uint8]


def simulate_recording(
    scene: Scene, pose: Pose, rng: np.random.Generator, depth_width: int = DEPTH_WIDTH
) -> Recording:
    """The recording of the rig's microphones and camera at a pose."""
    sound = echo_paths.record(scene, pose, rng)
    # 24 bits in a 32-bit container, as the real rig writes them.
    audio = np.rint(sound.T.astype(np.float64) * (2**23 - 1)).astype(np.int32) << 8
    size = depth_width, depth_width * 9 // 16
    depth, triangle = depth_camera.look(scene, pose, *size)
    return Recording(
        audio,
        depth_camera.measured_depth(scene, pose, depth, triangle, rng),
        depth_camera.picture(scene, pose, depth, triangle, rng),
    )


def random_place(
    parameters: Parameters, index: int, mesh: Path | None
) -> tuple[Scene, Pose, np.random.Generator]:
    """Scene and pose of recording number index, and the generator for the rest of the recording.

    The stream depends on seed, split and position in the split alone: a data set with more training
    rooms has the same test rooms.
    """
    split, place = next(
        (number, index - indices.start)
        for number, (_, indices) in enumerate(parameters.splits())
        if index in indices
    )
    rng = np.random.default_rng([parameters.seed, split, place])
    if mesh is not None:
        scene = _mesh_scene(mesh, parameters.seed)
        pose = random_mesh_pose(scene, rng)
        if pose is None:
            raise ValueError(
                f"mesh {mesh}: found no place for a sensor: free of contact and in view of a surface"
            )
        return scene, pose, rng
    while True:  # a room so crowded that nothing fits is rare: draw another
        scene, boxes = random_room(rng)
        pose = random_pose(scene, boxes, rng)
        if pose is not None:
            return scene, pose, rng


@cache
def _mesh_scene(mesh: Path, seed: int) -> Scene:
    return load_mesh(mesh, np.random.default_rng([seed, len(SPLITS)]))


@dataclass(frozen=True)
class _Work:
    """The job of a worker process: make recording number index and write its files."""

    folder: Path
    parameters: Parameters
    mesh: Path | None

    def __call__(self, index: int) -> None:
        scene, pose, rng = random_place(self.parameters, index, self.mesh)
        recording = simulate_recording(scene, pose, rng, self.parameters.depth_width)
        content = {kind: io.BytesIO() for kind in ("audio", "camera", "depth")}
        soundfile.write(content["audio"], recording.audio, SAMPLE_RATE, format="WAV", subtype="PCM_32")
        Image.fromarray(recording.picture).save(content["camera"], format="JPEG", quality=90)
        np.save(content["depth"], recording.depth, allow_pickle=False)
        for kind, buffer in content.items():  # the depth file, written last, marks the sample as complete
            _write(_file(self.folder, kind, index), buffer.getvalue())


def _simulate_all(work: _Work, indices: list[int], workers: int) -> Iterator[None]:
    """Make the recordings, yielding once for each; in this process when one worker is enough."""
    workers = min(workers, len(indices))
    if workers <= 1:
        for index in indices:
            work(index)
            yield
        return
    with ExitStack() as stack:
        stack.enter_context(_single_threaded())
        # A fork server starts clean, single-threaded children even when this process runs threads.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        pool = stack.enter_context(
            ProcessPoolExecutor(workers, mp_context=context, initializer=_begin_worker)
        )
        stack.callback(pool.shutdown, wait=True, cancel_futures=True)
        for _ in pool.map(work, indices, chunksize=4):
            yield


@contextmanager
def _single_threaded() -> Iterator[None]:
    """Let processes that are started here use one thread each; there is one process per core already."""
    before = {name: os.environ.get(name) for name in _THREAD_SETTINGS}
    os.environ.update(dict.fromkeys(_THREAD_SETTINGS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _begin_worker() -> None:
    """Leave Ctrl-C to the parent, and end with it even when it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def available_cores() -> int:
    """Cores that this process may use; all cores where the system does not tell (macOS)."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1
