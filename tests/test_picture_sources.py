"""Lists, tables, tars, corruptions and torchvision's datasets: the same pictures, labels and names."""

import csv
import io
import json
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from interpret_robust.core.errors import UserError
from interpret_robust.datasets import catalogue, class_names, load
from interpret_robust.datasets.base import Dataset, Split
from interpret_robust.datasets.listing import group_by_split
from interpret_robust.datasets.records import RECORDS

N, H, W = 9, 11, 14
LABELS = [2, 0, 1, 1, 2, 0, 2, 2, 1]
NAMES = ["ant", "bee", "cat"]
PIXELS = np.random.default_rng(0).integers(0, 256, (N, H, W, 3), np.uint8)
MASKS = np.random.default_rng(1).random((N, H, W)) < 0.3


def png(pixels: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def check(split: Split, places: Any = slice(None)) -> None:
    np.testing.assert_array_equal(split.images[:], PIXELS[places])
    np.testing.assert_array_equal(split.labels, np.array(LABELS)[places])


def write_list(path: Path, rows: list[list[str]], header: str = "file,label,split,mask") -> Path:
    for place in range(N):
        for folder, array in (("p", PIXELS[place]), ("m", np.uint8(255) * MASKS[place])):
            (path.parent / folder).mkdir(exist_ok=True)
            (path.parent / folder / f"{place}.png").write_bytes(png(array))
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([header.split(","), *rows])
    return path


def test_a_csv_lists_files_labels_splits_and_masks(tmp_path: Path) -> None:
    parts = ["train", "test", "test"] * 3
    rows = [[f"p/{i}.png", NAMES[LABELS[i]], parts[i], f"m/{i}.png"] for i in range(N)]
    data = load(str(write_list(tmp_path / "list.csv", rows)))
    train, test = [0, 3, 6], [1, 2, 4, 5, 7, 8]
    assert data.class_names == tuple(NAMES) and data.name == "list" and data.image_shape == (3, H, W)
    check(data.train, train)
    check(data.test, test)
    assert data.test.masks is not None
    np.testing.assert_array_equal(data.test.masks[:], MASKS[test])


def test_a_csv_of_numbers_is_for_tests_and_a_file_names_its_classes(tmp_path: Path) -> None:
    path = write_list(tmp_path / "list.csv", [[f"p/{i}.png", str(LABELS[i])] for i in range(N)], "path,class")
    data = load(str(path))
    check(data.test)
    assert data.class_names == ("class 0", "class 1", "class 2") and not data.is_for_training
    (tmp_path / "names.json").write_text(json.dumps([*NAMES, "dog"]))
    dataset = load(f"{path}?classes={tmp_path}/names.json")
    assert dataset.class_names == (*NAMES, "dog")
    check(dataset.test)


@pytest.mark.parametrize(
    ("header", "row", "sentence"),
    [
        ("name,kind", ["p/0.png", "1"], "begins with the columns name, kind: a first line such as file,label"),
        ("file,label", ["p/0.png", ""], "line 2: a file and a label are needed"),
        ("file,label", ["p/77.png", "1"], "1 of 1 files are missing, the first is p/77.png: paths are relative to /"),
        ("file,label", ["p/7", "1"], "the first is p/7, where p/7.png is: write names with their ending"),
        ("file,label", ["p\\7.png", "1"], r"the first is p.7\.png: write / in the place of \\\."),
        ("file;label", ["p/7.png;1"], "columns file;label: put another mark between them than ';', a comma in .csv"),
        ("file\tlabel", ["p/7.png\t1"], "put another mark between them than '..', a comma in .csv and a tab in .tsv"),
        (
            "file,label",
            ["p/0.png", "['ant', 'bee']"],
            r"line 2: the label is \['ant', 'bee'\], and a picture has one class",
        ),
        (
            "file,ant,bee",
            ["p/0.png", "1", "0"],
            "begins with the columns file, ant, bee: a first line such as file,label",
        ),
        ("file,label,split", ["p/0.png", "1", "tset"], "line 2: the split is 'tset'"),
        ("file,label,split", ["p/0.png", "1", "train"], "has training pictures but no test"),
        ("file,label,mask", ["p/0.png", "1", "m/9.png"], "1 of 1 masks are missing, the first is .*m/9.png"),
        ("file,label", ["p/0", "1.png", "ant"], "line 2: 3 cells, and 2 columns: put quotes around a name"),
        ("file,label,label", ["p/0.png", "ant", "bee"], "has the column label more than once: leave one"),
        ("file,class,label", ["p/0.png", "ant", "3"], "has the columns class and label, which may both be the labels"),
        ("file,label", ["p/0.png\0", "ant"], "1 of 1 files are missing"),
        ("file,label", ["p/0.png", "1.0"], "has the label '1.0': numbers of classes are whole, from 0 to 99999"),
        ("file,label", ["p/0.png", "-1"], r"list\.csv: p/0\.png has the label '-1': numbers of classes are whole"),
        ("file,label", ["p/0.png", "3000000000"], "has the label '3000000000': numbers of classes are whole"),
    ],
)
def test_a_csv_of_another_form_is_refused(header: str, row: list[str], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=sentence):
        load(str(write_list(tmp_path / "list.csv", [row], header)))


def test_a_csv_of_no_rows_and_one_that_names_a_picture_twice_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"list.csv lists no pictures"):
        load(str(write_list(tmp_path / "list.csv", [])))
    rows = [["p/0.png", "ant"], ["p/1.png", "bee"], ["p/0.png", "bee"]]
    with pytest.raises(UserError, match=r"list.csv, line 4: p/0.png is listed a second time"):
        load(str(write_list(tmp_path / "list.csv", rows, "file,label")))
    rows[2][0] = "./p/../p/0.png"
    with pytest.raises(UserError, match=r"list.csv, line 4: ./p/../p/0.png is listed a second time"):
        load(str(write_list(tmp_path / "list.csv", rows, "file,label")))
    (tmp_path / "list.csv").write_text("file,label\np/0.png,ant\n", "utf-16")
    with pytest.raises(UserError, match=r"cannot be read as CSV .*: save it as comma-separated UTF-8"):
        load(str(tmp_path / "list.csv"))


def test_a_csv_of_another_program_has_the_same_pictures_and_labels(tmp_path: Path) -> None:
    write_list(tmp_path / "list.csv", [])
    (tmp_path / "p" / 'a "b", c.png').write_bytes(png(PIXELS[2]))
    lines = [
        "File, Split, Label",
        'p/0.png, Train, "bee"',
        '"p/a ""b"", c.png", Testing, bee',
        "",
        "p/1.png,TRAIN,ant,",
    ]
    (tmp_path / "list.csv").write_bytes("\r\n".join(lines).encode("utf-8-sig"))
    data = load(str(tmp_path / "list.csv"))
    assert data.class_names == ("ant", "bee")
    assert (data.train.labels.tolist(), data.test.labels.tolist()) == ([1, 0], [1])
    np.testing.assert_array_equal(data.train.images[:], PIXELS[:2])
    np.testing.assert_array_equal(data.test.images[:], PIXELS[[2]])


@pytest.mark.parametrize(("name", "delimiter"), [("UP.CSV", ","), ("list.tsv", "\t"), ("List.Tsv", "\t")])
def test_a_list_may_have_tabs_and_an_ending_in_capitals(name: str, delimiter: str, tmp_path: Path) -> None:
    write_list(tmp_path / "list.csv", [])
    rows = [("file", "label"), *((f"p/{place}.png", NAMES[LABELS[place]]) for place in range(N))]
    (tmp_path / name).write_text("".join(f"{delimiter.join(row)}\n" for row in rows))
    data = load(str(tmp_path / name))
    assert data.class_names == tuple(NAMES) and data.name == Path(name).stem
    check(data.test)
    (tmp_path / name).write_text(delimiter.join(("file", "label")) + f"\np/0{delimiter}.png{delimiter}ant\n")
    with pytest.raises(UserError, match=f"put quotes around a name with a {'tab' if delimiter != ',' else 'comma'}"):
        load(str(tmp_path / name))


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("a.tar.gz", r"a\.tar\.gz is compressed: unpack it with gunzip, and give what comes out"),
        ("a.tgz", "is compressed: unpack it with gunzip"),
        ("a.tar.xz", "is compressed: unpack it, and give what comes out"),
        ("A.ZIP", r"A\.ZIP is an archive: unpack it, and give the folder that comes out"),
        ("a.jsonl", r"is no list of pictures that is read here: write a \.csv with a first line file,label"),
        ("a.json", "is no list of pictures that is read here"),
        ("a.txt", "is no list of pictures that is read here"),
        (
            "a.h5",
            r"is no file of arrays that is read here: write them with numpy\.savez as x_train, y_train, x_test and",
        ),
        ("a.mat", "is no file of arrays that is read here"),
        ("a.npy", "is no file of arrays that is read here"),
        ("a.pt", "may hold a pickle, which can run code and is never read: write its arrays with numpy.savez"),
        ("a.pkl", "may hold a pickle, which can run code"),
        ("a.pickle", "may hold a pickle, which can run code"),
        ("a.tfrecord", "is no file of pictures that is read here: write each picture into the folder of its class"),
        ("a.PNG", "is one picture, and a dataset has many: give the folder that the folders of its classes are in"),
        ("set/train-0.tar.gz", r"set/train-0\.tar\.gz is compressed: unpack it with gunzip"),
        ("set/all.zip", r"set/all\.zip is an archive: unpack it"),
    ],
)
def test_files_of_other_kinds_are_refused_with_what_to_do_instead(name: str, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"whatever")
    location = str(path.parent if path.parent != tmp_path else path)
    for function in (load, catalogue.check_name):
        if function is load or path.parent == tmp_path:
            with pytest.raises(UserError, match=sentence):
                function(location)


def test_a_path_where_nothing_is_is_said_to_be_that(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no folder .*/photos: give a folder of pictures, \.npz, \.csv"):
        load(str(tmp_path / "photos"))
    with pytest.raises(UserError, match=r"there is no file of pictures .*/a\.pkl: give a folder"):
        load(str(tmp_path / "a.pkl"))
    with pytest.raises(UserError, match="unknown dataset 'cifer10': did you mean 'cifar10'"):
        load("cifer10")


def test_a_table_with_an_ending_in_capitals_is_read(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    write_parquet(tmp_path / "X.PARQUET", pa.table({"image": [png(pixels) for pixels in PIXELS], "label": LABELS}))
    check(load(str(tmp_path / "X.PARQUET")).test)
    write_tar(tmp_path / "X.TAR", samples(range(N)))
    check(load(str(tmp_path / "X.TAR")).test)


def test_splits_that_label_in_two_ways_are_refused(tmp_path: Path) -> None:
    rows = [["p/0.png", "0", "train"], ["p/1.png", "1", "train"], ["p/2.png", "bee", "test"]]
    sentence = r"list\.csv: training pictures have labels such as '0', others such as 'bee', and none in common: label"
    with pytest.raises(UserError, match=sentence):
        load(str(write_list(tmp_path / "list.csv", rows, "file,label,split")))


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path


def samples(places: range) -> dict[str, bytes]:
    pairs = ((f"a.b/{i:03d}.png", png(PIXELS[i]), f"a.b/{i:03d}.cls", f"{LABELS[i]}\n".encode()) for i in places)
    return {
        name: content for png_name, image, cls, label in pairs for name, content in ((cls, label), (png_name, image))
    }


def test_tars_are_read_in_place(tmp_path: Path) -> None:
    write_tar(tmp_path / "set" / "train-0.tar", samples(range(2)))
    write_tar(tmp_path / "set" / "test-0.tar", samples(range(2, 6)) | {"a.b/002.json": b"{}", "evil.pkl": b"\x80"})
    write_tar(tmp_path / "set" / "test-1.tar", samples(range(6, 9)))
    data = load(str(tmp_path / "set"))
    check(data.train, slice(2))
    check(data.test, slice(2, 9))
    first = data.test.sha256
    alone = load(str(write_tar(tmp_path / "all.tar", samples(range(N)))))
    check(alone.test)
    assert not alone.is_for_training and alone.test.sha256 != first


BOXES = [(place, 2 * place % 5, place + 3, 2 * place % 5 + 4) for place in range(N)]
"""x0, y0, x1, y1 of a box in each picture, which reach its right edge but not its bottom."""


def test_boxes_in_a_csv_are_masks(tmp_path: Path) -> None:
    rows = [[f"p/{i}.png", NAMES[LABELS[i]], *map(str, BOXES[i])] for i in range(N)]
    path = write_list(tmp_path / "list.csv", rows, "file,label,x0,y0,x1,y1")
    expected = np.zeros((N, H, W), bool)
    for mask, (x0, y0, x1, y1) in zip(expected, BOXES, strict=True):
        mask[y0:y1, x0:x1] = True
    data = load(str(path))
    check(data.test)
    assert data.test.masks is not None
    np.testing.assert_array_equal(data.test.masks[:], expected)
    masks = load(f"{path}?size={2 * H}").test.masks
    assert masks is not None
    double = expected.repeat(2, 1).repeat(2, 2)[:, :, W - H : W + H]
    np.testing.assert_array_equal(masks[:], double)


@pytest.mark.parametrize(
    ("header", "corners", "sentence"),
    [
        (
            "x0,y0,x1,y1",
            "3,0,3,5",
            r"list\.csv: the box of p/0\.png is 3,0,3,5, and its picture 14x11: whole numbers x0",
        ),
        ("x0,y0,x1,y1", "0,0,15,5", "the box of p/0.png is 0,0,15,5, and its picture 14x11"),
        ("x0,y0,x1,y1", "0,-1,2,5", "the box of p/0.png is 0,-1,2,5"),
        ("x0,y0,x1,y1", "0,0,2.5,5", "the box of p/0.png is 0,0,2.5,5"),
        (
            "x0,y0,x1",
            "0,0,2",
            "has the columns file, label, x0, y0, x1: a box needs all of x0, y0, x1, y1, and no mask",
        ),
        ("x0,y0,x1,y1,mask", "0,0,2,2,m/0.png", "a box needs all of x0, y0, x1, y1, and no mask"),
    ],
)
def test_boxes_that_are_none_are_refused(header: str, corners: str, sentence: str, tmp_path: Path) -> None:
    path = write_list(tmp_path / "list.csv", [["p/0.png", "ant", *corners.split(",")]], f"file,label,{header}")
    with pytest.raises(UserError, match=sentence):
        load(str(path))


@pytest.mark.parametrize(
    "color", [(0, 0, 2), (0, 0, 2, 255), (9, 0, 0)], ids=["dark blue", "opaque dark blue", "dark red"]
)
def test_a_mask_in_color_is_not_0_where_any_channel_is_not(color: tuple[int, ...], tmp_path: Path) -> None:
    path = write_list(tmp_path / "list.csv", [["p/0.png", "ant", "test", "m/0.png"]])
    pixels = np.zeros((H, W, len(color)), np.uint8)
    pixels[..., 3:] = 255
    pixels[MASKS[0]] = color
    (tmp_path / "m" / "0.png").write_bytes(png(pixels))
    masks = load(str(path)).test.masks
    assert masks is not None
    np.testing.assert_array_equal(masks[:], MASKS[:1])


def mask_of(content: bytes, folder: Path) -> Any:
    """The mask that a PNG is read as."""
    path = write_list(folder / "list.csv", [["p/0.png", "ant", "test", "m/0.png"]])
    (folder / "m" / "0.png").write_bytes(content)
    catalogue._load.cache_clear()
    masks = load(str(path)).test.masks
    assert masks is not None
    return masks[:][0]


def wide_png(pixels: Any, kind: int) -> bytes:
    """A PNG of 16 bits a channel, which PIL does not write in color, of pixels (H, W, channels)."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4, "big") + name + content + zlib.crc32(name + content).to_bytes(4, "big")

    height, width = pixels.shape[:2]
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([16, kind, 0, 0, 0])
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def palette_png(colors: list[int]) -> bytes:
    """A mask of the numbers 0 and 1, and what color each is."""
    picture = Image.fromarray(np.uint8(MASKS[0]))
    picture.putpalette(colors)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", bits=1)
    return buffer.getvalue()


OBJECT = np.uint8(255) * MASKS[0]
GRAY_MASKS = {
    "of 1 bit": png(MASKS[0]),
    "of 16 bits, 0 and 1": png(MASKS[0].astype(np.uint16)),
    "opaque": png(np.stack([OBJECT, np.full_like(OBJECT, 255)], 2)),
    "transparent beside the object": png(np.stack([OBJECT] * 4, 2)),
    "a palette of black and red": palette_png([0, 0, 0, 128, 0, 0]),
}


@pytest.mark.parametrize("name", GRAY_MASKS)
def test_a_mask_of_any_kind_of_png_is_what_is_not_0(name: str, tmp_path: Path) -> None:
    np.testing.assert_array_equal(mask_of(GRAY_MASKS[name], tmp_path), MASKS[0])


OTHER_MASKS = {
    "alpha over black": (png(np.stack([0 * OBJECT, OBJECT], 2)), "its colors and its transparency show two different"),
    "alpha over white": (png(np.stack([0 * OBJECT + 255] * 3 + [OBJECT], 2)), "its colors and its transparency show"),
    "object in a hole": (png(np.stack([OBJECT] * 3 + [255 - OBJECT], 2)), "its colors and its transparency show two"),
    "white is number 0": (palette_png([255, 255, 255, 0, 0, 0]), "another number than 0 is black in its palette"),
    "all colors": (
        palette_png([255, 255, 255, 255, 0, 0]),
        "another number than 0 is black in its palette, or 0 is not",
    ),
    "16 bits a color": (wide_png(np.stack([MASKS[0]] * 3, 2), 2), "has colors of 16 bits, whose lower"),
    "16 bits and alpha": (wide_png(np.stack([MASKS[0]] * 2, 2), 4), "has colors of 16 bits, whose lower"),
}


@pytest.mark.parametrize("name", OTHER_MASKS)
def test_a_mask_whose_object_is_not_clear_is_refused(name: str, tmp_path: Path) -> None:
    content, sentence = OTHER_MASKS[name]
    with pytest.raises(UserError, match=rf"m/0\.png.*{sentence}.*: write it as a gray PNG, 0 beside the object\.$"):
        mask_of(content, tmp_path)


def test_a_mask_that_is_a_jpeg_is_refused(tmp_path: Path) -> None:
    path = write_list(tmp_path / "list.csv", [["p/0.png", "ant", "test", "m/0.jpg"]])
    Image.fromarray(np.uint8(255) * MASKS[0]).save(tmp_path / "m" / "0.jpg")
    with pytest.raises(UserError, match=r"m/0\.jpg is a JPEG, whose compression leaves pixels that are not 0"):
        _ = load(str(path)).test


def masks_of_samples(places: range) -> dict[str, bytes]:
    return {f"a.b/{i:03d}.mask.png": png(np.uint8(3) * MASKS[i]) for i in places}


def test_tars_hold_masks(tmp_path: Path) -> None:
    write_tar(tmp_path / "set" / "test-0.tar", samples(range(5)) | masks_of_samples(range(5)))
    write_tar(tmp_path / "set" / "test-1.tar", masks_of_samples(range(5, N)) | samples(range(5, N)))
    test = load(str(tmp_path / "set")).test
    check(test)
    assert test.masks is not None
    np.testing.assert_array_equal(test.masks[[8, 0, 5]], MASKS[[8, 0, 5]])


@pytest.mark.parametrize(
    ("masks", "sentence"),
    [
        (masks_of_samples(range(1)), r"x\.tar: 2 of 3 pictures have no mask KEY\.mask\.png: give all of them or none"),
        (
            masks_of_samples(range(3)) | {"a.b/001.mask.png": png(np.zeros((3, 4), np.uint8))},
            r"the mask x\.tar/a\.b/001\.mask\.png is 4x3, and its picture 14x11",
        ),
        (
            masks_of_samples(range(3)) | {"a.b/002.mask.png": b"no"},
            r"a mask cannot be read, x\.tar/a\.b/002\.mask\.png \(no picture\): write it anew as a PNG",
        ),
    ],
)
def test_masks_of_tars_that_do_not_fit_are_refused(masks: dict[str, bytes], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=sentence):
        _ = load(str(write_tar(tmp_path / "x.tar", samples(range(3)) | masks))).test


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"1.png": b"", "2.cls": b"1"}, r"the picture 1 has no 1\.cls beside it, the number of its class\.$"),
        (
            {"a/1.png": b""},
            r"no a/1\.cls beside it, .*; where folders are classes, unpack the tar and give the folder\.$",
        ),
        ({"1.png": b"no picture", "1.cls": b"0"}, r"1 of 1 pictures are damaged, bad.tar/1 \(no picture\)"),
        (
            {"1.png": png(PIXELS[0]), "1.cls": b"1", "3.heif.txt": b"", "2.cls": b"1"},
            r"bad\.tar: 1 labels have no picture that can be read here, the first is 2\.cls",
        ),
        ({"1.png": b"", "1.jpg": b"", "1.cls": b"1"}, "the key 1 has two pictures, masks or labels"),
        (None, "is no tar file that can be read, uncompressed"),
    ],
)
def test_other_tars_are_refused(content: dict[str, bytes] | None, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.tar"
    path.write_bytes(b"no tar at all") if content is None else write_tar(path, content)
    with pytest.raises(UserError, match=sentence):
        _ = load(str(path)).test


def test_a_tar_that_was_cut_between_two_samples_is_refused(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tar", samples(range(4)))
    with tarfile.open(path) as tar:
        offset = tar.getmembers()[4].offset
    path.write_bytes(path.read_bytes()[:offset])
    with pytest.raises(UserError, match=r"uncompressed .the blocks of zeros at its end are missing"):
        load(str(path))


def test_tars_hold_pictures_of_other_formats(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS[1]).save(buffer, "WEBP", lossless=True)
    members = {"0.PNG": png(PIXELS[0]), "0.cls": b"2", "1.webp": buffer.getvalue(), "1.cls": b"0"}
    check(load(str(write_tar(tmp_path / "x.tar", members))).test, slice(2))


def feature_metadata(names: list[str] = NAMES, kind: str = "kind") -> dict[bytes, bytes]:
    features = {"picture": {"_type": "Image"}, kind: {"_type": "ClassLabel", "names": names}}
    return {b"huggingface": json.dumps({"info": {"features": features}}).encode()}


def write_parquet(path: Path, table: Any) -> None:
    import pyarrow.parquet

    pyarrow.parquet.write_table(table, path, row_group_size=4)


def write_stream(path: Path, table: Any) -> None:
    import pyarrow as pa

    with pa.ipc.new_stream(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=4)


def write_feather(path: Path, table: Any) -> None:
    import pyarrow.feather

    pyarrow.feather.write_feather(table, str(path), chunksize=4, compression="uncompressed")


WRITERS = {"x.parquet": write_parquet, "x.arrow": write_stream, "x.feather": write_feather}


@pytest.mark.parametrize("name", WRITERS)
def test_tables_as_hugging_face_writes_them(name: str, tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    images = [{"bytes": png(pixels), "path": f"{place}.png"} for place, pixels in enumerate(PIXELS)]
    table = pa.table({"picture": images, "kind": LABELS}).replace_schema_metadata(feature_metadata())
    WRITERS[name](tmp_path / name, table)
    data = load(str(tmp_path / name))
    assert data.class_names == tuple(NAMES) and data.name == "x"
    check(data.test)
    np.testing.assert_array_equal(data.test.images[[8, 0, 5, 0]], PIXELS[[8, 0, 5, 0]])


def test_tables_of_bytes_and_text_in_splits(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    for part, places in (("train", slice(0, 5)), ("validation", slice(5, 9))):
        content = {"image": [png(pixels) for pixels in PIXELS[places]], "label": [NAMES[i] for i in LABELS[places]]}
        (tmp_path / "data").mkdir(exist_ok=True)
        write_parquet(tmp_path / "data" / f"{part}-00000-of-00001.parquet", pa.table(content))
    data = load(str(tmp_path))
    assert data.class_names == tuple(NAMES)
    check(data.train, slice(0, 5))
    check(data.test, slice(5, 9))


def write_named(path: Path, places: range, names: list[str] | None, *, are_numbers: bool = True) -> None:
    """Write a table that numbers its classes as `names` orders them."""
    import pyarrow as pa

    words = [NAMES[LABELS[place]] for place in places]
    labels = [(names or NAMES).index(word) for word in words] if are_numbers else words
    table = pa.table({"picture": [png(PIXELS[place]) for place in places], "label": labels})
    metadata = feature_metadata(names or [], "label" if names else "other")
    WRITERS[f"x{path.suffix}"](path, table.replace_schema_metadata(metadata))


@pytest.mark.parametrize("ending", ["parquet", "arrow"])
def test_tables_that_number_their_classes_otherwise_agree_by_name(ending: str, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    write_named(tmp_path / f"test-0.{ending}", range(2, 5), ["ant", "bee", "cat"])
    write_named(tmp_path / f"test-1.{ending}", range(5, 7), ["bee", "cat", "ant"])
    write_named(tmp_path / f"train-0.{ending}", range(2), ["cat", "dog", "ant", "bee"])
    write_named(tmp_path / f"test-2.{ending}", range(7, 9), None, are_numbers=False)
    data = load(str(tmp_path))
    assert data.class_names == ("cat", "dog", "ant", "bee")  # as the training split numbers them
    assert [data.class_names[label] for label in data.train.labels] == [NAMES[LABELS[place]] for place in range(2)]
    assert [data.class_names[label] for label in data.test.labels] == [NAMES[LABELS[place]] for place in range(2, 9)]
    np.testing.assert_array_equal(data.test.images[:], PIXELS[2:])


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (
            ["ant", "bee", "cat", "dog"],
            r"test-0\.parquet has the class 'dog' in its metadata, which .*train-0\.parquet",
        ),
        (None, r"test-0\.parquet: row 0 has the label 1, for which its metadata have no name, and other files name"),
    ],
)
def test_tables_without_common_names_are_refused(names: list[str] | None, sentence: str, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    write_named(tmp_path / "train-0.parquet", range(2), NAMES)
    write_named(tmp_path / "test-0.parquet", range(2, 5), names)
    with pytest.raises(UserError, match=sentence):
        load(str(tmp_path))


def test_of_several_columns_of_classes_the_one_called_label_is_taken(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    kind = {"_type": "ClassLabel", "names": NAMES}
    for label in ("fine_label", "size"):
        features = {"picture": {"_type": "Image"}, "color": kind, label: kind}
        table = pa.table({"picture": [png(pixels) for pixels in PIXELS], "color": [1] * N, label: LABELS})
        metadata = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
        write_parquet(tmp_path / f"{label}.parquet", table.replace_schema_metadata(metadata))
    check(load(str(tmp_path / "fine_label.parquet")).test)
    with pytest.raises(UserError, match="has 2 columns of classes, color, size: call the one to be predicted label"):
        load(str(tmp_path / "size.parquet"))


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        ([[0, 2], [1]], r"x\.parquet: the column label holds list<\w+: int64>, and labels are whole numbers or text"),
        ([[0], [1]], r"x\.parquet: the column label holds list<\w+: int64>"),
        ([{"id": 0}, {"id": 1}], r"the column label holds struct<id: int64>"),
        ([0.0, float("nan")], "the column label holds double"),
        ([b"ant", b"bee"], "the column label holds binary"),
        (["ant", None], "1 pictures have no label, the first is row 1: leave them out"),
        ([0, -1], r"x\.parquet, picture 1 has the label '-1': numbers of classes are whole"),
        (["ant", "nan"], r"x\.parquet, picture 1 has the label 'nan': numbers of classes are whole"),
    ],
)
def test_labels_that_are_no_label_are_refused(labels: list[Any], sentence: str, tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    write_parquet(tmp_path / "x.parquet", pa.table({"image": [png(pixels) for pixels in PIXELS[:2]], "label": labels}))
    with pytest.raises(UserError, match=sentence):
        load(str(tmp_path / "x.parquet"))


@pytest.mark.parametrize("label", [-1, 3])
def test_a_number_without_a_name_is_refused(label: int, tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    table = pa.table({"picture": [png(pixels) for pixels in PIXELS[:2]], "kind": [0, label]})
    write_parquet(tmp_path / "x.parquet", table.replace_schema_metadata(feature_metadata()))
    with pytest.raises(
        UserError, match=rf"picture 1 has the label '{label}': a number from 0 to 2 or the name of a cl"
    ):
        load(str(tmp_path / "x.parquet"))


def test_labels_of_pandas_categories_and_truths_are_names(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    columns = (
        ("category", pa.array([NAMES[label] for label in LABELS]).dictionary_encode(), tuple(NAMES)),
        ("truth", pa.array([label > 0 for label in LABELS]), ("False", "True")),
    )
    for name, labels, names in columns:
        write_parquet(tmp_path / f"{name}.parquet", pa.table({"image": [png(i) for i in PIXELS], "label": labels}))
        assert load(str(tmp_path / f"{name}.parquet")).class_names == names
    check(load(str(tmp_path / "category.parquet")).test)


@pytest.mark.parametrize("are_structs", [True, False])
@pytest.mark.parametrize("name", WRITERS)
def test_tables_hold_masks(name: str, are_structs: bool, tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    masks: list[Any] = [png(np.uint8(255) * mask) for mask in MASKS]
    if are_structs:
        masks = [{"bytes": content, "path": None} for content in masks]
    images = pa.array([png(pixels) for pixels in PIXELS], pa.large_binary())
    WRITERS[name](tmp_path / name, pa.table({"mask": masks, "image": images, "label": LABELS}))
    test = load(str(tmp_path / name)).test
    check(test)
    assert test.masks is not None
    np.testing.assert_array_equal(test.masks[[8, 0, 5]], MASKS[[8, 0, 5]])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"image": [1, 2]},
            r"x\.parquet: the column image holds int64, and pictures are bytes of a PNG or JPEG, or str",
        ),
        ({"image": ["a.png", "b.png"]}, r"x\.parquet: the column image holds string, and pictures are bytes"),
        ({"image": [{"path": "a"}, {"path": "b"}]}, r"the column image holds struct<path: string>, and pictures are"),
        ({"image": [[1, 2], [3]]}, r"the column image holds list<\w+: int64>, and pictures are bytes"),
        ({"mask": [1.5, 2.5]}, r"x\.parquet: the column mask holds double, and pictures are bytes"),
        ({"mask": [png(np.zeros((3, 4), np.uint8))] * 2}, r"the mask x\.parquet, mask 0 is 4x3, and its picture 14x11"),
        (
            {"mask": [png(np.uint8(MASKS[0])), None]},
            r"a mask cannot be read, x\.parquet, mask 1 \(no bytes\): write it",
        ),
    ],
)
def test_columns_that_hold_no_pictures_are_refused(change: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    content = {"image": [png(pixels) for pixels in PIXELS[:2]], "label": [0, 1]} | change
    write_parquet(tmp_path / "x.parquet", pa.table(content))
    with pytest.raises(UserError, match=sentence) as error:
        _ = load(str(tmp_path / "x.parquet")).test
    assert "\n" not in str(error.value)


def test_masks_in_some_tables_alone_are_refused(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    content = {"image": [png(PIXELS[0])], "label": [0]}
    write_parquet(tmp_path / "test-0.parquet", pa.table(content | {"mask": [png(np.uint8(MASKS[0]))]}))
    write_parquet(tmp_path / "test-1.parquet", pa.table(content))
    with pytest.raises(UserError, match=r"test-1\.parquet has no column mask, and other files have: give all"):
        load(str(tmp_path))


def test_a_table_without_images_is_refused(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    write_parquet(tmp_path / "x.parquet", pa.table({"label": [1]}))
    with pytest.raises(UserError, match="has the columns label: one called image is needed"):
        load(str(tmp_path / "x.parquet"))
    (tmp_path / "y.parquet").write_bytes(b"PAR1 or not")
    with pytest.raises(UserError, match=r"y\.parquet is damaged or no parquet file"):
        load(str(tmp_path / "y.parquet"))


@pytest.mark.parametrize("name", WRITERS)
def test_a_table_that_was_written_anew_is_read_again(name: str, tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    for places in (range(5), range(5, 8)):
        content = {"image": [png(PIXELS[i]) for i in places], "label": [LABELS[i] for i in places]}
        WRITERS[name](tmp_path / "new", pa.table(content))
        (tmp_path / "new").replace(tmp_path / name)
        check(load(str(tmp_path / name)).test, list(places))


@pytest.mark.parametrize("has_types", [True, False])
@pytest.mark.parametrize("name", WRITERS)
def test_a_table_without_rows_has_no_pictures(name: str, has_types: bool, tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    types = [pa.binary(), pa.int64()] if has_types else [pa.null()] * 2
    WRITERS[name](tmp_path / name, pa.schema(zip(("image", "label"), types, strict=True)).empty_table())
    with pytest.raises(UserError, match=r"^the test split of x has no pictures\.$"):
        _ = load(str(tmp_path / name)).test


def test_a_table_without_rows_beside_others_adds_none(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    table = pa.table({"image": [png(pixels) for pixels in PIXELS], "label": LABELS})
    for part, rows in enumerate((table[:0], table[:4], table[4:])):
        write_stream(tmp_path / f"test-{part}.arrow", rows)
    check(load(str(tmp_path)).test)


def test_a_corruption_that_was_written_anew_is_read_again(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 35, 6, 5, 3), np.uint8)
    labels = np.random.default_rng(1).integers(0, 4, (2, 35))
    for round_of_images, round_of_labels in ((0, 0), (1, 0), (1, 1)):
        np.save(tmp_path / "fog.npy", images[round_of_images])
        np.save(tmp_path / "labels.npy", labels[round_of_labels])
        test = load(f"{tmp_path}:fog:2").test
        np.testing.assert_array_equal(test.images, images[round_of_images, 7:14])
        np.testing.assert_array_equal(test.labels, labels[round_of_labels, 7:14])


def test_a_corruption_at_a_severity(tmp_path: Path) -> None:
    folder = tmp_path / "CIFAR-10-C"
    folder.mkdir()
    images = np.random.default_rng(0).integers(0, 256, (35, 32, 32, 3), np.uint8)
    np.save(folder / "fog.npy", images)
    np.save(folder / "labels.npy", np.arange(35, dtype=np.uint8) % 7)
    data = load(f"{folder}:fog:3")
    np.testing.assert_array_equal(data.test.images, images[14:21])
    np.testing.assert_array_equal(data.test.labels, np.arange(7))
    assert (data.name, data.class_names) == ("CIFAR-10-C-fog-3", RECORDS["cifar10"].class_names)
    for text, sentence in (
        (f"{folder}:fog:6", "the severity is '6', and must be 1 to 5"),
        (f"{folder}:frog:1", "did you mean 'fog'"),
        (str(folder), "holds corruptions: name one and its severity, such as .*:fog:3"),
        (f"{folder}:fog:3?size=8", "holds arrays: --size and --skip-damaged are for files of pictures"),
    ):
        with pytest.raises(UserError, match=sentence):
            load(text)


@pytest.mark.parametrize(
    ("folder", "row", "label", "sentence"),
    [
        ("CIFAR-10-C", 3, -1, r"labels\.npy has the label -1 in row 3, and must have labels from 0 to 9"),
        ("CIFAR-10-C", 11, 10, r"labels\.npy has the label 10 in row 11, and must have labels from 0 to 9"),
        ("Mine-C", 0, -2, r"labels\.npy has the label -2 in row 0, and must have labels from 0 to 4"),
        ("Mine-C", 14, 4000, r"labels\.npy has the label 4000 in row 14, and must have labels from 0 to 999"),
        ("Mine-C", 4, 0.5, r"labels\.npy has shape \(15,\) of float64, and must have 15 whole numbers, one for"),
        ("Mine-C", 4, float("nan"), r"labels\.npy has shape \(15,\) of float64"),
    ],
)
def test_corruptions_with_a_label_that_no_class_has_are_refused(
    folder: str, row: int, label: float, sentence: str, tmp_path: Path
) -> None:
    (tmp_path / folder).mkdir()
    np.save(tmp_path / folder / "fog.npy", np.zeros((15, 2, 4, 3), np.uint8))
    labels = np.array([*range(5)] * 3, type(label))
    labels[row] = label
    np.save(tmp_path / folder / "labels.npy", labels)
    with pytest.raises(UserError, match=sentence):
        load(f"{tmp_path / folder}:fog:3")


def test_class_folders_beside_an_array_of_labels_are_read(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, lambda folder: np.save(folder / "labels.npy", np.arange(3)))
    assert load(str(folder)).class_names == tuple(NAMES)


def test_a_dataset_of_torchvision_is_read_where_its_files_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IRT_DATA", str(tmp_path))
    gray = PIXELS[..., 0]
    with pytest.raises(UserError, match=r"torchvision:KMNIST is not in .*KMNIST\('.*', train=True, download=True\)"):
        load("torchvision:KMNIST")
    raw = tmp_path / "KMNIST" / "raw"
    raw.mkdir(parents=True)
    for stem, places in (("train", slice(0, 5)), ("t10k", slice(5, 9))):
        images, labels = gray[places], np.array(LABELS, np.uint8)[places]
        sizes = b"".join(int(size).to_bytes(4, "big") for size in images.shape)
        (raw / f"{stem}-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03" + sizes + images.tobytes())
        (raw / f"{stem}-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01" + sizes[:4] + labels.tobytes())
    catalogue._load.cache_clear()
    data = load("torchvision:KMNIST")
    np.testing.assert_array_equal(data.test.images[:], np.stack([gray[5:]] * 3, 3))
    np.testing.assert_array_equal(data.train.labels, LABELS[:5])
    assert len(data.class_names) == 10 and data.name == "torchvision-KMNIST"
    with pytest.raises(UserError, match="unknown dataset of torchvision that reads no pickles 'CIFAR10'"):
        load("torchvision:CIFAR10")


FORMS: dict[str, tuple[str, Any]] = {
    "list.json": ("json", ["dog", "cat", "cow", "ant"]),
    "index.json": ("json", {"0": ["n1", "dog"], "1": ["n2", "cat"], "2": ["n3", "cow"], "3": ["n4", "Ant"]}),
    "number.json": ("json", {"cow": 2, "dog": 0, "ant": 3, "cat": 1}),
    "lines.txt": ("text", "dog\ncat\ncow\nant\n"),
    "numbers.csv": ("text", "0,dog\n2,n3,cow\n1,cat\n3,ant,emmet\n"),
}


@pytest.mark.parametrize("name", FORMS)
def test_classes_are_numbered_as_a_file_says(name: str, tmp_path: Path) -> None:
    kind, content = FORMS[name]
    (tmp_path / name).write_text(json.dumps(content) if kind == "json" else content)
    for place, folder in enumerate(["ant", "dog", "cat"]):
        (tmp_path / "set" / folder).mkdir(parents=True)
        (tmp_path / "set" / folder / "1.png").write_bytes(png(PIXELS[place]))
    data = load(f"{tmp_path}/set?classes={tmp_path}/{name}")
    assert data.class_names[:2] == ("dog", "cat") and len(data.class_names) == 4
    assert data.test.labels.tolist() == [3, 1, 0]  # ant, cat, dog
    np.testing.assert_array_equal(data.test.images[:], PIXELS[[0, 2, 1]])


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ('["dog", "cow"]', "names no class 'ant', or several, and set has 2"),
        ('["dog", "ant", "Ant"]', "names no class 'ant', or several"),
        ('{"0": ["ant", "dog"]}', "gives one number to two classes"),
        ('{"1": "ant", "2": "dog"}', "does not name the classes of a model's outputs"),
        ("[1, 2]", "does not name the classes"),
        ("{", "does not name the classes"),
    ],
)
def test_a_file_of_other_classes_is_refused(content: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "names.json").write_text(content)
    for folder in ("ant", "dog"):
        (tmp_path / "set" / folder).mkdir(parents=True)
        (tmp_path / "set" / folder / "1.png").write_bytes(png(PIXELS[0]))
    with pytest.raises(UserError, match=sentence):
        load(f"{tmp_path}/set?classes={tmp_path}/names.json")


def test_synonyms_and_ambiguous_names() -> None:
    outputs = [["n01", "crane", "bird"], ["n02", "crane", "machine"], ["n03", "Great_white shark"]]
    assert class_names.find(["great white_Shark", "n02", "crane", "bird", "x"], outputs) == [2, 1, None, 0, None]
    split = Split(PIXELS[:3], np.array([0, 1, 1]))
    data = class_names.renumber(Dataset("two", split, split, ("n03", "bird")), outputs)
    assert data is not None and data.class_names == ("bird", "n02", "n03") and data.test.labels.tolist() == [2, 0, 0]
    assert class_names.renumber(Dataset("two", split, split, ("n03", "crane")), outputs) is None


def folder_of(tmp_path: Path, change: Callable[[Path], None]) -> Path:
    """A folder of two classes with masks."""
    for place in range(N):
        for root, array in (("set", PIXELS[place]), ("set/masks", np.uint8(1) * MASKS[place])):
            path = tmp_path / root / NAMES[LABELS[place]] / f"{place}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png(array))
    change(tmp_path / "set")
    return tmp_path / "set"


def test_masks_are_framed_with_their_pictures(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, lambda _: None)
    order = np.argsort(LABELS, kind="stable")
    split = load(str(folder)).test
    assert split.masks is not None
    np.testing.assert_array_equal(split.images[:], PIXELS[order])
    np.testing.assert_array_equal(split.masks[:], MASKS[order])
    half = load(f"{folder}?size=6").test.take(np.array([4, 1]))
    assert half.masks is not None
    height, width = 6, int(6 * W / H)
    for mask, place in zip(half.masks[:], order[[4, 1]], strict=True):
        small = Image.fromarray(MASKS[place]).resize((width, height), Image.Resampling.NEAREST)
        left = round((width - 6) / 2)
        np.testing.assert_array_equal(mask, np.asarray(small)[:, left : left + 6])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda folder: (folder / "masks/ant/1.png").unlink(), "1 of 9 masks are missing, the first is .*ant/1.png"),
        (lambda folder: (folder / "masks/ant/1.png").write_bytes(b"?"), r"a mask cannot be read, .*ant/1.png \(no pic"),
        (
            lambda folder: (folder / "masks/ant/1.png").write_bytes(png(PIXELS[0, :5])),
            "ant/1.png is 14x5, and its picture 14x11",
        ),
    ],
)
def test_masks_that_do_not_fit_are_refused(change: Callable[[Path], Any], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=sentence):
        _ = load(str(folder_of(tmp_path, change))).test


@pytest.mark.parametrize(
    ("names", "train", "test"),
    [
        (["digits-train-0000.tar", "digits-train-0001.tar", "digits-val-0000.tar"], [0, 1], [2]),
        (["mnist_train.parquet", "mnist_test.parquet", "mnist_validation.parquet"], [0], [1]),
        (["MyData.Training.0.tar", "MyData.Testing.0.tar"], [0], [1]),
        (["train-of-test-0.tar", "test-of-train-0.tar"], [0], [1]),
        (["train/stress-test-0.tar", "test/stress-train-0.tar"], [0], [1]),
        (["contest-0.tar", "restrain-1.tar"], [], [0, 1]),
        (["my-train-val-0.tar", "my-val-train-1.tar"], [], [0, 1]),
    ],
)
def test_files_say_anywhere_in_their_names_of_which_split_they_are(
    names: list[str], train: list[int], test: list[int]
) -> None:
    paths = [Path("data") / name for name in names]
    splits = group_by_split(Path("data"), paths)
    assert splits.pop("test") == [paths[place] for place in test]
    assert splits.pop("train", []) == [paths[place] for place in train]
    assert list(splits) in ([], ["val"])


def test_a_file_that_names_no_split_beside_others_that_do_is_named() -> None:
    with pytest.raises(UserError, match=r"data: more\.tar names no split, and other files do"):
        group_by_split(
            Path("data"), [Path("data/digits-train-0.tar"), Path("data/digits-test-0.tar"), Path("data/more.tar")]
        )


def test_two_words_for_one_split_are_refused_in_shards_and_in_a_list(tmp_path: Path) -> None:
    """The pictures of the second word would be left out."""
    with pytest.raises(
        UserError, match=r"^data has both 'val' and 'validation', which name one split: call both alike"
    ):
        group_by_split(Path("data"), [Path("data/val-0.tar"), Path("data/validation-0.tar"), Path("data/test-0.tar")])
    path = tmp_path / "list.csv"
    path.write_text("file,label,split\n0.png,bee,test\n1.png,ant,train\n2.png,ant,training\n")
    with pytest.raises(UserError, match=r"list\.csv has both 'train' and 'training', which name one split"):
        load(str(path))


@pytest.mark.parametrize("extras", [{"source": 1}, {"gender": 1, "race": 0}])
def test_a_plain_column_called_label_goes_before_columns_of_other_classes(
    extras: dict[str, int], tmp_path: Path
) -> None:
    pa = pytest.importorskip("pyarrow")
    kind = {"_type": "ClassLabel", "names": ["a", "b"]}
    features = {"picture": {"_type": "Image"}, "label": {"dtype": "int64", "_type": "Value"}} | dict.fromkeys(
        extras, kind
    )
    columns = {"picture": [png(pixels) for pixels in PIXELS], "label": LABELS}
    columns |= {name: [number] * N for name, number in extras.items()}
    metadata = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    write_parquet(tmp_path / "x.parquet", pa.table(columns).replace_schema_metadata(metadata))
    assert load(str(tmp_path / "x.parquet")).test.labels.tolist() == LABELS


def test_names_of_digits_and_ages_among_names_are_names(tmp_path: Path) -> None:
    names = ["123456", "A12345", "20_30", "1_2"]
    for number, pixels in enumerate(PIXELS[:4]):
        (tmp_path / f"{number}.png").write_bytes(png(pixels))
    path = tmp_path / "list.csv"
    path.write_text("file,label\n" + "".join(f"{number}.png,{name}\n" for number, name in enumerate(names)))
    data = load(str(path))
    assert [data.class_names[label] for label in data.test.labels] == names
    path.write_text("file,label\n0.png,123456\n1.png,1\n")
    with pytest.raises(UserError, match="has the label '123456': numbers of classes are whole, from 0 to 99999"):
        load(str(path))


def test_shards_with_endings_in_capitals_are_files_of_a_folder(tmp_path: Path) -> None:
    """TEST-0.TAR was left out, and val-0.tar taken for the test split."""
    for name, pixels in zip(("val-0.tar", "TEST-0.TAR"), PIXELS, strict=False):
        with tarfile.open(tmp_path / name, "w") as archive:
            for ending, content in ((".png", png(pixels)), (".cls", b"0")):
                member = tarfile.TarInfo(f"0{ending}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    assert np.array_equal(np.asarray(load(str(tmp_path)).test.images[0]), PIXELS[1])
