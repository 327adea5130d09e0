"""Pictures as they lie on disk: decoded when asked for, framed as a model says, damaged ones counted."""

import hashlib
import os
import struct
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any, cast

import command
import numpy as np
import pytest
import torch
from PIL import ExifTags, Image
from torch import nn

import interpret_robust as ir
from interpret_robust.core.arrays import AnyArray
from interpret_robust.core.errors import UserError
from interpret_robust.datasets import Dataset, Split, load
from interpret_robust.datasets.batches import TrainingBatches, make_batch, read_batches, to_device, to_pixels
from interpret_robust.datasets.decoding import open_picture, read_size, turn_upright
from interpret_robust.datasets.framing import Framing
from interpret_robust.datasets.picture_files import Files
from interpret_robust.datasets.pictures import PictureArray
from interpret_robust.datasets.reference import Reference, merge
from interpret_robust.models import checkpoint
from interpret_robust.models.card import Card
from interpret_robust.models.library_settings import find_framing, view
from interpret_robust.models.variants import find_variant
from interpret_robust.study import explain
from interpret_robust.study.explorer.album import Album
from interpret_robust.training.job import Job
from interpret_robust.training.recipe import Recipe

CPU = torch.device("cpu")
SIZES = ((31, 47), (40, 29), (33, 64), (50, 50), (29, 35), (64, 30), (30, 30))
"""Heights and widths of pictures, in turn."""


def write(path: Path, height: int, width: int, seed: int) -> Path:
    """Write a smooth picture, so that JPEG hardly changes it."""
    values = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).resize((width, height), Image.Resampling.BICUBIC).save(path)
    return path


def fill(folder: Path, counts: dict[str, int], ending: str = ".jpg") -> Path:
    """Write so many pictures of mixed sizes for each class folder."""
    number = 0
    for name, count in counts.items():
        for place in range(count):
            write(folder / name / f"{place:02d}{ending}", *SIZES[number % len(SIZES)], number)
            number += 1
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return fill(tmp_path / "photos", {"dog": 5, "cat": 4, "Ant": 2})


class Pool(nn.Module):
    """Mean colors as logits of three classes."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean((2, 3))


def test_labels_order_and_pixels_are_those_of_torchvision(photos: Path) -> None:
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    (photos / "dog" / "notes.txt").write_text("no picture")
    (photos / "dog" / "more").mkdir()
    write(photos / "dog" / "more" / "a.png", 30, 44, 99)
    transform = transforms.Compose([transforms.Resize(24), transforms.CenterCrop(24)])
    reference, data = ImageFolder(str(photos), transform), load(f"{photos}?size=24")
    assert data.class_names == tuple(reference.classes) == ("Ant", "cat", "dog")
    np.testing.assert_array_equal(data.test.labels, reference.targets)
    np.testing.assert_array_equal(data.test.images[:], [np.asarray(picture) for picture, _ in reference])
    assert data.image_shape == (3, 24, 24) and data.name == "photos-24" and len(data.test) == 12


def test_a_framing_is_that_of_pil_by_hand(tmp_path: Path) -> None:
    path = write(tmp_path / "wide" / "a" / "1.png", 20, 31, 3)
    data = load(str(tmp_path / "wide")).frame(Framing((15,), (12, 10), "bicubic"))
    picture = Image.open(path).resize((int(15 * 31 / 20), 15), Image.Resampling.BICUBIC)
    left, top = round((picture.width - 10) / 2), round((15 - 12) / 2)
    expected = np.asarray(picture.crop((left, top, left + 10, top + 12)))
    np.testing.assert_array_equal(data.test.images[0], expected)


def test_gray_pictures_are_three_equal_channels_whatever_their_depth(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    deep = random.integers(0, 65536, (2, 5, 7), np.uint16)
    deep[0, 0, :4] = 0, 128, 129, 65535  # black, the largest that is still black, the smallest that is not, white
    shallow = random.integers(0, 256, (5, 7), np.uint8)
    masks = np.array([deep[0] > 30_000, deep[1] > 30_000, shallow > 100])
    for place, pixels in enumerate((*deep, shallow)):
        for folder, array in (("cat", pixels), ("masks/cat", masks[place].astype(np.uint16))):
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(tmp_path / folder / f"{place}.png")
    test = load(str(tmp_path)).test
    expected = np.array([*((deep.astype(np.int64) * 2 + 257) // 514), shallow])
    assert expected[0, 0, :4].tolist() == [0, 0, 1, 255]
    np.testing.assert_array_equal(test.images[:], expected[..., None].repeat(3, -1))
    assert test.masks is not None
    np.testing.assert_array_equal(test.masks[:], masks)
    album = Album(load(str(tmp_path)), "test", CPU)
    upload = album.entry(album.add((tmp_path / "cat" / "0.png").read_bytes())).pixels
    np.testing.assert_array_equal(255 * upload[0, 0], expected[0])


def test_a_tiff_of_16_bits_a_color_counts_as_damaged(tmp_path: Path) -> None:
    shape = {256: 2, 257: 1, 258: 16, 259: 1, 262: 2, 273: 8 + 2 + 9 * 12 + 4, 277: 3, 278: 1, 279: 12}
    fields = b"".join(struct.pack("<HHII", tag, 3, 1, value) for tag, value in shape.items())
    header = b"II*\0" + struct.pack("<IH", 8, len(shape)) + fields + struct.pack("<I", 0)
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "1.tif").write_bytes(header + struct.pack("<6H", 0, 4095, 12, 65535, 9, 300))
    with pytest.raises(UserError, match=r"1 of 1 pictures are damaged, cat/1\.tif \(mode RGB, more than eight bits"):
        _ = load(str(tmp_path)).test


TURNS: list[tuple[int, Callable[[Any], Any]]] = [
    (1, lambda pixels: pixels),
    (2, lambda pixels: pixels[:, ::-1]),
    (3, lambda pixels: pixels[::-1, ::-1]),
    (4, lambda pixels: pixels[::-1]),
    (5, lambda pixels: pixels.transpose(1, 0, 2)),
    (6, lambda pixels: np.rot90(pixels, -1)),
    (7, lambda pixels: np.rot90(pixels, 2).transpose(1, 0, 2)),
    (8, np.rot90),
]
"""Orientations of EXIF, and what puts their pixels upright."""


@pytest.mark.parametrize("ending", ["jpg", "png"])
@pytest.mark.parametrize(("orientation", "turn"), TURNS)
def test_a_picture_is_turned_upright_alike_by_a_dataset_explain_and_explore(
    orientation: int, turn: Callable[[Any], Any], ending: str, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    path = tmp_path / "set" / "cat" / f"0.{ending}"
    for name, number in (("cat", 0), ("dog", 1)):
        write(tmp_path / "set" / name / f"0.{ending}", 20, 30, number)
        place = tmp_path / "set" / name / f"0.{ending}"
        with Image.open(place) as image:
            image.save(place, exif=exif, **({"quality": "keep"} if ending == "jpg" else {}))
    with Image.open(path) as image:
        expected = turn(np.asarray(image))
    dataset = load(str(tmp_path / "set"))
    images = dataset.test.images
    assert images.shape == (2, *expected.shape)
    assert np.array_equal(images[0], expected)
    album = Album(dataset, "test", torch.device("cpu"))
    upload = album.entry(album.add(path.read_bytes())).pixels
    assert torch.equal(upload, album.entry("0").pixels)
    job = {"image_shape": dataset.image_shape}
    photo = explain.read(path, cast(Any, SimpleNamespace(job=job)), torch.device("cpu"))
    assert torch.equal(photo.pixels, upload)


@pytest.mark.parametrize(("orientation", "turn"), TURNS)
def test_a_tiff_and_its_mask_are_turned_upright(orientation: int, turn: Callable[[Any], Any], tmp_path: Path) -> None:
    """PIL turns a TIFF by itself, and newer versions of it tell the turned size before they decode the picture."""
    file_pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    note = {ExifTags.Base.Orientation: orientation}
    upright_pixels = np.ascontiguousarray(turn(file_pixels))
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        (tmp_path / "masks" / name).mkdir(parents=True)
        Image.fromarray(file_pixels).save(tmp_path / name / "0.tif", tiffinfo=note)
        Image.fromarray(upright_pixels[..., 0]).save(tmp_path / "masks" / name / "0.png")
    test = load(str(tmp_path)).test
    assert test.masks is not None
    np.testing.assert_array_equal(test.images[:], np.stack([upright_pixels] * 2))
    np.testing.assert_array_equal(test.masks[:], np.stack([upright_pixels[..., 0] > 0] * 2))


@pytest.mark.parametrize("exif", [b"Exif\0\0MM\0*\0\0\0\x08\0", b"MM", b"nothing that is read"])
def test_an_orientation_that_cannot_be_read_turns_nothing(exif: bytes, tmp_path: Path) -> None:
    path = tmp_path / "0.jpg"
    Image.new("RGB", (30, 20)).save(path, exif=exif)
    files = Files.list(tmp_path, ["0.jpg"])
    assert read_size(files, 0) == (20, 30)
    with open_picture(files, 0) as image:
        assert turn_upright(image).size == (30, 20)


def test_places_are_those_of_numpy_and_batches_do_not_change_pictures(photos: Path) -> None:
    split = load(f"{photos}?size=20").test
    whole = split.images[:]
    assert isinstance(split.images, PictureArray) and split.images.shape == (11, 20, 20, 3)
    for places in (3, -1, slice(2, 9, 3), np.array([5, 1, 5]), [4, 0], slice(0, 0)):
        np.testing.assert_array_equal(split.images[places], whole[places])
    np.testing.assert_array_equal(split.take(np.array([7, 2])).images[:], whole[[7, 2]])
    for size in (1, 4, 11):
        batches = [make_batch(split, range(first, min(first + size, 11)), CPU) for first in range(0, 11, size)]
        images = torch.cat([batch.images for batch in batches])
        np.testing.assert_array_equal((255 * images).round().permute(0, 2, 3, 1), whole)
        assert torch.cat([batch.labels for batch in batches]).tolist() == split.labels.tolist()


def test_pixels_of_decoded_batches_are_those_of_arrays_bit_by_bit(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (5, 31, 43, 3), np.uint8)
    assert len(np.unique(noise)) == 256
    for place, pixels in enumerate(noise):
        png = tmp_path / "set" / "cat" / f"{place}.png"
        png.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(png)
    expected = to_pixels(to_device(Split(noise[1:5], np.zeros(4, np.int64)), CPU)[0])
    images = make_batch(load(str(tmp_path / "set")).test, range(1, 5), CPU).images
    assert images.dtype == torch.float32 and images.stride() == expected.stride()
    assert torch.equal(images.view(torch.int32), expected.view(torch.int32))


def test_only_warnings_of_pil_are_quiet_after_threads_have_read_pictures(photos: Path) -> None:
    for _ in range(20):
        _ = load(f"{photos}?size=20").test.images[:]
    with pytest.raises(UserWarning, match="seen"):
        warnings.warn("seen", stacklevel=1)


def test_the_size_of_pictures_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in range(7):
        write(tmp_path / "set" / "cat" / f"{place}.png", 9, 13, place)
    split = load(str(tmp_path / "set")).test
    assert split.take(np.array([2, 5])).images.shape == (2, 9, 13, 3)  # measured of these two alone
    assert split.images.shape == (7, 9, 13, 3)
    source = TrainingBatches(split, 6, 0, CPU, pad=2, flip=True, part=slice(1, 4))
    places: list[int] = []
    open_file = Files.open

    def count(files: Files, place: int) -> IO[bytes]:
        places.append(place)
        return open_file(files, place)

    monkeypatch.setattr(Files, "open", count)
    assert source.batch(0)[0].shape == (3, 3, 9, 13)
    assert len(places) == len(set(places)) == 3  # each picture of the part is opened to decode it, and no other one


def test_parts_of_batches_of_pictures_are_the_batch(tmp_path: Path) -> None:
    for place in range(7):
        write(tmp_path / "set" / "cat" / f"{place}.png", 9, 13, place)
    split = load(str(tmp_path / "set")).test
    arrays = Split(split.images[:], split.labels)
    for step in range(3):
        whole, *parts = [
            TrainingBatches(data, 6, 0, CPU, pad=2, flip=True, part=part).batch(step)[0]
            for data, part in ((arrays, slice(None)), (split, slice(1)), (split, slice(1, 4)), (split, slice(4, 6)))
        ]
        assert torch.equal(torch.cat(parts), whole)


def test_a_limit_draws_from_all_classes_before_anything_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos, places = fill(tmp_path / "photos", {"a": 20, "b": 10, "c": 10}), []
    decode = PictureArray._decode

    def count(array: PictureArray, place: int) -> AnyArray:
        places.append(place)
        return decode(array, place)

    monkeypatch.setattr(PictureArray, "_decode", count)
    sample = load(f"{photos}?size=8").test.draw(8)
    assert places == [] and np.bincount(sample.labels).tolist() == [4, 2, 2]
    assert sample.images[2:4].shape == (2, 8, 8, 3) and len(places) == 2


def test_pictures_of_one_size_need_no_other_and_mixed_ones_ask_for_it(tmp_path: Path, photos: Path) -> None:
    for place in range(4):
        write(tmp_path / "equal" / "ab"[place % 2] / f"{place}.png", 9, 14, place)
    assert load(str(tmp_path / "equal")).image_shape == (3, 9, 14)
    with pytest.raises(UserError, match=r"pictures of 7 sizes, from 30x30 to .*size=N"):
        ir.load(Pool(), str(photos))
    assert ir.load(Pool(), f"{photos}?size=16").subject.job["image_shape"] == [3, 16, 16]


def test_validation_pictures_are_a_split_of_their_own_beside_test_pictures(
    tmp_path: Path, irt: command.Irt, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = fill(tmp_path / "farm" / "train", {"a": 6, "b": 6, "c": 2}).parent
    fill(root / "test", {"a": 2, "b": 1})
    fill(root / "val", {"b": 3, "a": 1, "c": 2})
    data = load(f"{root}?size=16")
    assert [data.split(name).labels.tolist() for name in ("train", "test", "val")] == [
        [0] * 6 + [1] * 6 + [2] * 2,
        [0, 0, 1],
        [0, 1, 1, 1, 2, 2],
    ]
    np.testing.assert_array_equal(data.split("val").images[:], load(f"{root / 'val'}?size=16").test.images[:])
    monkeypatch.chdir(tmp_path)
    answer = ir.analyze("robustness", ir.load(Pool(), f"{root}?size=16", label="pool"), split="val", pgd="1", cw="none")
    assert (answer.result.count, answer.result.config["data"]["split"]) == (6, "val")
    code, out, err = irt("data", "show", f"{root}?size=16", "--split", "val", "--root", tmp_path)
    assert code == 0 and "val" in out, err
    fill(root / "val", {"d": 1})
    with pytest.raises(UserError, match=r"val has the class 'd', which .*train lacks"):
        load(str(root))
    (root / "val").rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"^farm has no split 'val', but train and test\.$"):
        load(str(root)).split("val")


def test_a_folder_with_splits_trains_and_one_without_is_refused(tmp_path: Path, photos: Path) -> None:
    root = fill(tmp_path / "split" / "train", {"a": 6, "b": 6}).parent
    fill(root / "val", {"b": 3})
    data = load(f"{root}?size=16")
    assert (len(data.train), data.test.labels.tolist(), data.class_names) == (12, [1, 1, 1], ("a", "b"))
    batches = TrainingBatches(data.train, 5, 0, CPU, pad=2, flip=True)
    copy = Dataset("kept", ir.make_dataset(data.train.images[:], data.train.labels).train, data.test, data.class_names)
    in_memory = TrainingBatches(copy.train, 5, 0, CPU, pad=2, flip=True)
    for step in (0, 1, 2, 3):
        for actual, expected in zip(batches.batch(step), in_memory.batch(step), strict=True):
            assert torch.equal(actual, expected)
        assert torch.equal(batches.noise(step), in_memory.noise(step))
    with pytest.raises(UserError, match="photos-16 has test images only, and this needs training images"):
        _ = load(f"{photos}?size=16").train
    fill(root / "val", {"c": 1})
    with pytest.raises(UserError, match=r"val has the class 'c', which .*train lacks"):
        load(str(root))


@pytest.mark.parametrize(
    ("layout", "sentence"),
    [
        ({}, "holds no pictures in folders of classes"),
        ({"1.jpg": b""}, "holds no pictures in folders of classes"),
        ({"train/a/1.jpg": b""}, r"has train/ but no test/ or val/ beside it"),
        (
            {"training_set/a/1.jpg": b"", "test_set/a/1.jpg": b""},
            "has the subfolders test_set, training_set, which name splits and not classes: call them train",
        ),
        (
            {"seg_pred/1.jpg": b"", "seg_train/a/1.jpg": b"", "seg_test/a/1.jpg": b""},
            "has the subfolders seg_pred, seg_test, seg_train, which name splits and not classes: call them train",
        ),
        (
            {"train/1.jpg": b"", "car/1.jpg": b""},
            r"has train/ but no test/ or val/ beside it: add one of them, or, if train is a class, put all",
        ),
        (
            {"mine/train/a/1.jpg": b"", "mine/val/a/1.jpg": b""},
            r"mine has the subfolders train, val, .*: give .*/mine\.$",
        ),
        (
            {"notes/a.xml": b"", "images/train/1.jpg": b"", "images/val/1.jpg": b""},
            r"images has the subfolders train, val, which name splits, and is no class: give .*/images\.$",
        ),
        ({"mine/a/1.jpg": b"", "mine/b/1.jpg": b""}, r"mine would be the only class, and its .*: give .*/mine\.$"),
        (
            {"train/images/a/1.jpg": b"", "test/images/a/1.jpg": b""},
            r"train/images would be the only class, .*: move what is in .*/train/images up into .*/train\.$",
        ),
        (
            {"notes/a.xml": b"", "notes/Thumbs.db": b"", "cat/1.jpg": b""},
            r"notes has files such as a\.xml, but no picture, and is no class: move it elsewhere",
        ),
        (
            {"train/a/1.jpg": b"", "Training/a/1.jpg": b"", "test/a/1.jpg": b""},
            "has both .train. and .training., which name one split",
        ),
        (
            {"images/1.jpg": b"", "Annotations/trimaps/1.png": b""},
            r"/Annotations is no class by its name: move it elsewhere, or, if it holds masks, call it masks\.$",
        ),
        (
            {"images/1.jpg": b"", "val_annotations.txt": b""},
            r"/images is no class by its name: put the pictures of each class into a folder of its own, or list them",
        ),
        (
            {"train/a/1.jpg": b"", "train/notes/x/a.txt": b"", "test/a/1.jpg": b""},
            r"train/notes has files such as a\.txt, but no picture, and is no class",
        ),
    ],
)
def test_other_folders_are_refused(layout: dict[str, bytes], sentence: str, tmp_path: Path) -> None:
    for name, content in layout.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=sentence):
        load(str(tmp_path))


@pytest.mark.parametrize("names", [("negative_test", "positive_test"), ("bullet_train", "test_tube", "wagon")])
def test_classes_may_have_the_word_of_a_split_in_their_names(names: tuple[str, ...], tmp_path: Path) -> None:
    fill(tmp_path / "flat", dict.fromkeys(names, 1))
    assert load(f"{tmp_path}/flat?size=16").class_names == names
    for split in ("train", "test"):
        fill(tmp_path / "split" / split, dict.fromkeys(names, 1))
    assert load(f"{tmp_path}/split?size=16").class_names == names


def test_a_class_may_have_folders_whose_names_begin_with_a_word_of_a_split(tmp_path: Path) -> None:
    fill(tmp_path, {"engine/train_front": 1, "engine/train_side": 2, "wagon": 1})
    assert load(f"{tmp_path}?size=16").test.labels.tolist() == [0, 0, 0, 1]


def test_what_systems_leave_on_a_disk_is_no_class(tmp_path: Path) -> None:
    fill(tmp_path, {"a": 1, "b": 1})
    for name in ("lost+found", "System Volume Information/x.dat", "$RECYCLE.BIN/desktop.ini", "__MACOSX/a/._0.jpg"):
        path = tmp_path / name
        path.mkdir() if name == "lost+found" else path.parent.mkdir(parents=True)
        if not path.exists():
            path.write_bytes(b"")
    assert load(f"{tmp_path}?size=16").class_names == ("a", "b")


def test_a_bmp_of_16_bits_a_pixel_is_a_picture(tmp_path: Path) -> None:
    """Five, six and five bits a color (Windows' BI_BITFIELDS); what has 16 bits a color is refused."""
    path = tmp_path / "a" / "0.bmp"
    path.parent.mkdir()
    pixels = struct.pack("<4H", 0xF800, 0x07E0, 0x001F, 0xFFFF)  # upwards, rows of two: red, green; blue, white
    header = struct.pack("<2sIHHI", b"BM", 66 + len(pixels), 0, 0, 66)
    masks = struct.pack("<3I", 0xF800, 0x07E0, 0x001F)
    path.write_bytes(header + struct.pack("<IiiHHIIiiII", 40, 2, 2, 1, 16, 3, len(pixels), 0, 0, 0, 0) + masks + pixels)
    images = np.asarray(load(f"{tmp_path}?size=2").test.images[0])
    assert images.tolist() == [[[0, 0, 255], [255, 255, 255]], [[255, 0, 0], [0, 255, 0]]]


@pytest.mark.parametrize(("first", "second"), [("Train", "Test"), ("Training", "Testing"), ("TRAIN", "Val")])
def test_splits_may_be_written_in_capitals(first: str, second: str, tmp_path: Path) -> None:
    fill(tmp_path / first, {"a": 2, "b": 1})
    fill(tmp_path / second, {"b": 2})
    data = load(f"{tmp_path}?size=16")
    assert data.class_names == ("a", "b")
    assert (data.train.labels.tolist(), data.test.labels.tolist()) == ([0, 0, 1], [1, 1])


def test_hidden_files_and_folders_are_no_pictures_and_no_classes(photos: Path) -> None:
    original = load(f"{photos}?size=16").test
    junk = ("cat/._00.jpg", "._cat", "cat/.DS_Store", "__MACOSX/cat/._00.jpg", ".thumbnails/x.jpg", "cat/.old/x.jpg")
    for name in (*junk, "cat/@eaDir/x.jpg", "cat/Thumbs.db"):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        (photos / name).write_bytes(b"no picture")
    (photos / "cat" / "loop").symlink_to(photos / "cat")
    (photos / "dog" / "loop").symlink_to(photos)
    data = load(f"{photos}?size=16")
    assert data.class_names == ("Ant", "cat", "dog") and data.test.sha256 == original.sha256


def test_a_class_folder_without_anything_keeps_its_number_and_folders_below_are_of_their_class(tmp_path: Path) -> None:
    fill(tmp_path / "set" / "b", {"young": 2, "old": 1})
    fill(tmp_path / "set", {"c": 1})
    (tmp_path / "set" / "a").mkdir()
    (tmp_path / "d").symlink_to(tmp_path / "set" / "b" / "young")
    (tmp_path / "set" / "d").symlink_to(tmp_path / "d")
    data = load(f"{tmp_path / 'set'}?size=16")
    assert data.class_names == ("a", "b", "c", "d") and data.test.labels.tolist() == [1, 1, 1, 2, 3, 3]


def test_the_folder_of_masks_may_be_written_in_capitals(tmp_path: Path) -> None:
    for folder, pixels in (("cat", np.full((4, 5, 3), 9, np.uint8)), ("Masks/cat", np.eye(4, 5, dtype=np.uint8))):
        (tmp_path / folder).mkdir(parents=True)
        Image.fromarray(pixels).save(tmp_path / folder / "1.png")
    data = load(str(tmp_path))
    assert data.class_names == ("cat",) and data.test.masks is not None
    np.testing.assert_array_equal(data.test.masks[:], [np.eye(4, 5, dtype=bool)])


def test_pictures_of_every_ending_are_read_and_one_that_cannot_be_is_named(tmp_path: Path) -> None:
    colors = np.random.default_rng(3).integers(0, 256, (1, 5, 3), np.uint8)
    image = Image.fromarray(np.tile(colors, (4, 1, 1)))
    (tmp_path / "a").mkdir()
    image.save(tmp_path / "a" / "1.GIF")
    image.save(tmp_path / "a" / "2.jfif", "JPEG")
    data = load(str(tmp_path))
    np.testing.assert_array_equal(data.test.images[0], np.asarray(image))
    with Image.open(tmp_path / "a" / "2.jfif") as second:
        np.testing.assert_array_equal(data.test.images[1], np.asarray(second))
    (tmp_path / "a" / "3.heic").write_bytes(b"no picture that can be read")
    with pytest.raises(UserError, match=r"1 of 3 pictures are damaged, a/3\.heic \(no picture\)"):
        _ = load(str(tmp_path)).test


def damage(photos: Path) -> list[str]:
    """Damage three pictures: cut, empty, and of sixteen bits."""
    whole = (photos / "cat" / "01.jpg").read_bytes()
    (photos / "cat" / "01.jpg").write_bytes(whole[: len(whole) // 2])
    (photos / "dog" / "00.jpg").write_bytes(b"")
    Image.fromarray(np.full((30, 40), 40_000, np.uint16)).save(photos / "dog" / "deep.tif")
    return ["cat/01.jpg", "dog/00.jpg", "dog/deep.tif"]


def test_damaged_pictures_are_named_or_left_out_and_counted(photos: Path) -> None:
    whole = load(f"{photos}?size=16").test
    pixels, labels = whole.images[:], whole.labels
    names = damage(photos)
    with pytest.raises(UserError) as error:
        _ = load(f"{photos}?size=16").test
    assert "3 of 12 pictures are damaged" in str(error.value) and "--skip-damaged" in str(error.value)
    assert all(name in str(error.value) for name in names) and "I;16" in str(error.value)
    split = load(f"{photos}?size=16&damaged=skip").test
    rest = [place for place in range(11) if place not in (3, 6)]  # cat/01 and dog/00
    np.testing.assert_array_equal(split.images[:], pixels[rest])
    np.testing.assert_array_equal(split.labels, labels[rest])
    assert split.pictures is not None and split.pictures["damaged"] == 3
    assert split.draw(4).pictures == split.pictures


def test_the_count_of_damaged_pictures_stands_under_the_table(photos: Path) -> None:
    damage(photos)
    model = ir.load(Pool(), f"{photos}?size=16&damaged=skip", label="pool")
    answer = ir.analyze("robustness", model, pgd="1", cw="none")
    assert answer.result.config["data"]["pictures"]["damaged"] == 3
    assert "3 damaged pictures of the test split of photos-16 are left out." in " ".join(str(answer).split())


def test_a_picture_that_turns_bad_later_is_named(photos: Path) -> None:
    split = load(f"{photos}?size=16").test
    (photos / "dog" / "01.jpg").write_bytes(b"\xff\xd8 no more")
    with pytest.raises(UserError, match=r"the test split of photos: a picture cannot be read, dog/01.jpg \("):
        _ = split.images[:]
    with pytest.raises(UserError, match=r"the test split of photos: a picture cannot be read, dog/01.jpg \("):
        make_batch(split, range(len(split)), CPU)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_names_that_are_no_utf8_are_read_of_files_and_refused_of_classes(tmp_path: Path) -> None:
    fill(tmp_path, {"cat": 1, "dog": 1}, ".png")
    odd_name = "cat/\udcff.png"
    (tmp_path / "cat" / "00.png").rename(tmp_path / odd_name)
    test = load(str(tmp_path)).test
    digest = hashlib.sha256()
    for name in (os.fsencode(odd_name), b"dog/00.png"):
        digest.update(name + b"\0%d\n" % (tmp_path / os.fsdecode(name)).stat().st_size)
    assert isinstance(test.images, PictureArray) and test.images.digest() == digest.digest()
    assert len(test) == 2
    (tmp_path / "cat").rename(tmp_path / "c\udcfft")
    with pytest.raises(UserError, match=r"has the class 'c\\udcfft': call it by a name of one line, in UTF-8"):
        load(str(tmp_path))


@pytest.mark.parametrize("name", ["tabby\tcat", "two\nlines", "bell\x07"])
def test_a_class_whose_name_breaks_a_table_is_refused(name: str, tmp_path: Path) -> None:
    fill(tmp_path, {name: 1, "dog": 1}, ".png")
    with pytest.raises(UserError, match="call it by a name of one line"):
        load(str(tmp_path))


def test_the_fingerprint_is_of_names_lengths_labels_and_framing(photos: Path) -> None:
    def fingerprint(text: str) -> str:
        return load(text).test.sha256

    first = fingerprint(f"{photos}?size=16")
    assert fingerprint(f"{photos}?size=16&damaged=skip") == first  # none is
    assert fingerprint(f"{photos}?size=17") != first
    destination = photos.rename(photos.with_name("moved"))
    assert fingerprint(f"{destination}?size=16") == first
    (destination / "cat" / "00.jpg").rename(destination / "dog" / "zz.jpg")
    assert fingerprint(f"{destination}?size=16") != first


def test_a_library_decides_size_and_crop() -> None:
    network = nn.Flatten()
    framing = find_framing(Card("torchvision:resnet18", weights="random"), network)
    assert framing == Framing((256,), (224, 224), "bilinear")
    assert find_framing(Card("torchvision:resnet50"), network) == Framing((232,), (224, 224), "bilinear")
    assert find_framing(Card("torchvision:vit_b_16"), network) == Framing((256,), (224, 224), "bilinear")
    assert find_framing(Card("my:Net"), network) is None


@pytest.mark.parametrize("name", ["resnet10t", "vit_tiny_patch16_224", "mobilenetv3_small_100"])
def test_timm_frames_as_its_own_transform(name: str, tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    path = write(tmp_path / "set" / "a" / "1.jpg", 120, 173, 5)
    network = timm.create_model(name, num_classes=2)
    framing = find_framing(Card(f"timm:{name}"), network)
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(network), is_training=False)
    expected = Image.open(path).convert("RGB")
    for step in transform.transforms[:2]:
        expected = step(expected)
    data = load(str(tmp_path / "set")).frame(framing)
    np.testing.assert_array_equal(data.test.images[0], np.asarray(expected))


def test_a_model_sees_the_pictures_as_its_configuration_says(photos: Path) -> None:
    pytest.importorskip("timm")
    network = Pool()
    network.pretrained_cfg = {"input_size": (3, 24, 24), "crop_pct": 0.8, "interpolation": "bicubic"}  # type: ignore
    model = ir.load(network, str(photos), label="pool")
    assert model.subject.job["image_shape"] == [3, 24, 24]
    record = ir.analyze("robustness", model, limit=5, pgd="1", cw="none", batch_size=2).result.config["data"]
    assert record["pictures"]["framing"] == {"resize": [30], "crop": [24, 24], "interpolation": "bicubic"}
    pictures = load(str(photos)).frame(Framing((30,), (24, 24), "bicubic")).test.draw(5)
    assert record["sha256"] == pictures.sha256 and record["reference"] == "test"


def test_a_network_of_small_pictures_that_a_library_would_enlarge_is_doubted(tmp_path: Path) -> None:
    """Dark and bright pictures of 6x6; of enlarged ones the network thinks nothing."""
    pytest.importorskip("timm")
    for place in range(40):
        picture = tmp_path / "tree" / ("dark", "bright")[place % 2] / f"{place}.png"
        picture.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((6, 6, 3), 60 + 140 * (place % 2) + place, np.uint8)).save(picture)

    class Small(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tap = nn.Identity()
            self.pretrained_cfg = {"input_size": (3, 48, 48), "crop_pct": 1.0, "interpolation": "bilinear"}

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            gray = 9 * (self.tap(pixels).mean((1, 2, 3)) - 0.5)
            return torch.stack([gray, -gray], 1) if pixels.shape[-1] == 6 else torch.stack([gray, 9 + gray], 1)

    def doubts(size: str) -> list[str]:
        model = ir.load(Small(), f"{tmp_path / 'tree'}{size}", label="mine", normalize="none")
        return [doubt for doubt in model.subject.doubts if "right on" in doubt]

    (doubt,) = doubts("")
    assert "right on 50% of 40 test images, and with --resize 6 on 100%: pictures of that size are enlarged" in doubt
    assert doubt.endswith("to 48, and --size 6 keeps them as they are.") and doubts("?size=6") == []


def test_samples_of_a_folder(photos: Path) -> None:
    images, labels = ir.samples(f"{photos}?size=12", 3)
    split = load(f"{photos}?size=12").test.draw(3)
    np.testing.assert_array_equal((255 * images).round().permute(0, 2, 3, 1), split.images[:])
    assert labels.tolist() == split.labels.tolist()


def test_classes_are_matched_by_the_names_of_a_library(tmp_path: Path) -> None:
    pytest.importorskip("timm")
    for names in (["n03445777", "n01440764", "n02102040"], ["golf ball", "Tench", "English_springer"]):
        root = tmp_path / names[0]
        for place, name in enumerate(names):
            write(root / name / "1.png", 9, 9, place)
        for model in ("torchvision:resnet18", "timm:resnet10t"):
            network = nn.Identity()
            network.num_classes = 1000  # type: ignore[assignment]
            data = view(load(str(root)), Card(model), network)
            assert len(data.class_names) == 1000 and sorted(data.test.labels) == [0, 217, 574]
            assert [data.class_names[label] for label in data.test.labels] == sorted(names)
    trained_here = view(load(str(root)), Card("torchvision:resnet18", weights="mine.pt"), network)
    assert trained_here.class_names == ("English_springer", "Tench", "golf ball")


def test_another_number_of_classes_is_refused_with_the_remedy(photos: Path) -> None:
    with pytest.raises(UserError, match=r"answers with 4 classes, and photos-8 has 3: .* classes=FILE"):
        ir.load(nn.Sequential(nn.Flatten(), nn.Linear(192, 4)), f"{photos}?size=8")
    (photos.parent / "names.json").write_text('["zebra", "dog", "cat", "ant"]')
    model = ir.load(
        nn.Sequential(nn.Flatten(), nn.Linear(192, 4)), f"{photos}?size=8&classes={photos.parent}/names.json"
    )
    assert model.subject.job["class_names"] == ["zebra", "dog", "cat", "Ant"]


def test_a_checkpoint_is_asked_by_the_names_of_its_classes(
    make_checkpoint: Callable[..., Path], tmp_path: Path, digits: Dataset
) -> None:
    subject = checkpoint.read(make_checkpoint(tmp_path))
    order = np.argsort(digits.class_names)[::-1]
    numbers = np.argsort(order)
    train, test = (Split(split.images, numbers[split.labels]) for split in (digits.train, digits.test))
    other = Dataset("other", train, test, tuple(digits.class_names[place] for place in order))
    np.testing.assert_array_equal(subject.view(other).test.labels, digits.test.labels)
    assert subject.view(other).class_names == digits.class_names and subject.view(digits) is digits


def test_options_of_a_command_become_words_of_its_dataset() -> None:
    assert merge("photos", 64, skips_damaged=True, classes="a b.json") == "photos?size=64&damaged=skip&classes=a+b.json"
    assert Reference.parse("photos?size=64&damaged=skip&classes=a+b.json") == Reference("photos", 64, True, "a b.json")
    assert merge("photos?size=64", None, skips_damaged=True, classes=None) == "photos?size=64&damaged=skip"
    assert merge(None, None, skips_damaged=False, classes=None) is None
    for text, sentence in (
        ("photos?sice=3", "unknown option of a dataset 'sice': did you mean 'size'"),
        ("photos?size=0", "size is '0' where a whole number from 1 to 4096"),
        ("photos?damaged=drop", "unknown way with damaged pictures 'drop'"),
    ):
        with pytest.raises(UserError, match=sentence):
            Reference.parse(text)
    with pytest.raises(UserError, match="name them with --dataset"):
        merge(None, 3, skips_damaged=False, classes=None)


@pytest.mark.parametrize(
    ("counts", "line"),
    [
        ({"a": 1}, "1 test picture, 1 class"),
        ({"a": 2, "c": 1}, "3 test pictures, 3 classes, 1 of them without test pictures (b)"),
    ],
)
def test_pictures_and_classes_are_counted_and_those_without_any_named(
    irt: Any, tmp_path: Path, counts: dict[str, int], line: str
) -> None:
    fill(tmp_path / "photos", counts)
    if len(counts) > 1:
        (tmp_path / "photos" / "b").mkdir()
    assert irt("data", "get", tmp_path / "photos") == (0, f"{tmp_path / 'photos'}: {line}\n", "")
    code, out, _ = irt("data", "show", tmp_path / "photos", "--root", tmp_path)
    count = sum(counts.values())
    assert code == 0 and f"of photos ({count} image{'s' if count > 1 else ''}); in brackets" in out


def test_pictures_without_masks_are_asked_for_a_folder_of_them(photos: Path) -> None:
    with pytest.raises(
        UserError, match=r"photos-16 has no object masks, .*: a folder of pictures has them in masks/\.$"
    ):
        ir.analyze("localization", ir.load(Pool(), f"{photos}?size=16", label="pool"))


def test_splits_of_two_sizes_are_framed_by_a_library_and_else_not_trained_on(tmp_path: Path) -> None:
    for part, height in (("train", 9), ("test", 12)):
        for place in range(4):
            write(tmp_path / "two" / part / "ab"[place % 2] / f"{place}.png", height, 14, place)
    data = load(str(tmp_path / "two"))
    pictures = data.frame(Framing((8,), (6, 7)))
    assert pictures.train.images[:].shape == pictures.test.images[:].shape == (4, 6, 7, 3)
    with pytest.raises(
        UserError, match="two has training pictures of 14x9 and test pictures of another size: --size N"
    ):
        Job(
            data, "small", find_variant("natural"), 0, Recipe("test", epochs=1, batch_size=2, learning_rate=0.1)
        ).describe()


def test_batches_are_decoded_ahead_in_order_and_a_damaged_picture_ends_its_own(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = load(f"{photos}?size=16").test
    whole, threads = split.images[:], threading.active_count()
    (photos / "dog" / "03.jpg").write_bytes(b"\xff\xd8 no more")
    third_is_begun, decoded, decode = threading.Event(), [], PictureArray._decode

    def record(array: PictureArray, place: int) -> AnyArray:
        decoded.append(place)
        if place == 5:
            third_is_begun.set()
        return decode(array, place)

    monkeypatch.setattr(PictureArray, "_decode", record)
    batches = read_batches(split, [range(first, min(first + 2, 11)) for first in range(0, 11, 2)], CPU)
    for first in (0, 2):
        batch = next(batches)
        assert batch.indices == range(first, first + 2) and batch.labels.tolist() == split.labels[first:][:2].tolist()
        np.testing.assert_array_equal((255 * batch.images).round().permute(0, 2, 3, 1), whole[first : first + 2])
        if first == 0:
            assert third_is_begun.wait(10) and max(decoded) <= 5  # one batch is used, and two are made
    rest: list[int] = []
    with pytest.raises(UserError, match=r"the test split of photos: a picture cannot be read, dog/03.jpg \("):
        rest.extend(batch.indices.start for batch in batches)
    assert rest == [4, 6] and threading.active_count() == threads
    batches = read_batches(split, (range(first, first + 1) for first in range(9)), CPU)
    next(batches)
    cast(Any, batches).close()
    assert threading.active_count() == threads


def test_an_answer_does_not_depend_on_the_size_of_batches(photos: Path) -> None:
    model = ir.load(Pool(), f"{photos}?size=16", label="pool")
    answers = [ir.analyze("robustness", model, pgd="2", cw="none", batch_size=size) for size in (11, 3)]
    first, second = (answer.arrays["margin_natural"] for answer in answers)
    np.testing.assert_allclose(first, second, atol=1e-6)
    assert len(first) == 11
