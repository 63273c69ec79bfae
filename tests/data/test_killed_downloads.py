"""`sdsnn data download` killed with -9, over https: the same command goes on, and half a file is never taken for whole.

The addresses are the published ones. A proxy on this machine, which the command finds as any other, in its environment,
answers in their servers' place, with a certificate made here.
"""

import hashlib
import multiprocessing
import os
import shutil
import signal
import ssl
import subprocess
import sys
import tarfile
import threading
import time
import traceback
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from speech_set import write_speech_set

from sdsnn_lightning.cli import main
from sdsnn_lightning.data.speech_download import ARCHIVES
from sdsnn_lightning.data.spike_archives import ADDRESS, MD5
from sdsnn_lightning.data.spike_files import SpikeSample, write_spike_file

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")

HOSTS = ("zenkelab.org", "storage.googleapis.com")
FORK = multiprocessing.get_context("fork")


class Proxy(ThreadingHTTPServer):
    """Serves `bodies` by path over TLS, to whoever asks this proxy for a way to any of `HOSTS`.

    Attributes:
        asked: Path and `Range` of every request.
        hold: After so many bytes of a body the server sends no more, until the client is gone.
        partly: Whether it knows ranges.
    """

    daemon_threads = True

    def __init__(self, certificate: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(certificate, certificate.with_suffix(".key"))
        self.bodies: dict[str, bytes] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.hold: int | None = None
        self.partly = True
        self.gone = threading.Event()

    def handle_error(self, request, client_address):
        pass  # clients that are killed are what these tests are about


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_CONNECT(self):  # noqa: N802
        assert self.path.partition(":")[0] in HOSTS
        self.send_response(200)
        self.end_headers()
        self.connection = self.server.tls.wrap_socket(self.connection, server_side=True)
        self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb")
        self.close_connection = False

    def do_GET(self):  # noqa: N802
        server, body, asked = self.server, self.server.bodies[self.path], self.headers.get("Range")
        server.asked.append((self.path, asked))
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and server.partly else 0
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        self.wfile.write(body[start : server.hold])
        self.wfile.flush()
        if server.hold is not None:
            server.gone.wait(120)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    names = ",".join(f"DNS:{host}" for host in HOSTS)
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test"]
    words += ["-addext", f"subjectAltName={names}", "-keyout", path.with_suffix(".key"), "-out", path]
    subprocess.run(words, check=True, capture_output=True)
    return path


@pytest.fixture
def proxy(certificate):
    with Proxy(certificate) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.gone.set()
        server.shutdown()
        thread.join()


class Published(NamedTuple):
    """A set as its server has it.

    Attributes:
        words: Of the command, up to the folder.
        archive: Name of the first archive that is fetched.
        sums: What they are checked against.
        made: Folder with what must be there in the end.
        part: Where the archive arrives, below the folder that the set's folder is made in.
        first: What stands there when it is unpacked, below the same.
    """

    words: list[str]
    archive: str
    sums: dict
    made: Path
    part: str
    first: str


def spikes(folder, server):
    """SHD: an archive of each of two files."""
    rng = np.random.default_rng(0)
    sums = {}
    for part in ("train", "test"):
        name = f"shd_{part}.h5"
        (folder / "set").mkdir(parents=True, exist_ok=True)
        rows = (np.sort(rng.uniform(0, 1, 20_000)).astype(np.float16) for _ in range(20))
        samples = [
            SpikeSample(times, rng.integers(0, 700, 20_000), k % 2, 0, "ab"[k % 2]) for k, times in enumerate(rows)
        ]
        write_spike_file(folder / "set" / name, samples, ["a", "b"])
        with zipfile.ZipFile(folder / f"{name}.zip", "w") as content:
            content.write(folder / "set" / name, name)
        body = (folder / f"{name}.zip").read_bytes()
        server.bodies["/" + ADDRESS.split("/", 3)[3] + f"{name}.zip"] = body
        sums[name] = hashlib.md5(body).hexdigest()
    assert set(sums) <= set(MD5)
    sums = {"md5": sums, "sha256": {}}
    return Published(
        ["shd"], "/datasets/shd_train.h5.zip", sums, folder / "set", "set/shd_train.h5.zip", "set/shd_train.h5"
    )


def words(folder, server):
    """Speech Commands: an archive of a folder."""
    write_speech_set(folder / "set")
    name = ARCHIVES[2].url.rpartition("/")[2]
    with tarfile.open(folder / name, "w:gz") as tar:
        tar.add(folder / "set", arcname=".")
    body = (folder / name).read_bytes()
    path = "/" + ARCHIVES[2].url.split("/", 3)[3]
    server.bodies[path] = body
    sums = {"md5": {}, "sha256": {2: hashlib.sha256(body).hexdigest()}}
    return Published(["speech-commands"], path, sums, folder / "set", name, "set")


def command(proxy, certificate, published, root, dies, said):
    """Is the command, in a plain environment but for the proxy; never returns."""
    os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    sys.stderr = os.fdopen(2, "w", buffering=1)
    for key in [key for key in os.environ if key.lower().endswith("_proxy")]:
        del os.environ[key]
    os.environ |= {"https_proxy": f"http://127.0.0.1:{proxy.server_port}", "SSL_CERT_FILE": str(certificate)}
    MD5.update(published.sums["md5"])  # those of what is served here
    for version, sha256 in published.sums["sha256"].items():
        ARCHIVES[version] = ARCHIVES[version]._replace(sha256=sha256, words=("bed", "cat"))

    def die(*_):
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60.0)  # the signal may take a moment

    if dies:  # when what is unpacked stands aside, and has not got its name
        replace = os.replace
        os.replace = lambda a, b: die() if os.fspath(b) in dies else replace(a, b)
    code: object = 0
    try:
        main(["data", "download", *published.words, str(root)])
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 1)


def start(proxy, certificate, published, root, dies=()):
    """The command in a process of its own, forked to spare it the imports."""
    said = root.parent.parent / "said"
    process = FORK.Process(target=command, args=(proxy, certificate, published, root, dies, said))
    process.start()
    return process


def end(process, tmp_path):
    """Its exit code and the lines it said."""
    process.join(120)
    return process.exitcode, (tmp_path / "said").read_text().strip().splitlines()


def kept(folder):
    """Names of all files and folders below one, but for locks."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.suffix != ".lock")


@pytest.mark.parametrize(("publish", "partly"), [(spikes, True), (spikes, False), (words, True)])
def test_a_download_that_is_killed_twice_ends_whole(proxy, certificate, tmp_path, publish, partly):
    published = publish(tmp_path / "made", proxy)
    place = tmp_path / "data"
    root, part, first = place / "set", place / published.part, place / published.first
    part = part.with_name(f"{part.name}.part")
    body = proxy.bodies[published.archive]

    # Killed while the server sends: a part is there, under a name of its own.
    proxy.hold, proxy.partly = len(body) // 2, partly
    process = start(proxy, certificate, published, root)
    while not part.exists() or part.stat().st_size < proxy.hold - 50_000:  # the rest may be in the file's buffer
        assert process.is_alive(), (tmp_path / "said").read_text()
        time.sleep(0.01)
    process.kill()
    assert end(process, tmp_path)[0] == -signal.SIGKILL
    arrived = part.stat().st_size
    assert part.read_bytes() == body[:arrived]
    assert arrived <= proxy.hold < len(body)
    assert not first.exists()
    assert not part.with_suffix("").exists()
    proxy.hold = None

    # It goes on from there, and is killed while the archive is unpacked: that is whole now, and what it holds is not.
    process = start(proxy, certificate, published, root, dies=(str(first),))
    assert end(process, tmp_path)[0] == -signal.SIGKILL
    asked = [(published.archive, None), (published.archive, f"bytes={arrived}-")]
    assert proxy.asked == asked
    assert part.with_suffix("").read_bytes() == body
    assert not first.exists()
    assert list(first.parent.glob(f".{first.name}.partial-*"))

    # The archive is not fetched again, and nothing is left of what was half unpacked.
    code, said = end(start(proxy, certificate, published, root), tmp_path)
    assert code == 0, said
    assert [request for request in proxy.asked[2:] if request[0] == published.archive] == []
    assert kept(root) == kept(published.made)
    for name in kept(root):
        assert (root / name).is_dir() or (root / name).read_bytes() == (published.made / name).read_bytes()
    assert kept(place) == ["set", *(f"set/{name}" for name in kept(root))]


def test_a_part_that_was_damaged_while_nobody_looked_is_never_used(proxy, certificate, tmp_path):
    published = words(tmp_path / "made", proxy)
    body, part = proxy.bodies[published.archive], tmp_path / "data" / f"{published.part}.part"
    part.parent.mkdir()
    part.write_bytes(bytes(len(body) // 2))  # as a power cut leaves what was never put on the disk
    code, said = end(start(proxy, certificate, published, tmp_path / "data" / "set"), tmp_path)
    (line,) = [line for line in said if line.startswith("error: ")]
    assert code == 2
    assert "has the sha256 sum" in line
    assert kept(tmp_path / "data") == [f"{published.part}.bad"]
    code, said = end(start(proxy, certificate, published, tmp_path / "data" / "set"), tmp_path)
    assert code == 0, said
    assert proxy.asked[-1] == (published.archive, None)
    assert kept(tmp_path / "data" / "set") == kept(published.made)


def test_a_server_that_is_not_who_it_says_is_refused_at_once(proxy, certificate, tmp_path):
    published = words(tmp_path / "made", proxy)
    system = Path(ssl.get_default_verify_paths().openssl_cafile)
    code, lines = end(start(proxy, system, published, tmp_path / "data" / "set"), tmp_path)
    assert code == 2
    assert "certificate verify failed" in lines[-1]
    assert lines[-1].startswith(f"error: {ARCHIVES[2].url} cannot be fetched")
    assert proxy.asked == []
    assert kept(tmp_path / "data") == []
