"""W&B on networks that are dead in one way or another: a run trains, ends rightly, and is kept to be sent later."""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
import wandb
from test_wandb import FOLDER, KEY, said, serving, settle
from wandb_file import RunFile, ended_run, run_files

from sdsnn_lightning import loggers
from sdsnn_lightning.cli import main
from sdsnn_lightning.loggers import ID_FILE

FIT = ("fit", "--config", "toy.yaml")


@pytest.fixture
def silent():
    """A server that takes every connection and never says a word; and the list of who came."""
    came = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def take():
            while True:
                try:
                    came.append(server.accept()[0])
                except OSError:  # closed
                    return

        threading.Thread(target=take, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", came
        server.shutdown(socket.SHUT_RDWR)
    for connection in came:
        connection.close()


def offline_run():
    """The one run that was kept; it is whole."""
    with contextlib.suppress(OSError):
        wandb.teardown()  # its process may still be writing
    (file,) = run_files(FOLDER)
    assert file.parent.name.startswith("offline-run-")
    found = ended_run(file)
    assert found.ended == 0
    assert sum("val/UAR" in row for row in found.history) == 2
    return found


def test_a_server_that_never_answers_costs_seconds_and_nothing_else(tmp_path, monkeypatch, silent):
    """The command as a person types it who is logged in, with the limits as they are."""
    settle(tmp_path, monkeypatch, "online")
    address, came = silent
    environment = {k: v for k, v in os.environ.items() if k != "WANDB_MODE" and not k.lower().endswith("_proxy")}
    environment |= {"WANDB_BASE_URL": address, "WANDB_API_KEY": KEY}
    environment["PYTHONPATH"] = str(Path(__file__).parent)
    command = [sys.executable, "-m", "sdsnn_lightning", *FIT]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert len(came) == 1  # asked once whether it is there, and never again
    assert f"W&B at {address} does not answer (timed out): the run is kept in {FOLDER}" in done.stderr
    assert offline_run().id == (FOLDER / ID_FILE).read_text().strip()
    assert json.loads((FOLDER / "results.json").read_text())["fit"]["epochs"] == 2


@pytest.mark.parametrize("mode", ["offline", "dryrun", "disabled"])
def test_the_variable_for_the_mode_wins_over_the_key_and_the_section(tmp_path, monkeypatch, silent, mode):
    settle(tmp_path, monkeypatch, mode)
    address, came = silent
    monkeypatch.setenv("WANDB_BASE_URL", address)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    main([*FIT, "--wandb.mode", "online"])
    assert came == []
    if mode == "disabled":
        assert run_files(FOLDER) == []
        assert not (FOLDER / ID_FILE).exists()
    else:
        offline_run()


class FallsSilent(BaseHTTPRequestHandler):
    """Takes a run as W&B does, and after that answers nothing more, whatever it is sent."""

    over = threading.Event()
    sent: list[str] = []

    def log_message(self, *_):
        pass

    def _answer(self, code, content):
        body = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_HEAD(self):
        self._answer(404, {})

    def do_GET(self):
        self.over.wait(120)

    do_PUT = do_GET

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
        found = re.search(r"(query|mutation)\s+(\w+)", asked.get("query", ""))
        self.sent.append(found[2] if found else self.path)
        if self.sent[-1] == "UpsertBucket" and self.sent.count("UpsertBucket") == 1:
            name = asked["variables"]["name"]
            project = {"id": "p", "name": "sdsnn", "entity": {"id": "e", "name": "somebody"}}
            bucket = {"id": "b", "name": name, "displayName": name, "config": "{}", "project": project}
            self._answer(200, {"data": {"upsertBucket": {"bucket": bucket, "inserted": True}}})
        elif self.sent[-1] == "Viewer":
            self._answer(200, {"data": {"viewer": {"id": "v", "entity": "somebody", "username": "somebody"}}})
        elif "UpsertBucket" not in self.sent:
            self._answer(200, {"data": {}})
        else:
            self.over.wait(120)


def test_a_network_that_dies_while_a_run_trains_neither_stops_nor_holds_it(tmp_path, monkeypatch, caplog):
    settle(tmp_path, monkeypatch, "online")
    monkeypatch.setattr(loggers, "FINISH_SECONDS", 2.0)
    FallsSilent.sent.clear()
    with serving(FallsSilent, FallsSilent.over, monkeypatch):
        main(list(FIT))
    run = (FOLDER / ID_FILE).read_text().strip()
    assert "UpsertBucket" in FallsSilent.sent
    (line,) = said(caplog)
    assert line == f"W&B did not take all of the run; it is kept: wandb sync {FOLDER}/wandb/*run-*-{run} sends the rest"
    assert json.loads((FOLDER / "results.json").read_text())["fit"]["epochs"] == 2
    (file,) = run_files(FOLDER)  # what was logged is all there
    assert sum("val/UAR" in row for row in RunFile(file).history) == 2
