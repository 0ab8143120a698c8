"""A lock on a folder for as long as a process lives."""

import errno
import fcntl
import os
import warnings
from pathlib import Path
from typing import IO

LOCK = ".lock"
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}


class FolderInUse(ValueError):
    """Another process holds the lock on a folder."""


# Files of the locks that this process holds. A forked child closes them, or it would keep a lock alive.
_held: set[IO[bytes]] = set()


def _close_in_child() -> None:
    for file in _held:
        file.close()
    _held.clear()


os.register_at_fork(after_in_child=_close_in_child)


class FolderLock:
    """Exclusive use of a folder; the system releases the lock however the process ends.

    On a file system without locks the folder is used without one, after a warning.

    Args:
        folder: an existing folder.

    Raises:
        FolderInUse: another process has the lock; the message names the folder.
        OSError: the lock file cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOCK
        self._file: IO[bytes] = open(self.path, "ab")  # noqa: SIM115 it stays open while the lock is held
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            while os.fstat(self._file.fileno()).st_nlink == 0:  # removed by its owner after we opened it
                self._file.close()
                self._file = open(self.path, "ab")  # noqa: SIM115
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise FolderInUse(f"{folder} is in use by another process") from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                self._file.close()
                raise
            warnings.warn(
                f"the file system of {folder} has no locks: make sure that no other process writes to it",
                stacklevel=2,
            )

        _held.add(self._file)

    def release(self) -> None:
        """Release the lock and remove its file."""
        _held.discard(self._file)
        if not self._file.closed:
            # Removed before it is released: a process that opens it later makes a new file.
            self.path.unlink(missing_ok=True)
            self._file.close()
