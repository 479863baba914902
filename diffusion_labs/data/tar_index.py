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


def list_tars(tars: Sequence[Path], class_key: str, damage: Damage) -> list[tuple[Entry, Extent]]:
    """List the images of tars, in their order; see ``read_tar``.

    Args:
        tars: the files, not compressed: images are read from where they are.
        class_key: what the class is called in the ``.json`` of a sample.
        damage: what to do with malformed samples, of which some have a class or a caption where the first one has none
            or the other way round, and with damaged tars.

    Raises:
        DataError: if there is no such file, or for damage.
    """
    found: list[tuple[Entry, Extent]] = []

    def sample(files: SampleFiles[Extent]) -> tuple[Entry, Extent]:
        path = Path(f"{files.tar}/{files.name}")  # never opened
        entry = Entry(path, files.label, files.caption, files.source)
        if found:
            check_alike(found[0][0], entry)
        return entry, files.image

    for tar in tars:

        def extent(archive: tarfile.TarFile, member: tarfile.TarInfo, tar: Path = tar) -> Extent:
            return Extent(tar, member.offset_data, member.size)

        with open_tar(str(tar)) as file:
            for one in read_tar(file, str(tar), "r:", extent, sample, damage, class_key=class_key):
                found.append(one)
    return found
