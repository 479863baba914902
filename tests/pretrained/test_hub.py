"""The hub, with its functions replaced by ones that record what they are given."""

import builtins
import shutil
from pathlib import Path

import pytest
import torch

from diffusion_labs import from_pretrained, push_to_hub, save_pretrained
from tests.catalogue import tiny_kl

hub = pytest.importorskip("huggingface_hub", reason="the hub needs huggingface_hub")


def test_what_is_pushed_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    remote = tmp_path / "remote"

    def upload(*, repo_id: str, folder_path: Path, **options: object) -> str:
        calls.append(("upload", repo_id, options["revision"]))
        shutil.copytree(folder_path, remote)
        return "https://hub/commit"

    def download(repo_id: str, **options: object) -> str:
        calls.append(("download", repo_id, options["revision"]))
        return str(remote)

    monkeypatch.setattr(hub, "create_repo", lambda repo_id, **options: calls.append(("create", repo_id, options)))
    monkeypatch.setattr(hub, "upload_folder", upload)
    monkeypatch.setattr(hub, "snapshot_download", download)
    monkeypatch.chdir(tmp_path)

    model = tiny_kl()
    assert push_to_hub(model, "me/digits", private=True) == "https://hub/commit"
    loaded = from_pretrained("me/digits", revision="v1")
    assert calls == [
        ("create", "me/digits", {"private": True, "exist_ok": True}),
        ("upload", "me/digits", None),
        ("download", "me/digits", "v1"),
    ]
    z = torch.randn(1, 3, 4, 4)
    assert torch.equal(loaded.decode(z), model.decode(z))


def test_neither_a_folder_nor_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(repo_id: str, **options: object) -> str:
        raise OSError("there is no such repository")

    monkeypatch.setattr(hub, "snapshot_download", absent)
    with pytest.raises(FileNotFoundError, match="me/digits is neither a folder here nor a repository"):
        from_pretrained("me/digits")
    with pytest.raises(FileNotFoundError, match="there is no folder digits; give one, or a repository of the hub"):
        from_pretrained("digits")
    save_pretrained(tiny_kl(), tmp_path / "model")
    with pytest.raises(ValueError, match=r"revision .* is for repositories of the hub"):
        from_pretrained(tmp_path / "model", revision="v1")


def test_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: object, **options: object) -> object:
        if name == "huggingface_hub":
            raise ImportError(name)
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    for call in (lambda: from_pretrained("me/digits"), lambda: push_to_hub(tiny_kl(), "me/digits")):
        with pytest.raises(ImportError, match=r"pip install 'diffusion-labs\[hub\]'"):
            call()
