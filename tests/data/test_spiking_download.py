"""Spiking speech from a server: fetched, unpacked and named."""

import hashlib
import http.server
import threading
import zipfile

import pytest
from spiking_set import module, write

from sdsnn_lightning.data import SpikingHeidelberg, spike_archives
from sdsnn_lightning.errors import DataError


@pytest.fixture
def official(tmp_path, monkeypatch):
    """Archives as on the authors' server, at another address; `served` notes what was asked for."""
    served = []
    store = tmp_path / "server"
    store.mkdir()
    for part in ("train", "test"):
        write(tmp_path / "made", part, words=[f"w{k}" for k in range(20)], takes=1)
        with zipfile.ZipFile(store / f"shd_{part}.h5.zip", "w") as content:
            content.write(tmp_path / "made" / f"shd_{part}.h5", f"shd_{part}.h5")
        raw = (store / f"shd_{part}.h5.zip").read_bytes()
        monkeypatch.setitem(spike_archives.MD5, f"shd_{part}.h5", hashlib.md5(raw).hexdigest())

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(store))

        def log_message(self, *args):
            served.append(self.path)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setattr(spike_archives, "ADDRESS", f"http://127.0.0.1:{server.server_port}/")
    yield served
    server.shutdown()
    server.server_close()
    thread.join()


def test_download_fetches_unpacks_and_names_the_words(tmp_path, official):
    data = SpikingHeidelberg(root=str(tmp_path / "new"), download=True)
    assert data.data_source == "real"
    assert data.num_classes == 20
    assert not (tmp_path / "new").exists()
    data.prepare_data()
    data.setup("fit")
    assert data.class_names[19] == "w19"
    assert sorted(p.name for p in (tmp_path / "new").iterdir() if p.name[0] != ".") == ["shd_test.h5", "shd_train.h5"]
    asked = len(official)
    module(tmp_path / "new", download=True)
    assert len(official) == asked


def test_a_download_that_fails_leaves_no_set(tmp_path, official, monkeypatch):
    monkeypatch.setitem(spike_archives.MD5, "shd_test.h5", "0" * 32)
    data = SpikingHeidelberg(root=str(tmp_path / "new"), download=True)
    with pytest.raises(DataError, match="instead of 00000000"):
        data.prepare_data()
    with pytest.raises(DataError, match="shd_test.h5 does not exist"):
        SpikingHeidelberg(root=str(tmp_path / "new"))


def test_a_place_that_cannot_be_written(tmp_path, official):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="shd_train.h5 cannot be written .*; mend the rights there") as error:
        spike_archives.fetch_spikes(tmp_path / "file" / "shd" / "shd_train.h5")
    assert str(tmp_path / "file" / "shd") in str(error.value)
    assert not official
