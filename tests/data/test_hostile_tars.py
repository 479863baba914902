"""Tars that are damaged or made to do harm: each fault is named or skipped, nothing is followed, nothing is written."""

import struct
import tarfile
import zlib

import pytest

from diffusion_labs.data import DataError, StreamBatches, TarImages, TarStream, UnavailableError
from tests.data.tars import blocks, png, samples, write_tar

END = bytes(1024)


def plain(*numbers):
    """Samples as they are in a tar."""
    return b"".join(
        blocks(name, content if isinstance(content, bytes) else content.encode())
        for name, content in samples(numbers).items()
    )


def header(width, height):
    """A PNG of so many pixels, of which there is the header alone."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)) + b"\0\0\1\0IDAT"


def member(name, **attributes):
    """A sample whose image is not a plain file."""
    return blocks(name + ".png", **attributes) + blocks(name + ".txt", b"9")


# What comes after two good samples, what is said of it, and whether the next sample is read. If it is not, the second
# of the two may not be whole either.
DAMAGE = {
    "a link": (member("b", type=tarfile.SYMTYPE, linkname="/etc/passwd"), r"b\.png: is a link", True),
    "a hard link": (member("b", type=tarfile.LNKTYPE, linkname="000.png"), r"b\.png: is a link", True),
    "a link out": (member("b", type=tarfile.SYMTYPE, linkname="../../x.png"), r"b\.png: is a link", True),
    "a device": (member("b", type=tarfile.CHRTYPE, devmajor=1, devminor=5), r"b\.png: is a link, a device", True),
    "a pipe": (member("b", type=tarfile.FIFOTYPE), r"b\.png: is a link, a device", True),
    "a linked caption": (
        blocks("b.png", png("red")) + blocks("b.txt", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        r"b\.txt: is a link",
        True,
    ),
    "a large text": (blocks("b.png", png("red")) + blocks("b.txt", bytes(2**20 + 1)), "1,048,577 bytes are over", True),
    "no json": (blocks("b.png", png("red")) + blocks("b.json", b"{"), r"b\.png: its \.json is not JSON", True),
    "a deep json": (blocks("b.png", png("red")) + blocks("b.json", b"[" * 10**5), "is not JSON", True),
    "no object": (blocks("b.png", png("red")) + blocks("b.json", b"3"), "is not an object", True),
    "no text": (blocks("b.png", png("red")) + blocks("b.txt", b"\xff"), "is not UTF-8", True),
    "no caption": (blocks("b.png", png("red")), r"b\.png.*caption", True),
    "a number as caption": (blocks("b.png", png("red")) + blocks("b.json", b'{"text": 1}'), "'text' is 1", True),
    "a name of two lines": (blocks("b\nc\x1b[31m.png", png("red")), r"'b\\nc\\x1b\[31m\.png'.*caption", True),
    "files apart": (blocks("000.txt", b"9"), "'000' are not side by side", True),
    "an endless file": (blocks("b.png", size=2**40), r"b\.png: 1,099,511,627,776 bytes are over", False),
    "a file of a zettabyte": (blocks("b.png", size=2**70), "no whole tar .it has a file of 1,180,", False),
    "a file of less than nothing": (blocks("b.png", size=-1024), "no whole tar .it has a file of -1,024 bytes", False),
    "an endless header": (
        blocks("b", type=tarfile.XHDTYPE, size=2**40),
        "no whole tar .it has a header of type b'x'",
        False,
    ),
    "a negative header": (
        blocks("b", type=tarfile.GNUTYPE_LONGNAME, size=-512),
        "no whole tar .it has a header",
        False,
    ),
    "a sparse file": (blocks("b.png", type=tarfile.GNUTYPE_SPARSE, size=2**40), "no whole tar", False),
    "headers of headers": (blocks("b", b"c" * 9, type=tarfile.GNUTYPE_LONGNAME) * 2000, "no whole tar", False),
    "a negative pax size": (
        blocks("b", b"14 size=-1024\n", type=tarfile.XHDTYPE) + blocks("b.png", png("red")),
        "no whole tar",
        False,
    ),
    "noise": (b"noise" * 512, "no whole tar .invalid header", False),
}


def stream_captions(path, on_error):
    """The captions of what a stream finds in a tar."""
    return [sample.fields["caption"] for sample in TarStream(path, 4, on_error=on_error).read(0)]


def index_captions(path, on_error):
    """The captions of what a map-style data set finds in it."""
    return TarImages(path, 4, on_error=on_error).captions


READERS = {"stream": stream_captions, "index": index_captions}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@pytest.mark.parametrize("name", DAMAGE)
@pytest.mark.filterwarnings("ignore:skipped")
def test_damage_is_named_or_skipped(tmp_path, name, read):
    damage, message, goes_on = DAMAGE[name]
    (tmp_path / "inside").mkdir()
    path = tmp_path / "inside" / "a.tar"
    path.write_bytes(plain(0, 1) + damage + plain(2) + END)
    with pytest.raises(DataError, match=message) as error:
        read(path, "raise")
    assert str(path) in str(error.value)
    assert str(error.value).isprintable()
    with pytest.warns(UserWarning, match=rf"skipped 1 of \d samples so far: .*{message}") as caught:
        found = read(path, "skip")
    assert len(caught) == (2 if name == "an endless file" else 1)
    assert found == (["0", "1", "2"] if goes_on else ["0", "1"] if name == "an endless file" else ["0"])
    assert sorted(file.name for file in tmp_path.rglob("*")) == ["a.tar", "inside"]


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@pytest.mark.parametrize("folder", ["../", "../../", "/", "/etc/", "a/../../", "~/", "C:\\", "folder.png/"])
def test_names_are_only_names(tmp_path, folder, read):
    (tmp_path / "inside").mkdir()
    path = tmp_path / "inside" / "a.tar"
    path.write_bytes(
        blocks("folder.png/", type=tarfile.DIRTYPE)
        + blocks(f"{folder}0.png", png("red"))
        + blocks(f"{folder}0.txt", b"0")
        + END
    )
    assert read(path, "raise") == ["0"]
    assert sorted(file.name for file in tmp_path.rglob("*")) == ["a.tar", "inside"]


def test_bad_images_of_one_name_in_two_tars_are_two(tmp_path):
    for tar, content in (("a", b""), ("b", png("red"))):
        write_tar(tmp_path / f"{tar}.tar", {"/0.png": content})
    dataset = TarImages(tmp_path, 4, on_error="skip")
    with pytest.warns(UserWarning, match="skipped 1 of 1"):
        assert len(list(dataset)) == 2
    assert list(dataset.skipped) == [tmp_path / "a.tar" / "0.png"]


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@pytest.mark.filterwarnings("ignore:skipped")
def test_a_tar_cut_anywhere_is_noticed(tmp_path, read):
    whole = plain(0, 1, 2)
    sample = len(whole) // 3
    for length in (0, 1, 300, 512, 700, *range(1024, len(whole) + 1, 512), len(whole) + 511):
        (tmp_path / "a.tar").write_bytes((whole + END)[:length])
        with pytest.raises(DataError, match=r"a\.tar: is no whole tar"):
            read(tmp_path / "a.tar", "raise")
        if length > sample + 1024:  # else there is no sample
            found = read(tmp_path / "a.tar", "skip")
            assert found == ["0", "1", "2"][: len(found)]
            assert len(found) in (length // sample - 1, length // sample)
    (tmp_path / "a.tar").write_bytes(whole + END[:512])
    assert read(tmp_path / "a.tar", "raise") == ["0", "1", "2"]


def test_an_empty_tar_is_no_damage_but_no_data(tmp_path):
    (tmp_path / "a.tar").write_bytes(END)
    with pytest.raises(DataError, match="has 0 good samples"):
        next(StreamBatches(TarStream(tmp_path, 4), 1))


BAD_IMAGES = {
    "nothing": (b"", "cannot be decoded"),
    "no image": (b"<html>", "cannot be decoded"),
    "half": (png("red")[:-30], "cannot be decoded"),
    "a bomb": (header(10_000, 10_000), r"10000 x 10000 pixels are over the limit of 64,000,000"),
    "a large bomb": (header(60_000, 60_000), "cannot be decoded"),
    "too many pixels": (png("red"), r"6 x 6 pixels are over the limit of 30"),
    "too many bytes": (png("red") + bytes(200), r"bytes are over the limit of 200"),
}


@pytest.mark.parametrize("name", BAD_IMAGES)
@pytest.mark.filterwarnings("ignore:Image size")
def test_bad_images_in_a_stream(tmp_path, name):
    image, message = BAD_IMAGES[name]
    limits = {"too many pixels": {"max_pixels": 30}, "too many bytes": {"max_bytes": 200}}.get(name, {})
    good = samples([1, 3])
    if name == "too many pixels":
        good |= {"001.png": png("blue", size=2), "003.png": png("blue", size=2)}
    write_tar(tmp_path / "a.tar", dict(sorted((good | {"002.png": image, "002.txt": "2"}).items())))
    with pytest.raises(DataError, match=rf"a\.tar, 002\.png: .*{message}"):
        next(StreamBatches(TarStream(tmp_path, 4, **limits), 3, buffer_size=1))
    batches = StreamBatches(TarStream(tmp_path, 4, on_error="skip", **limits), 2, buffer_size=1)
    with pytest.warns(UserWarning, match=rf"skipped 1 of \d samples so far: .*{message}"):
        assert next(batches)["caption"] in (["1", "1"], ["1", "3"])


@pytest.mark.filterwarnings("ignore:skipped")
def test_too_much_damage_ends_the_reading(tmp_path):
    for name, period in (("few", 11), ("many", 9)):
        good = {f"{i:03d}.txt": "" for i in range(250) if (i + 1) % period}
        write_tar(tmp_path / f"{name}.tar", dict(sorted((good | {f"{i:03d}.png": "" for i in range(250)}).items())))
    with pytest.warns(UserWarning, match="skipped 22 of 242 samples"):
        assert len(stream_captions(tmp_path / "few.tar", "skip")) == 250 - 22
    for read in READERS.values():
        with pytest.raises(DataError, match="23 of 207 samples are damaged, more than 10%"):
            read(tmp_path / "many.tar", "skip")


@pytest.mark.filterwarnings("ignore:skipped")
def test_a_batch_without_a_good_image_ends_the_reading(tmp_path):
    write_tar(tmp_path / "a.tar", samples(range(4), **{f"00{i}.png": b"" for i in range(4)}))
    with (
        pytest.warns(UserWarning, match="skipped"),
        pytest.raises(DataError, match="not one of a batch of 4 can be decoded"),
    ):
        next(StreamBatches(TarStream(tmp_path, 4, on_error="skip"), 4))


def test_a_tar_that_is_gone_is_never_skipped(tmp_path):
    stream = TarStream(write_tar(tmp_path / "a.tar", samples([1])), 4, on_error="skip")
    (tmp_path / "a.tar").unlink()
    with pytest.raises(UnavailableError, match=r"a\.tar: cannot be opened .No such file"):
        next(StreamBatches(stream, 1))
    (tmp_path / "a.tar").mkdir()
    with pytest.raises(UnavailableError, match=r"a\.tar: cannot be opened .Is a directory"):
        next(StreamBatches(stream, 1))
