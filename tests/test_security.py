"""What must never be done with foreign files, addresses and words, looked for in the source and tried."""

import ast
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from places import REPOSITORY

from sdsnn_lightning.checkpoints import WholeCheckpoints, load_checkpoint
from sdsnn_lightning.data import download, speech_download, spike_archives
from sdsnn_lightning.data.clip_cache import ClipCache
from sdsnn_lightning.data.event_cache import EventFrames
from sdsnn_lightning.data.spike_cache import SpikeCache
from sdsnn_lightning.data.waveform_cache import open_waveforms
from sdsnn_lightning.errors import ConfigError, DataError

SOURCES = sorted((REPOSITORY / "sdsnn_lightning").rglob("*.py"))


def calls():
    """File, dotted name and node of every call in the package."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                yield path, ast.unparse(node.func), node


def option(node, name):
    return next((ast.unparse(word.value) for word in node.keywords if word.arg == name), None)


def test_the_source_reads_no_pickle_runs_no_shell_and_opens_addresses_in_one_place():
    found = set()
    for path, name, node in calls():
        where = f"{path.name}:{node.lineno}: {name}"
        if name == "torch.load":
            assert option(node, "weights_only") == "True", where
        elif name in ("np.load", "numpy.load"):
            assert option(node, "allow_pickle") == "False", where
        assert option(node, "shell") is None, where
        assert name not in ("eval", "exec", "os.system", "os.popen", "pickle.load", "pickle.loads", "yaml.load"), where
        assert name.rsplit(".", 1)[-1] not in ("extractall", "unsafe_load", "full_load", "urlretrieve"), where
        if name.startswith("subprocess.") and node.args:
            assert not isinstance(node.args[0], (ast.Constant, ast.JoinedStr, ast.BinOp)), where  # words, not a string
        if name in ("torch.load", "build_opener", "tarfile.open", "zipfile.ZipFile", "tar.extract"):
            found.add((path.name, name))
    # That this test sees what it looks for; a new place belongs on this list once it has been thought about.
    assert found == {
        ("checkpoints.py", "torch.load"),
        ("checkpoints.py", "zipfile.ZipFile"),  # reads checksums, unpacks nothing
        ("download.py", "build_opener"),
        ("download.py", "zipfile.ZipFile"),
        ("image_sets.py", "tarfile.open"),  # reads members, writes none
        ("speech_download.py", "tarfile.open"),
        ("speech_download.py", "tar.extract"),
    }


def test_every_address_is_https_and_has_a_checksum():
    assert spike_archives.ADDRESS.startswith("https://")
    assert all(len(bytes.fromhex(md5)) == 16 for md5 in spike_archives.MD5.values())
    for archive in speech_download.ARCHIVES.values():
        assert archive.url.startswith("https://")
        assert len(bytes.fromhex(archive.sha256)) == 32
    fetches = [node for _, name, node in calls() if name == "fetch_file"]
    assert len(fetches) == 2
    assert all(option(node, "md5") or option(node, "sha256") for node in fetches)
    with pytest.raises(ConfigError, match="https"):
        download.fetch_file("http://127.0.0.1.example.org/x", "x", md5="0" * 32)


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        import os

        return os.mkdir, (self.path,)


def test_no_file_that_is_read_runs_code(tmp_path):
    trap, files = Trap(tmp_path / "sprung"), []
    for name in ("a.ckpt", "old.ckpt", "plain.ckpt"):
        files.append(tmp_path / name)
    torch.save({"state_dict": {}, "x": trap}, files[0])
    torch.save({"state_dict": {}, "x": trap}, files[1], _use_new_zipfile_serialization=False)
    files[2].write_bytes(pickle.dumps(trap))
    for file in files:
        with pytest.raises(ConfigError, match="cannot be read as a checkpoint"):
            load_checkpoint(file, "it")
        with pytest.raises(ConfigError, match="cannot be read as a checkpoint"):
            WholeCheckpoints().load_checkpoint(file, weights_only=True)
    cache = tmp_path / "x.npy"
    np.save(cache, np.array([trap], dtype=object), allow_pickle=True)
    end = cache.stat().st_size
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips/index.json").write_text('{"files": "", "modalities": ["frames"], "size": 1, "counts": [1]}')
    (tmp_path / "clips/frames.npy").write_bytes(cache.read_bytes())
    for opens in (open_waveforms, SpikeCache, lambda _: ClipCache(tmp_path / "clips")):
        with pytest.raises(DataError, match="damaged"):
            opens(cache)
    with cache.open("ab") as file:
        file.write((0).to_bytes(8, "little"))
    assert cache.stat().st_size == end + 8
    with pytest.raises(DataError, match="damaged"):
        EventFrames(cache)
    assert not (tmp_path / "sprung").exists()
    with pytest.raises(FileNotFoundError):  # the trap does work
        pickle.loads(pickle.dumps(Trap(tmp_path / "none/sprung")))


def test_an_archive_that_lies_about_its_size_stops_at_the_cap(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.h5.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.h5", bytes(3_000_000))
    assert (tmp_path / "a.h5.zip").stat().st_size < 10_000
    with pytest.raises(DataError, match="more than 0.001 GB"):
        download.unpack(tmp_path / "a.h5.zip", tmp_path / "a.h5", max_bytes=1_000_000)
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5.zip"]


def test_the_readme_says_that_a_configuration_is_a_program():
    text = " ".join((Path(REPOSITORY) / "README.md").read_text().split())
    assert "A configuration names classes that are imported and run: treat it as a program." in text
