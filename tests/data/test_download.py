"""Downloads are whole and right, or an error that says what to do; against a server on this machine."""

import gzip
import hashlib
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from diffusion_labs.data import DataError, download_mnist
from diffusion_labs.data.download import MIRRORS, MNIST_FILES, Content

CONTENTS = {"train-images-idx3-ubyte.gz": b"images" * 999, "t10k-labels-idx1-ubyte.gz": b"labels"}
FILES = {name: Content(len(data), hashlib.sha256(data).hexdigest()) for name, data in CONTENTS.items()}


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def mirror(tmp_path):
    """A server of the files, its folder and its address."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    for name, data in CONTENTS.items():
        (folder / name).write_bytes(gzip.compress(data))
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def contents(folder):
    return {path.name: gzip.decompress(path.read_bytes()) for path in folder.iterdir()}


def test_downloads_all_files(tmp_path, mirror):
    folder = download_mnist(tmp_path / "a" / "mnist", mirrors=[mirror[1]], files=FILES)
    assert contents(folder) == CONTENTS


def test_goes_on_to_the_next_mirror_where_one_fails_or_lies(tmp_path, mirror):
    folder, address = mirror
    wrong = folder / "wrong"
    wrong.mkdir()
    for name, data in CONTENTS.items():
        (wrong / name).write_bytes(gzip.compress(data[:-1] + b"?"))
    mirrors = [f"{address}absent", f"{address}wrong", "http://127.0.0.1:9", address]
    assert contents(download_mnist(tmp_path / "mnist", mirrors=mirrors, files=FILES)) == CONTENTS


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-9], lambda data: b"<html>", lambda data: gzip.compress(bytes(10**7))]
)
def test_wrong_content_leaves_nothing_behind(tmp_path, mirror, damage):
    folder, address = mirror
    path = folder / "t10k-labels-idx1-ubyte.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=r"cannot download t10k-labels.*(not a whole gzip|wrong SHA-256)"):
        download_mnist(tmp_path / "mnist", mirrors=[address], files=FILES)
    assert [path.name for path in (tmp_path / "mnist").iterdir()] == ["train-images-idx3-ubyte.gz"]


def test_offline_says_what_to_do(tmp_path):
    with pytest.raises(DataError, match=r"127.0.0.1:9/train-images.*--data-dir FOLDER") as error:
        download_mnist(tmp_path, mirrors=["http://127.0.0.1:9"], files=FILES)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_right_files_are_kept_and_not_fetched_again(tmp_path, mirror):
    folder = download_mnist(tmp_path / "mnist", mirrors=[mirror[1]], files=FILES)
    times = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    download_mnist(folder, mirrors=["http://127.0.0.1:9"], files=FILES)
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == times


def test_files_of_another_data_set_are_not_overwritten(tmp_path, mirror):
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(b"Fashion-MNIST has the same names"))
    before = path.read_bytes()
    with pytest.raises(DataError, match="is there already, but is not MNIST's"):
        download_mnist(tmp_path, mirrors=[mirror[1]], files=FILES)
    assert path.read_bytes() == before


def test_folder_that_cannot_be_written(tmp_path, mirror):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        download_mnist(tmp_path / "file" / "mnist", mirrors=[mirror[1]], files=FILES)


def test_defaults_are_mnist_over_https():
    assert all(mirror.startswith("https://") for mirror in MIRRORS)
    lengths = {name: content.length for name, content in MNIST_FILES.items()}
    assert lengths == {
        "train-images-idx3-ubyte.gz": 16 + 60_000 * 784,
        "train-labels-idx1-ubyte.gz": 8 + 60_000,
        "t10k-images-idx3-ubyte.gz": 16 + 10_000 * 784,
        "t10k-labels-idx1-ubyte.gz": 8 + 10_000,
    }
