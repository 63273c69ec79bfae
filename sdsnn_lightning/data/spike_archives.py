"""SHD and SSC from their authors' server."""

from pathlib import Path

from filelock import FileLock

from sdsnn_lightning.data.download import fetch_file, unpack
from sdsnn_lightning.errors import DataError
from sdsnn_lightning.whole import sweep_leftovers

ADDRESS = "https://zenkelab.org/datasets/"
MD5 = {
    "shd_train.h5": "f3252aeb598ac776c1b526422d90eecb",
    "shd_test.h5": "1503a5064faa34311c398fb0a1ed0a6f",
    "ssc_train.h5": "d102be95e7144fcc0553d1f45ba94170",
    "ssc_valid.h5": "b4eee3516a4a90dd0c71a6ac23a8ae43",
    "ssc_test.h5": "a35ff1e9cffdd02a20eb850c17c37748",
}
"""MD5 sums of the archives `<file>.zip` at `ADDRESS`, by file; as spikingjelly and tonic check them too."""
CLASSES = {"shd": 20, "ssc": 35}
"""Number of words of the sets that can be downloaded, by prefix."""


def fetch_spikes(path: Path) -> None:
    """Downloads and unpacks one file of SHD or SSC, unless it is there.

    Args:
        path: The file to be; its name is one of `MD5`.

    Raises:
        DataError: If it cannot be fetched, has another checksum, or cannot be unpacked or written. Nothing is at `path`
            then.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock")):
            if not path.is_file():
                archive = path.with_name(f"{path.name}.zip")
                sweep_leftovers(path)
                fetch_file(ADDRESS + archive.name, archive, md5=MD5[path.name])
                unpack(archive, path)
                archive.unlink()
    except OSError as error:
        raise DataError(
            f"{path} cannot be written ({error.strerror or error}); mend the rights there or name another folder"
        ) from error
