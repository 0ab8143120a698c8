"""Writing files so that an interruption leaves the old one or the new one, never half of one."""

import json
import os
from pathlib import Path
from typing import Any


def write_atomically(path: Path, content: bytes) -> None:
    """Replace `path` by `content`.

    Raises:
        OSError: the file cannot be written (a full disk, say); `path` is then as it was.
    """
    # Beside the target: a rename is atomic within one file system only.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}, what was there is kept", str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def remove_unfinished(folder: Path) -> None:
    """Remove what killed processes left of files that they were about to replace in `folder`."""
    for temporary in folder.glob(".*.tmp"):
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Replace `path` by `content` as JSON; raises as `write_atomically`."""
    write_atomically(path, (json.dumps(content, indent=2, default=_from_numpy) + "\n").encode())


def _from_numpy(value: Any) -> Any:
    """The Python number of a NumPy scalar, which the json module does not write by itself."""
    if getattr(value, "ndim", None) == 0:
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON: {value!r}")
