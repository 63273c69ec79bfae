"""Fetching data sets: resumed, retried, checked against a checksum, and unpacked; whole or not there."""

import errno
import gzip
import hashlib
import http.client
import os
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from ssl import SSLCertVerificationError, SSLError
from typing import IO, Any, cast
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, OpenerDirector, ProxyHandler, Request, build_opener

from filelock import FileLock
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from sdsnn_lightning.errors import ConfigError, DataError
from sdsnn_lightning.whole import whole_file

ATTEMPTS = 5
"""Failures in a row, without a byte in between, after which a download is given up."""
TIMEOUT = 30.0  # seconds without a byte
_BLOCK = 1 << 20
_THIS_MACHINE = ("127.0.0.1", "::1", "localhost")
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)
_PASSING = (408, 425, 429, 500, 502, 503, 504)  # answers of a server that may be well again in a moment


class _Halt(Exception):
    """A failure that another attempt does not mend."""


def fetch_file(
    url: str,
    path: str | Path,
    md5: str | None = None,
    sha256: str | None = None,
    max_bytes: int = 1 << 34,
    pause: float = 1.0,
) -> Path:
    """Downloads a file, unless it is there.

    What has arrived stands in `<name>.part` until it is whole and its checksum is right, and an interrupted download
    goes on from there. A file with another checksum is set aside as `<name>.bad` and never used, also one that was put
    in the place by hand.

    Args:
        url: Its address, `https` (or `http` on this very machine), also after redirections.
        path: The file to be; its folder is made.
        md5: Its MD5 sum in hexadecimal digits.
        sha256: Its SHA-256 sum; one of both is needed.
        max_bytes: A longer file is refused.
        pause: Seconds before the second attempt; twice as many before every further one. At most `ATTEMPTS` failures in
            a row without a byte in between.

    Returns:
        `path`.

    Raises:
        ConfigError: If the address is not `https`, or there is no checksum.
        DataError: If the file cannot be fetched, is too long, has another checksum, or cannot be written.
    """
    path = Path(path)
    _check_address(url)
    if not (md5 or sha256):
        raise ConfigError(f"{url} has no checksum; give md5 or sha256 so that what arrives can be checked")
    kind, wanted = ("sha256", sha256) if sha256 else ("md5", cast(str, md5))
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock")):
            source, arrived = str(path), path  # put there by hand, or fetched by a process that ended or was first
            if not path.exists():
                source, arrived = url, part
                _receive(url, part, max_bytes, pause)
            with arrived.open("rb") as file:
                found = hashlib.file_digest(file, kind).hexdigest()
            if found != wanted.lower():
                bad = path.with_name(f"{path.name}.bad")
                os.replace(arrived, bad)
                raise DataError(
                    f"{source} has the {kind} sum {found} instead of {wanted}: kept as {bad} and not used; "
                    f"start again, or put the right file at {path}"
                )
            os.replace(arrived, path)
    except OSError as error:
        raise DataError(
            f"{path} cannot be written ({error.strerror or error}); free space or mend its rights, and start again"
        ) from error
    return path


def unpack(archive: str | Path, path: str | Path, max_bytes: int = 1 << 35) -> Path:
    """Unpacks one file from a `.gz` or `.zip`, block by block; it appears when it is whole.

    Args:
        archive: A `.gz`, or a `.zip` that holds a file called as `path`.
        path: The file to be; an older one is replaced.
        max_bytes: A longer file is refused.

    Returns:
        `path`.

    Raises:
        DataError: If the archive is broken, does not hold the file, or it is too long or cannot be written.
    """
    archive, path = Path(archive), Path(path)
    try:
        with _open_archive(archive, path.name) as packed, whole_file(path) as file:
            size = 0
            while block := packed.read(_BLOCK):
                size += len(block)
                if size > max_bytes:
                    raise DataError(f"{archive} holds more than {max_bytes / 1e9:g} GB; delete it and fetch it again")
                file.write(block)
    except (EOFError, zlib.error, zipfile.BadZipFile, gzip.BadGzipFile, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{archive} is broken ({error}); delete it and fetch it again") from error
    except OSError as error:
        raise DataError(
            f"{archive} cannot be unpacked to {path} ({error.strerror or error}); free space or mend the rights"
        ) from error
    return path


def _open_archive(archive: Path, name: str) -> IO[bytes]:
    """The unpacked bytes of the one file wanted. Its own name decides, so nothing lands in another place."""
    if archive.suffix == ".gz":
        return cast(IO[bytes], gzip.open(archive, "rb"))
    with zipfile.ZipFile(archive) as content:
        for member in content.namelist():
            if member.rsplit("/", 1)[-1] == name:
                return content.open(member)
    raise DataError(f"{archive} does not hold {name}; delete it and fetch it again")


def _check_address(url: str) -> None:
    """Only encrypted connections, but for a server on this machine."""
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _THIS_MACHINE):
        raise ConfigError(f"{url} is not an https address; data sets are fetched by https only")


class _SafeRedirect(HTTPRedirectHandler):
    """Follows no redirection to an address that could not have been asked for."""

    def redirect_request(self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Request | None:
        _check_address(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener(url: str) -> OpenerDirector:
    """Proxies as the environment says, but none to this machine."""
    handlers: list[Any] = [_SafeRedirect()]
    if urlsplit(url).hostname in _THIS_MACHINE:
        handlers.append(ProxyHandler({}))
    return build_opener(*handlers)


def _receive(url: str, part: Path, max_bytes: int, pause: float) -> None:
    """Receives into the part file, in as many attempts as make progress."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    name = part.name.removesuffix(".part")
    opener, failures = _opener(url), 0
    console = Console(stderr=True)
    rank_zero_info(f"Fetching {url}")
    with Progress(
        *columns, TimeRemainingColumn(), console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        task = progress.add_task(f"Fetching {name}", total=None)

        def show(done: int, total: int | None) -> None:
            progress.update(task, completed=done, total=total)

        while True:
            before = _size(part)
            try:
                _attempt(opener, url, part, max_bytes, show)
                return
            except (_Halt, OSError, http.client.HTTPException) as error:
                # the numbers of encryption's errors are of another kind: 1 is a record that arrived broken
                if isinstance(error, OSError) and not isinstance(error, SSLError) and error.errno in _DISK:
                    raise
                failures = 1 if _size(part) > before else failures + 1
                reason = getattr(error, "reason", None) or error
                if isinstance(reason, (_Halt, SSLCertVerificationError)) or failures >= ATTEMPTS:
                    arrived = _size(part)
                    why = " ".join((str(reason) or type(error).__name__).split())
                    kept = f"; {arrived / 1e6:.1f} MB are kept in {part} to go on from" if arrived else ""
                    raise DataError(
                        f"{url} cannot be fetched ({why}); "
                        f"check the network and start again, or put the file at {part.with_name(name)} by hand{kept}"
                    ) from error
            time.sleep(pause * 2 ** (failures - 1))


def _attempt(
    opener: OpenerDirector, url: str, part: Path, max_bytes: int, show: Callable[[int, int | None], None]
) -> None:
    """One connection: goes on from what the part file holds, and returns when it is whole.

    Raises:
        _Halt: If another attempt is of no use.
        OSError, HTTPException: If it may be, unless the disk is the reason.
    """
    have = _size(part)
    # Bytes as they are: a server that compresses on the way would count other bytes in ranges.
    headers = {"User-Agent": "sdsnn-lightning", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    try:
        response = opener.open(Request(url, headers=headers), timeout=TIMEOUT)
    except HTTPError as error:
        error.close()
        if error.code == 416 and have:  # nothing is left to send: whole, or of another file
            if error.headers.get("Content-Range") == f"bytes */{have}":
                return
            part.unlink()
            raise ConnectionError("the server has another file than the part that is here") from None
        if error.code in _PASSING:
            raise
        raise _Halt(f"the server answers {error.code} {error.reason}") from None
    with response:
        if response.status == 206 and not str(response.headers.get("Content-Range")).startswith(f"bytes {have}-"):
            part.unlink()
            raise ConnectionError("the server sent another part than was asked for")
        if response.status != 206:
            have = 0  # this server sends all of it again
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else None
        if max(have, total or 0) > max_bytes:
            raise _Halt(f"it is longer than {max_bytes / 1e9:g} GB")
        with part.open("ab" if have else "wb") as file:
            while block := response.read1(_BLOCK):
                have += len(block)
                if have > max_bytes:
                    raise _Halt(f"it is longer than {max_bytes / 1e9:g} GB")
                file.write(block)
                show(have, total)
    if total is not None and have < total:  # `read` does not say that the connection broke
        raise ConnectionError(f"the connection ended after {have} of {total} bytes")


def _size(part: Path) -> int:
    """Bytes that have arrived."""
    return part.stat().st_size if part.exists() else 0
