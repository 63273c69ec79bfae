import gzip
import hashlib
import os
import shutil
import ssl
import subprocess
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from sdsnn_lightning.data.download import ATTEMPTS, fetch_file, unpack
from sdsnn_lightning.errors import ConfigError, DataError

BODY = bytes(range(256)) * 4000  # 1 MB
MD5 = hashlib.md5(BODY).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves `body` with byte ranges; `plan` says what goes wrong, one request after the other."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.body, self.plan, self.ranges, self.where, self.partly = BODY, [], [], None, True

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/set.h5.zip"

    def handle_error(self, request, client_address):
        pass  # broken pipes are what these tests are about


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):  # noqa: N802
        server = self.server
        server.ranges.append(self.headers.get("Range"))
        step = server.plan.pop(0) if server.plan else "whole"
        if step == "move":
            self.send_response(302)
            self.send_header("Location", server.where)
            self.end_headers()
            return
        if isinstance(step, int):
            self.send_error(step)
            return
        if step == "hang up":
            return
        start = 0
        if self.headers.get("Range") and server.partly:
            start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            if start >= len(server.body):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(server.body)}")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(server.body) - 1}/{len(server.body)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(server.body) - start))
        self.end_headers()
        send = server.body[start:]
        if step == "broken record":  # past the encryption: the head of a record, and what no key fits
            self.wfile.write(send[:1000])
            os.write(self.connection.fileno(), b"\x17\x03\x03\x00\x20" + b"x" * 32)
            return
        self.wfile.write(send[: step[1]] if isinstance(step, tuple) else send)  # perhaps fewer than announced


@pytest.fixture
def server():
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def refused(match, url, path, **options):
    with pytest.raises(DataError, match=match) as error:
        fetch_file(url, path, **{"md5": MD5, "pause": 0.001, **options})
    assert "\n" not in str(error.value)
    assert not path.exists()
    return str(error.value)


def left(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def test_a_file_put_there_by_hand_is_checked_too(tmp_path):
    url, path = "https://nowhere.invalid/set.h5.zip", tmp_path / "set.h5.zip"
    path.write_bytes(BODY[:-1])
    assert str(path) in refused("md5 sum", url, path)
    assert left(tmp_path) == ["set.h5.zip.bad"]
    path.write_bytes(BODY)
    assert fetch_file(url, path, md5=MD5) == path


def test_a_file_comes_whole_and_once(server, tmp_path):
    path = tmp_path / "new" / "set.h5.zip"
    assert fetch_file(server.url, path, md5=MD5.upper()) == path
    assert path.read_bytes() == BODY
    assert left(path.parent) == ["set.h5.zip"]
    assert fetch_file(server.url, path, md5=MD5) == path
    assert server.ranges == [None]
    fetch_file(server.url, tmp_path / "b", sha256=hashlib.sha256(BODY).hexdigest())


def test_an_interrupted_transfer_goes_on_where_it_ended(server, tmp_path):
    server.plan = [("cut", 300_000), ("cut", 399), "whole"]
    fetch_file(server.url, tmp_path / "set.h5.zip", md5=MD5, pause=0.001)
    assert server.ranges == [None, "bytes=300000-", "bytes=300399-"]
    assert (tmp_path / "set.h5.zip").read_bytes() == BODY


def test_a_later_run_goes_on_too(server, tmp_path):
    path = tmp_path / "set.h5.zip"
    server.plan = [("cut", 1000), 404]
    message = refused("answers 404", server.url, path)
    assert "are kept in" in message
    assert left(tmp_path) == ["set.h5.zip.part"]
    fetch_file(server.url, path, md5=MD5)
    assert server.ranges[-1] == "bytes=1000-"
    assert path.read_bytes() == BODY


def test_a_part_that_is_whole_is_only_checked(server, tmp_path):
    (tmp_path / "set.h5.zip.part").write_bytes(BODY)
    fetch_file(server.url, tmp_path / "set.h5.zip", md5=MD5)
    assert (tmp_path / "set.h5.zip").read_bytes() == BODY


def test_a_part_that_is_too_long_is_thrown_away(server, tmp_path):
    (tmp_path / "set.h5.zip.part").write_bytes(BODY + b"more")
    fetch_file(server.url, tmp_path / "set.h5.zip", md5=MD5, pause=0.001)
    assert (tmp_path / "set.h5.zip").read_bytes() == BODY


def test_a_server_without_ranges_sends_all_again(server, tmp_path):
    server.partly, server.plan = False, [("cut", 300_000), "whole"]
    fetch_file(server.url, tmp_path / "set.h5.zip", md5=MD5, pause=0.001)
    assert (tmp_path / "set.h5.zip").read_bytes() == BODY


def test_a_busy_server_is_asked_again_and_a_missing_file_not(server, tmp_path):
    server.plan = [503, 500, "whole"]
    fetch_file(server.url, tmp_path / "a", md5=MD5, pause=0.001)
    assert len(server.ranges) == 3
    server.plan = [404]
    refused("the server answers 404 Not Found", server.url, tmp_path / "b")
    assert len(server.ranges) == 4
    server.plan = [503] * ATTEMPTS
    refused("Service Unavailable.*check the network", server.url, tmp_path / "b")
    assert len(server.ranges) == 4 + ATTEMPTS


def test_pauses_grow(server, tmp_path):
    server.plan = [503, 503, 503, "whole"]
    began = time.monotonic()
    fetch_file(server.url, tmp_path / "a", md5=MD5, pause=0.05)
    assert time.monotonic() - began > 0.05 + 0.1 + 0.2


def test_a_body_that_always_ends_early(server, tmp_path):
    server.partly, server.plan = False, [("cut", 1000)] * 20
    refused("connection ended after 1000 of 1024000 bytes", server.url, tmp_path / "set.h5.zip")
    assert left(tmp_path) == ["set.h5.zip.part"]


def test_a_wrong_checksum_is_set_aside_and_never_used(server, tmp_path):
    path = tmp_path / "set.h5.zip"
    server.body = BODY[:-1] + b"?"
    message = refused("has the md5 sum [0-9a-f]{32} instead of " + MD5, server.url, path)
    assert str(tmp_path / "set.h5.zip.bad") in message
    assert left(tmp_path) == ["set.h5.zip.bad"]
    assert (tmp_path / "set.h5.zip.bad").read_bytes() == server.body
    server.body = BODY
    fetch_file(server.url, path, md5=MD5)  # from the beginning, not from the bad one
    assert server.ranges == [None, None]
    assert path.read_bytes() == BODY


def test_a_part_of_another_file_is_found_out(server, tmp_path):
    (tmp_path / "set.h5.zip.part").write_bytes(b"x" * 1000)
    refused("md5 sum", server.url, tmp_path / "set.h5.zip")
    assert left(tmp_path) == ["set.h5.zip.bad"]


def test_no_server(server, tmp_path):
    gone = "http://127.0.0.1:9/set.h5.zip"  # the discard port: nobody listens
    match = "cannot be fetched .*refused.* check the network and start again, or put the file at"
    assert str(tmp_path / "a") in refused(match, gone, tmp_path / "a")
    assert left(tmp_path) == []


def test_a_server_that_goes_away(server, tmp_path):
    server.plan = [("cut", 500_000), *["hang up"] * 9]
    message = refused("cannot be fetched", server.url, tmp_path / "a")
    assert f"; 0.5 MB are kept in {tmp_path / 'a.part'}" in message
    assert left(tmp_path) == ["a.part"]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes a certificate with openssl")
def test_an_encrypted_record_that_arrives_broken_is_fetched_again(server, tmp_path, monkeypatch):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    made = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate, "-days", "1"]
    named = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run(["openssl", *made, *named], check=True, capture_output=True)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.plan = ["broken record"]
    url = server.url.replace("http://127.0.0.1", "https://localhost")
    path = fetch_file(url, tmp_path / "set", md5=MD5, pause=0.01)
    assert path.read_bytes() == BODY
    assert server.ranges == [None, "bytes=1000-"]


def test_no_name_server(tmp_path):
    refused("cannot be fetched .*check the network", "https://no-such-host.invalid/x.zip", tmp_path / "a")
    assert left(tmp_path) == []


def test_only_https(server, tmp_path):
    for url in ("http://example.org/x.zip", "ftp://example.org/x.zip", "file:///etc/passwd", "x.zip"):
        with pytest.raises(ConfigError, match="https"):
            fetch_file(url, tmp_path / "x", md5=MD5)
    server.plan, server.where = ["move"], "http://example.org/x.zip"
    with pytest.raises(ConfigError, match="http://example.org/x.zip is not an https address"):
        fetch_file(server.url, tmp_path / "x", md5=MD5)
    assert left(tmp_path) == []
    server.plan, server.where = ["move"], server.url
    fetch_file(server.url, tmp_path / "x", md5=MD5)
    with pytest.raises(ConfigError, match="no checksum"):
        fetch_file(server.url, tmp_path / "y")


def test_too_long(server, tmp_path):
    refused("longer than 1e-06 GB", server.url, tmp_path / "x", max_bytes=1000)
    assert left(tmp_path) == []


def test_a_place_that_cannot_be_written(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        fetch_file(server.url, tmp_path / "file" / "x", md5=MD5)


def test_two_at_once_fetch_once(server, tmp_path):
    threads = [
        threading.Thread(target=fetch_file, args=(server.url, tmp_path / "x"), kwargs={"md5": MD5}) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.ranges == [None]


@pytest.fixture(params=["gz", "zip"])
def archive(request, tmp_path):
    path = tmp_path / f"a.h5.{request.param}"
    if request.param == "gz":
        path.write_bytes(gzip.compress(os.urandom(1000) + BODY))
    else:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as content:
            content.writestr("readme.txt", "x")
            content.writestr("../folder/a.h5", os.urandom(1000) + BODY)
    return path


def test_archives_are_unpacked_to_the_place_asked_for(archive, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    unpack(archive, out / "a.h5")
    assert (out / "a.h5").read_bytes()[1000:] == BODY
    assert left(out) == ["a.h5"]
    assert not (tmp_path / "folder").exists()


@pytest.mark.parametrize("damage", ["truncated", "flipped", "foreign"])
def test_a_broken_archive_leaves_nothing(archive, tmp_path, damage):
    out = tmp_path / "out"
    out.mkdir()
    raw = bytearray(archive.read_bytes())
    if damage == "truncated":
        raw = raw[:-50]
    elif damage == "flipped":
        raw[600] ^= 0xFF
    else:
        raw = bytearray(b"<html>not found</html>")
    archive.write_bytes(raw)
    with pytest.raises(DataError, match="is broken|cannot be unpacked") as error:
        unpack(archive, out / "a.h5")
    assert str(archive) in str(error.value)
    assert left(out) == []


def test_an_archive_that_is_too_big_or_holds_something_else(archive, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(DataError, match="more than 0.0005 GB"):
        unpack(archive, out / "a.h5", max_bytes=500_000)
    if archive.suffix == ".zip":
        with pytest.raises(DataError, match="does not hold b.h5"):
            unpack(archive, out / "b.h5")
    assert left(out) == []
