"""Folders of images: any kind of file is read right, any bad one is named or skipped and counted."""

import json
import os
import resource
import struct
import warnings
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion_labs.data import Batches, DataError, ImageFolder, patience
from diffusion_labs.data.decode import decode_image
from diffusion_labs.data.errors import UnavailableError

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def plain(path, colour=RED, size=(4, 4)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def colours(x):
    """The colour of each image of one colour: ``[n, 3]``."""
    assert torch.equal(x.amin((2, 3)), x.amax((2, 3)))
    return x.amin((2, 3)).tolist()


def write_metadata(folder, *records):
    lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
    (folder / "metadata.jsonl").write_text("\n".join(lines), encoding="utf-8")


def png_header(width, height):
    """A PNG that claims a size and holds nothing."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    return start + struct.pack(">I", 4) + b"IDAT" + b"\x78\x9c\x03\x00" + struct.pack(">I", 0)


BAD_FILES = {
    "empty": b"",
    "text": b"this is not an image",
    "header only": png_header(8, 8),
    "900 megapixels": png_header(30_000, 30_000),
    "121 megapixels": png_header(11_000, 11_000),
    "100,000 megapixels": png_header(400_000, 250_000),
}


def truncated(path, kind):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, kind)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


class TestDecode:
    def test_8_bit_images_of_the_right_size_keep_every_pixel(self, tmp_path):
        noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / "a.png")
        expected = torch.from_numpy(noise).permute(2, 0, 1)
        assert torch.equal(decode_image(tmp_path / "a.png", 8), expected)
        Image.fromarray(noise[..., 0]).save(tmp_path / "b.png")
        assert torch.equal(decode_image(tmp_path / "b.png", 8, channels=1), expected[:1])

    @pytest.mark.parametrize("mode", ["RGBA", "LA", "PA-like", "P with index"])
    def test_transparency_is_laid_on_white(self, tmp_path, mode):
        image = Image.new("RGBA", (4, 4), (*RED, 0))
        image.paste((*BLUE, 255), (0, 0, 4, 2))
        path = tmp_path / "a.png"
        if mode == "RGBA":
            image.save(path)
        elif mode == "LA":
            image.convert("LA").save(path)
        elif mode == "PA-like":
            image.quantize(4).save(path)
        else:
            palette = Image.new("P", (4, 4), 1)
            palette.putpalette([*BLUE, *RED])
            palette.paste(0, (0, 0, 4, 2))
            palette.save(path, transparency=1)
        x = decode_image(path, 4)
        assert (x[:, 2:] == 255).all()
        top = (29, 29, 29) if mode == "LA" else BLUE
        assert (x[:, :2] == torch.tensor(top).view(3, 1, 1)).all()

    def test_half_transparent_is_half_white(self, tmp_path):
        Image.new("RGBA", (4, 4), (0, 0, 0, 128)).save(tmp_path / "a.png")
        assert decode_image(tmp_path / "a.png", 4).unique().tolist() == [127]

    def test_a_transparent_value_of_16_bits_is_white(self, tmp_path):
        Image.fromarray(np.full((4, 4), 257, np.uint16)).save(tmp_path / "a.png", transparency=257)
        assert (decode_image(tmp_path / "a.png", 4) == 255).all()

    def test_16_bit_is_scaled_not_cut(self, tmp_path):
        values = np.array([[0, 257, 32768, 65535]] * 4, dtype=np.uint16)
        Image.fromarray(values).save(tmp_path / "a.png")
        assert decode_image(tmp_path / "a.png", 4, channels=1)[0, 0].tolist() == [0, 1, 128, 255]
        assert decode_image(tmp_path / "a.png", 4).shape == (3, 4, 4)

    def test_cmyk(self, tmp_path):
        Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=100)
        red, green, blue = decode_image(tmp_path / "a.jpg", 8).float().mean((1, 2)).tolist()
        assert red > 250
        assert max(green, blue) < 5

    @pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "gif"])
    def test_kinds(self, tmp_path, suffix):
        path = plain(tmp_path / f"a.{suffix}", (200, 200, 200), (16, 16))
        assert (decode_image(path, 8).float() - 200).abs().max() <= 2

    def test_exif_rotation(self, tmp_path):
        image = Image.new("RGB", (16, 16), RED)
        image.paste(BLUE, (0, 0, 16, 8))
        exif = Image.Exif()
        exif[0x0112] = 6  # the top of the picture is at the right of the file
        image.save(tmp_path / "a.png", exif=exif)
        x = decode_image(tmp_path / "a.png", 16)
        assert (x[2, :, 8:] == 255).all()
        assert (x[2, :, :8] == 0).all()

    @pytest.mark.parametrize(("size", "whole"), [(4, (12, 4)), (2, (6, 2)), (8, (24, 8))])
    def test_square_is_the_centre_of_the_scaled_image(self, tmp_path, size, whole):
        wide = Image.fromarray(np.random.default_rng(0).integers(0, 256, (4, 12, 3), dtype=np.uint8))
        high = wide.transpose(Image.Transpose.TRANSPOSE)
        centre = slice(size, 2 * size)
        for name, image, to, chosen in (
            ("a.png", wide, whole, (slice(None), slice(None), centre)),
            ("b.png", high, whole[::-1], (slice(None), centre)),
        ):
            image.save(tmp_path / name)
            scaled = torch.from_numpy(np.array(image.resize(to, Image.Resampling.BICUBIC))).permute(2, 0, 1)
            assert torch.equal(decode_image(tmp_path / name, size), scaled[chosen])

    def test_scaling_down_is_antialiased(self, tmp_path):
        stripes = np.zeros((64, 64), dtype=np.uint8)
        stripes[:, ::2] = 255
        Image.fromarray(stripes).save(tmp_path / "a.png")
        x = decode_image(tmp_path / "a.png", 8, channels=1).float()
        assert (x - 127.5).abs().max() < 12

    @pytest.mark.parametrize("shape", [(1, 1), (1, 3000), (3000, 1)])
    def test_tiny_and_thin_images(self, tmp_path, shape):
        assert colours(decode_image(plain(tmp_path / "a.png", BLUE, shape), 16)[None]) == [list(BLUE)]

    @pytest.mark.parametrize("kind", BAD_FILES)
    def test_bad_files_are_named(self, tmp_path, kind):
        path = tmp_path / "a.png"
        path.write_bytes(BAD_FILES[kind])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with pytest.raises(DataError, match=r"limit|cannot be decoded") as error:
                decode_image(path, 8)
        assert str(error.value).startswith(f"{path}: ")
        assert "\n" not in str(error.value)
        assert "'" not in str(error.value).removeprefix(f"{path}: ")  # no name of the file within quotes

    @pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "bmp", "gif"])
    def test_truncated_files_are_named(self, tmp_path, kind):
        with pytest.raises(DataError, match="cannot be decoded"):
            decode_image(truncated(tmp_path / "a.png", kind), 8)

    def test_pixel_limit_comes_from_the_header(self, tmp_path):
        path = plain(tmp_path / "a.png", size=(10, 11))
        assert decode_image(path, 4, max_pixels=110).shape == (3, 4, 4)
        with pytest.raises(DataError, match=r"10 x 11 pixels are over the limit of 109"):
            decode_image(path, 4, max_pixels=109)

    def test_missing_file(self, tmp_path):
        with pytest.raises(DataError, match="no such file"):
            decode_image(tmp_path / "a.png", 8)


class TestClassFolders:
    def test_classes_are_the_first_sub_folders_in_sorted_order(self, tmp_path):
        plain(tmp_path / "dog" / "deep" / "a.PNG", RED)
        plain(tmp_path / "cat" / "b.png", GREEN)
        plain(tmp_path / "cat" / "a.png", BLUE)
        plain(tmp_path / ".hidden" / "a.png")
        plain(tmp_path / "cat" / "._a.png")
        (tmp_path / "cat" / "notes.txt").write_text("not an image")
        dataset = ImageFolder(tmp_path, 4)
        assert dataset.class_names == ("cat", "dog")
        batch = dataset.__getitems__([0, 1, 2])
        assert colours(batch["x"]) == [list(BLUE), list(GREEN), list(RED)]
        assert batch["class"].tolist() == [0, 0, 1]
        assert dataset[2]["class"] == 1
        assert dataset.image_shape == (3, 4, 4)
        assert dataset.num_classes == 2

    def test_one_flat_folder_has_no_classes(self, tmp_path):
        plain(tmp_path / "a.png")
        dataset = ImageFolder(tmp_path, 4, channels=1)
        assert set(dataset[0]) == {"x"}
        assert dataset[0]["x"].shape == (1, 4, 4)
        assert dataset.num_classes == 0
        assert [sample["x"].shape for sample in dataset] == [(1, 4, 4)]

    def test_a_test_folder_can_have_the_training_folders_numbers(self, tmp_path):
        plain(tmp_path / "dog" / "a.png")
        dataset = ImageFolder(tmp_path, 4, class_names=("cat", "dog"))
        assert dataset[0]["class"] == 1
        with pytest.raises(DataError, match="label 'dog' is out of range"):
            ImageFolder(tmp_path, 4, class_names=("cat", "cow"))
        with pytest.raises(DataError, match="has 1 classes, but num_classes is 2"):
            ImageFolder(tmp_path, 4, num_classes=2)

    def test_faults_of_the_folder(self, tmp_path):
        with pytest.raises(DataError, match="does not exist"):
            ImageFolder(tmp_path / "absent", 4)
        with pytest.raises(DataError, match="lists no images"):
            ImageFolder(tmp_path, 4)
        plain(tmp_path / "cat" / "a.png")
        with pytest.raises(DataError, match="is a file"):
            ImageFolder(tmp_path / "cat" / "a.png", 4)
        plain(tmp_path / "loose.png")
        with pytest.raises(DataError, match=r"1 images, such as loose.png, lie beside the class folders"):
            ImageFolder(tmp_path, 4)

    @pytest.mark.parametrize(
        "wrong",
        [{"size": 0}, {"channels": 2}, {"on_error": "ignore"}, {"num_classes": 1, "class_names": ("a",)}],
    )
    def test_faults_of_the_arguments(self, tmp_path, wrong):
        plain(tmp_path / "a.png")
        with pytest.raises(DataError, match=next(iter(wrong))):
            ImageFolder(tmp_path, **({"size": 4} | wrong))

    def test_links_out_of_the_folder(self, tmp_path):
        outside = plain(tmp_path / "outside" / "a.png", BLUE)
        inside = plain(tmp_path / "root" / "a.png")
        (tmp_path / "root" / "b.png").symlink_to(inside)
        assert len(ImageFolder(tmp_path / "root", 4)) == 2
        (tmp_path / "root" / "c.png").symlink_to(outside)
        with pytest.raises(DataError, match=r"c.png: is a link out of"):
            ImageFolder(tmp_path / "root", 4)
        assert len(ImageFolder(tmp_path / "root", 4, follow_links=True)) == 3


class TestMetadata:
    def test_classes_and_captions(self, tmp_path):
        for name, colour in (("a.png", RED), ("sub/b.png", GREEN)):
            plain(tmp_path / name, colour)
        plain(tmp_path / "unlisted.png")
        write_metadata(
            tmp_path,
            {"file_name": "sub/b.png", "label": "dog", "text": "a dög", "other": 1},
            "",
            {"file_name": "a.png", "class": "cat", "caption": ""},
        )
        dataset = ImageFolder(tmp_path, 4)
        batch = dataset.__getitems__([0, 1])
        assert colours(batch["x"]) == [list(GREEN), list(RED)]
        assert batch["class"].tolist() == [1, 0]
        assert batch["caption"] == ["a dög", ""]
        assert dataset[0]["caption"] == "a dög"

    def test_integer_classes(self, tmp_path):
        plain(tmp_path / "a.png")
        write_metadata(tmp_path, {"file_name": "a.png", "class": 10}, {"file_name": "a.png", "class": 9})
        dataset = ImageFolder(tmp_path, 4)
        assert dataset.class_names == ("9", "10")
        assert dataset.labels.tolist() == [1, 0]
        assert ImageFolder(tmp_path, 4, num_classes=20).labels.tolist() == [10, 9]
        with pytest.raises(DataError, match=r"metadata.jsonl, line 1: label 10 is out of range: the 10 classes"):
            ImageFolder(tmp_path, 4, num_classes=10)

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("{'file_name': 'a.png'}", "is not JSON"),
            ("[" * 100_000, "is not JSON"),
            ('["a.png"]', "is not an object"),
            ({"file": "a.png"}, "file_name is None"),
            ({"file_name": 3}, "file_name is 3"),
            ({"file_name": "a\0.png"}, "file_name is"),
            ({"file_name": "absent.png"}, "there is no file"),
            ({"file_name": "x" * 5000}, "no file|not a usable path"),
            ({"file_name": "../secret.png"}, "leads out of"),
            ({"file_name": "sub/../../secret.png"}, "leads out of"),
            ({"file_name": "..\\secret.png"}, "leads out of"),
            ({"file_name": "/etc/passwd"}, "leads out of"),
            ({"file_name": "link.png"}, "leads out of"),
            ({"file_name": "a.png", "class": 1.5}, "'class' is 1.5; it must be an integer or a name"),
            ({"file_name": "a.png", "label": True}, "'label' is True"),
            ({"file_name": "a.png", "class": None}, "'class' is None"),
            ({"file_name": "a.png", "caption": 3}, "'caption' is 3; it must be a string"),
            ({"file_name": "a.png", "class": 1, "label": 2}, "has both 'class' and 'label'"),
            (
                {"file_name": "a.png", "class": "one", "caption": ""},
                "class is 'one', but in .*line 1 it is 0",
            ),
            ({"file_name": "a.png", "caption": ""}, "class is None, but in .*line 1 it is 0"),
            ({"file_name": "a.png", "class": 0}, "caption is None, but in"),
        ],
    )
    def test_faults_name_the_line(self, tmp_path, line, message):
        root = tmp_path / "root"
        plain(root / "a.png")
        plain(tmp_path / "secret.png")
        (root / "link.png").symlink_to(tmp_path / "secret.png")
        write_metadata(root, {"file_name": "a.png", "class": 0, "caption": "first"}, "", line)
        with pytest.raises(DataError, match=message) as error:
            ImageFolder(root, 4)
        assert f"{root / 'metadata.jsonl'}, line 3" in str(error.value)

    def test_not_utf8_and_empty(self, tmp_path):
        plain(tmp_path / "a.png")
        (tmp_path / "metadata.jsonl").write_bytes(b"\xff\xfe\x00")
        with pytest.raises(DataError, match="UTF-8"):
            ImageFolder(tmp_path, 4)
        write_metadata(tmp_path, "")
        with pytest.raises(DataError, match=r"metadata.jsonl: lists no images"):
            ImageFolder(tmp_path, 4)


class TestBadFiles:
    @pytest.fixture
    def folder(self, tmp_path):
        """Five images of which the second, third and last are bad."""
        for index, colour in ((0, RED), (3, GREEN)):
            plain(tmp_path / "images" / f"{index}.png", colour)
        (tmp_path / "images" / "1.png").write_bytes(b"")
        truncated(tmp_path / "images" / "2.png", "png")
        (tmp_path / "images" / "4.png").write_bytes(BAD_FILES["121 megapixels"])
        return tmp_path / "images"

    def test_raise_names_the_file(self, folder):
        dataset = ImageFolder(folder, 4)
        assert dataset[0]["x"].shape == (3, 4, 4)
        with pytest.raises(DataError, match=r"1\.png: cannot be decoded"):
            dataset[1]

    @pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
    def test_skip_replaces_warns_and_counts(self, folder):
        dataset = ImageFolder(folder, 4, on_error="skip")
        with pytest.warns(UserWarning, match=r"skipped \d of \d samples so far: .*png") as caught:
            batch = dataset.__getitems__(range(5))
        assert colours(batch["x"]) == [list(colour) for colour in (RED, GREEN, GREEN, GREEN, RED)]
        assert len([warning for warning in caught if warning.category is UserWarning]) == 3
        assert sorted(path.name for path in dataset.skipped) == ["1.png", "2.png", "4.png"]
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # known by now
            assert torch.equal(dataset.__getitems__(range(5))["x"], batch["x"])

    @pytest.mark.filterwarnings("ignore")
    def test_batches_keep_their_size_and_do_not_depend_on_what_was_read_before(self, folder):
        fresh, used = (ImageFolder(folder, 4, on_error="skip") for _ in range(2))
        used.__getitems__(range(5))
        for _, one, other in zip(range(6), Batches(fresh, 4), Batches(used, 4), strict=False):
            assert one["x"].shape == (4, 3, 4, 4)
            assert torch.equal(one["x"], other["x"])

    @pytest.mark.filterwarnings("ignore")
    def test_limits(self, folder):
        with pytest.raises(DataError, match="2 of 3 samples are damaged, more than 1;"):
            ImageFolder(folder, 4, on_error="skip", max_skipped=1).__getitems__(range(5))
        for index in (0, 3):
            (folder / f"{index}.png").write_bytes(b"")
        dataset = ImageFolder(folder, 4, on_error="skip")
        for _ in range(2):
            with pytest.raises(DataError, match="not one of its 5 images can be read"):
                dataset[2]

    @pytest.mark.filterwarnings("ignore")
    def test_as_many_may_be_bad_as_in_a_stream(self, tmp_path):
        for index in range(300):
            plain(tmp_path / f"{index:03}.png") if index % 5 else (tmp_path / f"{index:03}.png").write_bytes(b"")
        dataset = ImageFolder(tmp_path, 4, on_error="skip")
        with pytest.raises(DataError, match=r"samples are damaged, more than 10%"):
            dataset.__getitems__(range(300))
        assert len(ImageFolder(tmp_path, 4, on_error="skip", max_skipped=60).__getitems__(range(300))["x"]) == 300

    def test_an_error_of_the_system_is_no_damage(self, tmp_path, monkeypatch):
        for index, colour in enumerate((RED, GREEN)):
            plain(tmp_path / f"{index}.png", colour)
        dataset, waited = ImageFolder(tmp_path, 4, on_error="skip"), []
        monkeypatch.setattr(patience.time, "sleep", waited.append)
        held, (soft, hard) = [], resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
        try:
            while True:
                held.append(open(os.devnull))  # noqa: SIM115
        except OSError:
            pass
        try:
            with pytest.raises(UnavailableError, match=r"0\.png: cannot be read now \(.*Too many open files"):
                dataset[0]
            monkeypatch.setattr(patience.time, "sleep", lambda seconds: held.pop().close())
            assert colours(dataset[0]["x"][None]) == [list(RED)]
        finally:
            for file in held:
                file.close()
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert waited == [1, 4, 16]
        assert not dataset.skipped

    def test_class_and_caption_follow_the_replacement(self, tmp_path):
        plain(tmp_path / "b.png", BLUE)
        (tmp_path / "a.png").write_bytes(b"")
        records = [{"file_name": f"{name}.png", "class": name, "caption": f"a {name}"} for name in "ab"]
        write_metadata(tmp_path, *records)
        dataset = ImageFolder(tmp_path, 4, on_error="skip")
        with pytest.warns(UserWarning, match="skipped 1 of 1"):
            sample = dataset[0]
        assert (int(sample["class"]), sample["caption"]) == (1, "a b")

    def test_index_out_of_range(self, tmp_path):
        plain(tmp_path / "a.png")
        dataset = ImageFolder(tmp_path, 4)
        assert torch.equal(dataset[-1]["x"], dataset[0]["x"])
        with pytest.raises(IndexError):
            dataset[1]

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
    def test_a_pipe_is_not_waited_for(self, tmp_path):
        plain(tmp_path / "a.png")
        os.mkfifo(tmp_path / "b.png")
        assert len(ImageFolder(tmp_path, 4)) == 1
