import functools
import hashlib
import io
import tarfile
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import soundfile
from speech_set import SPEAKERS, write_speech_set

from sdsnn_lightning.data.speech_commands import SpeechCommands
from sdsnn_lightning.data.speech_download import ARCHIVES, Archive, unpack_tar
from sdsnn_lightning.data.speech_words import WORDS_V1, WORDS_V2
from sdsnn_lightning.errors import DataError


def pack(folder, archive):
    """As the published archives: gzip, everything below `./`."""
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, arcname=".")
    return archive


@pytest.fixture
def server(tmp_path):
    """Serves `tmp_path/www` on this machine."""
    (tmp_path / "www").mkdir()
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "www"))
    handler.log_message = lambda *args: None
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}/"
        http.shutdown()


def test_the_published_archives():
    assert [len(ARCHIVES[version].words) for version in (1, 2)] == [30, 35]
    for archive in ARCHIVES.values():
        assert archive.url.startswith("https://")
        assert len(archive.sha256) == 64


def test_a_set_is_fetched_checked_unpacked_and_used(tmp_path, server, monkeypatch):
    packed = pack(write_speech_set(tmp_path / "made"), tmp_path / "www" / "commands.tar.gz")
    sha256 = hashlib.sha256(packed.read_bytes()).hexdigest()
    archive = Archive(server + packed.name, sha256, ("bed", "cat"))
    monkeypatch.setitem(ARCHIVES, 1, archive)
    root = tmp_path / "data" / "commands"
    data = SpeechCommands(root=str(root), download=True, version=1, classes=["cat", "bed"])
    assert data.data_source == "real"
    data.prepare_data()
    data.setup("fit")
    assert (len(data.train_set), len(data.val_set), len(data.test_set)) == (8, 4, 4)
    assert [path.name for path in root.parent.iterdir() if path.name[0] != "."] == ["commands"]  # no archive is left
    recorded, _ = soundfile.read(root / "cat" / f"{SPEAKERS[0]}_nohash_0.wav", dtype="int16")
    assert (data.test_set[0]["audio"][:12000].numpy() == recorded).all()
    again = SpeechCommands(root=str(root), download=True, version=1)
    packed.unlink()
    again.prepare_data()  # the folder is there: nothing is fetched
    assert again.class_names == ["bed", "cat"]

    monkeypatch.setitem(ARCHIVES, 2, archive._replace(sha256="0" * 64))
    pack(tmp_path / "made", packed)
    wrong = SpeechCommands(root=str(tmp_path / "other"), download=True)
    with pytest.raises(DataError, match="sha256") as error:
        wrong.prepare_data()
    assert "\n" not in str(error.value)
    assert not (tmp_path / "other").exists()


def test_classes_are_known_before_the_download(tmp_path):
    assert SpeechCommands(root=str(tmp_path / "no"), download=True).class_names == list(WORDS_V2)
    assert SpeechCommands(root=str(tmp_path / "no"), download=True, version=1).class_names == list(WORDS_V1)
    assert SpeechCommands(root=str(tmp_path / "no"), download=True, classes=12).num_classes == 12
    assert list(tmp_path.iterdir()) == []


def test_a_broken_archive_leaves_nothing(tmp_path):
    packed = pack(write_speech_set(tmp_path / "made"), tmp_path / "a.tar.gz")
    whole = packed.read_bytes()
    target = tmp_path / "out" / "set"
    target.parent.mkdir()

    def refused(match, **args):
        with pytest.raises(DataError, match=match) as error:
            unpack_tar(packed, target, **args)
        assert "a.tar.gz" in str(error.value)
        assert list(target.parent.iterdir()) == []

    refused("holds no dog", required=("bed", "dog"))
    refused("more than 1e-05 GB", most_bytes=10_000)
    packed.write_bytes(whole[: len(whole) // 2])  # the connection broke
    refused("cannot be unpacked")
    packed.write_bytes(whole[:-2000] + bytes(2000))
    refused("cannot be unpacked")
    packed.write_bytes(b"no archive")
    refused("cannot be unpacked")
    packed.write_bytes(whole)
    unpack_tar(packed, target, required=("bed", "cat", "testing_list.txt"))
    assert len(list(target.glob("*/*.wav"))) == 16


@pytest.mark.parametrize("kind", ["above", "absolute", "symlink", "hardlink", "device"])
def test_an_archive_cannot_write_outside_its_folder(tmp_path, kind):
    member = tarfile.TarInfo({"above": "bed/../../evil.wav", "absolute": str(tmp_path / "evil.wav")}.get(kind, "bed/x"))
    member.type = {"symlink": tarfile.SYMTYPE, "hardlink": tarfile.LNKTYPE, "device": tarfile.CHRTYPE}.get(
        kind, tarfile.REGTYPE
    )
    member.linkname = "../../../etc/passwd"
    member.size = 4 if member.isreg() else 0
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.addfile(member, io.BytesIO(b"evil"))
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match="no plain file below it"):
        unpack_tar(tmp_path / "a.tar", tmp_path / "out" / "set")
    assert list((tmp_path / "out").iterdir()) == []
    assert not (tmp_path / "evil.wav").exists()
