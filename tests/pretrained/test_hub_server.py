"""The hub's own client against a server of this test, which keeps one repository in memory."""

import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("huggingface_hub", reason="the hub needs huggingface_hub")

REPO, SHA = "me/digits", "0123456789abcdef0123456789abcdef01234567"
STALE = "model-00001-of-00002.safetensors"
SCRIPT = """
import torch
from diffusion_labs import from_pretrained, push_to_hub
from tests.catalogue import tiny_kl

model = tiny_kl()
print(push_to_hub(model, "me/digits", private=True, message="Digits"))
loaded = from_pretrained("me/digits")
z = torch.randn(1, 3, 4, 4)
assert torch.equal(loaded.decode(z), model.decode(z))
"""


class Hub(ThreadingHTTPServer):
    """As much of the hub as a push and a download ask for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {"README.md": b"# Digits", STALE: b"of a larger model"}
        self.created: list[dict[str, Any]] = []
        self.messages: list[str] = []
        self.cards: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *args: object) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        path, files = self.path.partition("?")[0], self.server.files
        name = path.removeprefix(f"/{REPO}/resolve/{SHA}/").removeprefix(f"/{REPO}/resolve/main/")
        if name in files:
            headers = {"ETag": f'"{len(name)}-{len(files[name])}"', "X-Repo-Commit": SHA}
            self.reply(files[name], headers)
        elif path.startswith(f"/api/models/{REPO}/tree/"):
            self.reply([{"type": "file", "path": name, "size": len(files[name]), "oid": SHA} for name in files])
        elif path.startswith(f"/api/models/{REPO}"):
            self.reply({"id": REPO, "sha": SHA, "siblings": [{"rfilename": name} for name in files]})
        else:
            self.reply({"error": "not found"}, status=404)

    do_HEAD = do_GET  # noqa: N815 (the names of http.server)

    def do_POST(self) -> None:
        path, files = self.path.partition("?")[0], self.server.files
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert self.headers["Authorization"] == "Bearer hf_of_the_test"
        if path == "/api/repos/create":
            self.server.created.append(json.loads(body))
            self.reply({"url": f"{self.server.url}/{REPO}"})
        elif path == "/api/validate-yaml":
            self.server.cards.append(json.loads(body)["content"])
            self.reply({"errors": [], "warnings": []})
        elif path == f"/api/models/{REPO}/preupload/main":
            names = [file["path"] for file in json.loads(body)["files"]]
            self.reply({"files": [{"path": n, "uploadMode": "regular", "shouldIgnore": False} for n in names]})
        elif path == f"/api/models/{REPO}/commit/main":
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "header":
                    self.server.messages.append(value["summary"])
                elif line["key"] == "deletedFile":
                    del files[value["path"]]
                else:
                    files[value["path"]] = base64.b64decode(value["content"])
            self.reply({"success": True, "commitUrl": f"{self.server.url}/{REPO}/commit/{SHA}", "commitOid": SHA})
        else:
            self.reply({"error": "not found"}, status=404)

    def reply(self, content: Any, headers: dict[str, str] | None = None, status: int = 200) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


@pytest.fixture
def server() -> Iterator[Hub]:
    with Hub() as hub:
        thread = threading.Thread(target=hub.serve_forever)
        thread.start()
        yield hub
        hub.shutdown()
        thread.join()


WITH_CARD = """
import json
from pathlib import Path
from huggingface_hub import ModelCard
from diffusion_labs import push_to_hub
from diffusion_labs.pretrained.hub import read_about
from diffusion_labs.recipes.card import model_card
from diffusion_labs.recipes.kinds import described
from diffusion_labs.recipes.latent_model import LatentModel

small = {"autoencoder_channels": (8, 8), "model_channels": 32, "channel_mult": (1,), "attention_levels": (0,)}
sizes = LatentModel((3, 8, 8), captions=True, **small)
run = Path.cwd() / "run"
run.mkdir()
(run / "run.json").write_text(json.dumps({"recipe": "ldm-emoji", "arguments": {"size": 8}, "model": described(sizes)}))
card, model = model_card(run, license="mit", name="me/digits"), sizes.build()
push_to_hub(model, "me/digits", card=card, about={"sizes": described(sizes)})
push_to_hub(model, "me/digits", about={"sizes": described(sizes)})  # the card stays
found = ModelCard.load("me/digits")
assert found.content == card, found.content
print(found.data.pipeline_tag, found.data.license, found.data.library_name, read_about("me/digits")["sizes"]["kind"])
"""


def carry_out(script: str, server: Hub, folder: Path) -> str:
    """Run a script whose hub is the server, and return what it printed."""
    told = {"HF_ENDPOINT": server.url, "HF_HOME": str(folder), "HF_TOKEN": "hf_of_the_test", "HF_HUB_OFFLINE": "0"}
    told |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_XET": "1"}
    paths = os.pathsep.join(filter(None, (str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        env={**os.environ, **told, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.slow
def test_a_model_goes_to_a_hub_and_comes_back(server: Hub, tmp_path: Path) -> None:
    """What was there of a larger model is gone, and what is not the model's stays."""
    assert carry_out(SCRIPT, server, tmp_path) == f"{server.url}/{REPO}/commit/{SHA}"
    assert server.messages == ["Digits"]
    [created] = server.created
    assert created["name"] == "digits"
    assert created.get("private") is True or created.get("visibility") == "private"
    assert set(server.files) == {"README.md", "config.json", "model.safetensors"}
    assert server.files["README.md"] == b"# Digits"


@pytest.mark.slow
def test_a_card_goes_with_a_model_and_stays(server: Hub, tmp_path: Path) -> None:
    """The hub's client reads it back; the hub is asked about its heading before anything is sent."""
    assert carry_out(WITH_CARD, server, tmp_path) == "text-to-image mit diffusion_labs LatentModel"
    assert set(server.cards) == {server.files["README.md"].decode()}
    assert set(server.files) == {"README.md", "config.json", "model.safetensors"}
