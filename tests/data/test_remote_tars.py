"""Tars behind URLs: the same samples as on a disk, however often the connection fails, or an error that says why."""

import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice

import pytest

from diffusion_labs.data import DataError, StreamBatches, TarStream, UnavailableError, remote_file
from diffusion_labs.data.remote_file import RemoteFile
from diffusion_labs.data.tar_files import tar_names
from tests.data.tars import samples, write_tar


class Handler(BaseHTTPRequestHandler):
    """Serves a folder; the server's list of faults says what is wrong with the next answers."""

    def __init__(self, folder, faults, asked, *arguments):
        self.folder, self.faults, self.asked = folder, faults, asked
        super().__init__(*arguments)

    def do_GET(self):
        path = self.folder / self.path.partition("?")[0].strip("/")
        start = int(self.headers.get("Range", "bytes=0-")[6:-1])
        fault = self.faults.pop(0) if self.faults else ""
        self.asked.append((path.name, start))
        if not path.exists():
            return self.send_error(404)
        if isinstance(fault, int):
            return self.send_error(fault)
        data = path.read_bytes()
        ranges = start and fault != "anew"
        self.send_response(206 if ranges else 200)
        if ranges:
            first = start - 512 if fault == "elsewhere" else start
            self.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
        body = data[start:] if ranges else data
        if fault != "no length":
            self.send_header("Content-Length", len(body) + 512 * (fault == "longer"))
        self.send_header("ETag", "other" if fault == "changed" else "one")
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if fault in ("cut", "anew and cut") else body)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Its address, what will be wrong, and what it was asked for: four tars of five samples."""
    monkeypatch.setattr(remote_file, "PAUSES", (0, 0, 0))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    for tar in range(4):
        write_tar(tmp_path / f"{tar:02d}.tar", samples(range(5 * tar, 5 * tar + 5)))
    faults, asked = [], []
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, tmp_path, faults, asked))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", faults, asked
    server.shutdown()
    thread.join()
    server.server_close()


def test_urls_and_paths_give_the_same_batches(server, tmp_path):
    address, faults, _ = server
    here = StreamBatches(TarStream(tmp_path / "{00..03}.tar", 4), 4, buffer_size=3)
    there = StreamBatches(TarStream(f"{address}/{{00..03}}.tar?token=secret", 4), 4, buffer_size=3)
    faults += [503, "cut", "", 429, "cut", "anew", "cut", "", "cut", "elsewhere"]
    for one, other in islice(zip(here, there, strict=True), 10):
        assert one["caption"] == other["caption"]
        assert one["x"].equal(other["x"])
    assert faults == []


def content(address):
    """The bytes of a remote file."""
    with RemoteFile(address) as file:
        return b"".join(iter(lambda: file.read(3000), b""))


@pytest.mark.parametrize("faults", [["cut"] * 9, ["cut", "anew and cut", "anew", "cut"], [500, 502, 503, "cut", 408]])
def test_a_file_is_whole_after_faults(server, tmp_path, faults):
    address, coming, asked = server
    coming += faults
    assert content(f"{address}/00.tar") == (tmp_path / "00.tar").read_bytes()
    assert len(asked) <= 1 + len(faults)


@pytest.mark.parametrize(
    ("faults", "message", "attempts"),
    [
        ([404], r"from byte 0 on, in 1 attempts .HTTP Error 404", 1),
        ([403], "HTTP Error 403", 1),
        ([503] * 9, "in 4 attempts .HTTP Error 503", 4),
        (["cut"] + ["elsewhere"] * 9, "from byte 10,240 on, in 4 attempts .the server sent another part", 4),
        (["cut", "changed"], "has changed while it was read", 2),
        (["no length"], "does not say how long it is", 1),
    ],
)
def test_what_cannot_be_had_is_an_error_that_is_never_skipped(server, tmp_path, faults, message, attempts):
    address, coming, asked = server
    coming += faults
    stream = TarStream(f"{address}/00.tar?token=secret", 4, on_error="skip")
    with pytest.raises(UnavailableError, match=message) as error:
        list(stream.read(0))
    assert f"{address}/00.tar: " in str(error.value)
    assert "secret" not in str(error.value)
    assert len(asked) == attempts
    assert stream.reading.skipped == 0


def test_a_file_that_is_shorter_than_its_server_says(server):
    address, faults, _ = server
    faults += ["longer", 500, 500, 500]
    with pytest.raises(UnavailableError, match=r"from byte 20,480 on, in 4 attempts .HTTP Error 500"):
        content(f"{address}/00.tar")


def test_no_server(monkeypatch):
    monkeypatch.setattr(remote_file, "PAUSES", (0,))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(UnavailableError, match=r"in 2 attempts .*refused.*check the address and the network"):
        content("http://127.0.0.1:9/a.tar")


def test_a_tar_that_is_damaged_behind_a_url_is_damage(server, tmp_path):
    address, _, _ = server
    (tmp_path / "00.tar").write_bytes((tmp_path / "00.tar").read_bytes()[:2600])
    stream = TarStream(f"{address}/00.tar?token=secret", 4, on_error="skip")
    with pytest.warns(UserWarning, match="00.tar: is no whole tar .it is cut short"):
        assert [sample.source for sample in stream.read(0)] == [f"{address}/00.tar, 000.png"]


def test_names_of_tars(tmp_path):
    for name in ("b.tar", "a.tar", "a-08.tar", "a-09.tar", "a-10.tar", "[1].tar", "note.txt"):
        (tmp_path / name).touch()

    def names(*sources):
        return [name.removeprefix(f"{tmp_path}/") for name in tar_names([f"{tmp_path}/{source}" for source in sources])]

    assert tar_names(tmp_path) == sorted(str(path) for path in tmp_path.glob("*.tar"))
    assert names("b.tar", "a.tar") == ["b.tar", "a.tar"]
    assert names("a-*.tar") == names("a-{08..10}.tar") == ["a-08.tar", "a-09.tar", "a-10.tar"]
    assert names("a-{8..10}.tar".replace("8", "08")) == names("a-0{8..9}.tar", "a-{10..10}.tar")
    assert names("[1].tar") == ["[1].tar"]
    assert tar_names("https://a.org/{0..1}/{9..11}.tar") == [
        f"https://a.org/{i}/{j}.tar" for i in (0, 1) for j in (9, 10, 11)
    ]
    for source, message in (
        ("absent.tar", "no such tar"),
        ("*.zip", "no such tar"),
        ("a-{08..11}.tar", r"a-11\.tar: there is no such tar"),
    ):
        with pytest.raises(DataError, match=message):
            names(source)
    for source in ("s3://bucket/a.tar", "file:///etc/a.tar", "pipe:cat a.tar"):
        with pytest.raises(DataError, match=r"only paths and http\(s\) URLs are read"):
            tar_names(source)
    with pytest.raises(DataError, match="are no tars"):
        tar_names([])
    with pytest.raises(DataError, match="are no tars"):
        tar_names("a-{3..1}.tar")
