"""Tars for tests, good and bad."""

import io
import tarfile

from PIL import Image


def png(colour, mode="RGB", size=6):
    file = io.BytesIO()
    Image.new(mode, (size, size), colour).save(file, "png")
    return file.getvalue()


def write_tar(path, files, mode="w"):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            content = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def sample(number):
    """The files of sample ``number``, whose image shows it."""
    return {f"{number:03d}.png": png((number, 0, 255)), f"{number:03d}.txt": str(number)}


def samples(numbers, **changes):
    """The files of several samples, of which some are others; those that are ``None`` are not there."""
    files = {name: content for number in numbers for name, content in sample(number).items()}
    return {name: content for name, content in (files | changes).items() if content is not None}


def blocks(name, content=b"", size=None, **attributes):
    """A file as it is in a tar; its header may tell another ``size``, even a negative one."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in attributes.items():
        setattr(info, key, value)
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    if size is not None:
        header[124:136] = tarfile.itn(size, 12, tarfile.GNU_FORMAT)
        header[148:156] = b" " * 8
        header[148:156] = f"{sum(header):06o}".encode() + b"\0 "
    return bytes(header) + content + bytes(-len(content) % tarfile.BLOCKSIZE)
