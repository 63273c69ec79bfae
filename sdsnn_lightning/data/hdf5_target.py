"""A file for HDF5 to write into that a full disk does not turn into the end of the process."""

from typing import Any


class Hdf5Target:
    """Hands on what HDF5 writes. What the disk refuses is raised by `check` and at the end, not within HDF5.

    HDF5 can neither go on with nor close a file on a full disk: the process would die of it. Here it believes that all
    was written.

    Example:
        >>> import tempfile, h5py
        >>> with tempfile.TemporaryFile() as file, Hdf5Target(file) as target, h5py.File(target, "w") as made:
        ...     made["x"] = 3
    """

    def __init__(self, file: Any) -> None:
        """Creates the target.

        Args:
            file: Open for reading and writing bytes, empty.
        """
        self.raw = file.raw  # a buffer would try again later, and raise where HDF5 calls
        self.seek, self.tell, self.readinto, self.read = self.raw.seek, self.raw.tell, self.raw.readinto, self.raw.read
        self.error: OSError | None = None

    def write(self, data: Any) -> None:
        """Writes at the file's place; nothing any more after an error."""
        left = memoryview(data).cast("B")
        try:
            while len(left) and self.error is None:
                left = left[self.raw.write(left) :]
        except OSError as error:
            self.error = error

    def truncate(self, size: int) -> None:
        """Sets the length of the file in bytes."""
        try:
            self.raw.truncate(size)
        except OSError as error:
            self.error = self.error or error

    def flush(self) -> None:
        """Nothing waits."""

    def check(self) -> None:
        """Raises what the disk has refused so far.

        Raises:
            OSError: The first refusal.
        """
        if self.error is not None:
            raise self.error

    def __enter__(self) -> "Hdf5Target":
        """Gives itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """Raises what the disk has refused, unless another error is on its way."""
        if kind is None:
            self.check()
