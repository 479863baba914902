"""Where the images of WebDataset tars are, and what is said about each."""

import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from diffusion_labs.data.damage import Damage
from diffusion_labs.data.folder_index import Entry, check_alike
from diffusion_labs.data.tar_files import open_tar
from diffusion_labs.data.tar_members import SampleFiles, read_tar


class Extent(NamedTuple):
    """Where the bytes of an image are in a tar."""

    tar: Path
    offset: int
    size: int


def list_tars(tars: Sequence[Path], damage: Damage, *, class_key: str, max_bytes: int) -> list[tuple[Entry, Extent]]:
    """List the images of tars, in their order; see ``read_tar``.

    Args:
        tars: the files, not compressed: images are read from where they are.
        damage: what to do with damaged tars and malformed samples, such as those that have a class or a caption where
            the first one has none, or the other way round.
        class_key: what the class is called in the ``.json`` of a sample.
        max_bytes: larger images are damage.

    Raises:
        DataError: if there is no such file, or for damage.
    """
    found: list[tuple[Entry, Extent]] = []

    def place(archive: tarfile.TarFile, member: tarfile.TarInfo) -> tuple[int, int]:
        return member.offset_data, member.size

    def sample(files: SampleFiles[tuple[int, int]]) -> tuple[Entry, Extent]:
        path = Path(f"{files.tar}/{files.name}")  # never opened
        entry = Entry(path, files.label, files.caption, files.source)
        if found:
            check_alike(found[0][0], entry)
        return entry, Extent(Path(files.tar), *files.image)

    for tar in map(str, tars):
        with open_tar(tar) as file:
            for one in read_tar(file, tar, "r:", place, sample, damage, class_key=class_key, max_bytes=max_bytes):
                found.append(one)
    return found
