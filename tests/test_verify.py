"""Adversarial images of others: what is accepted, what is said of them, and one sentence for each kind of nonsense."""

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pytest
import torch
from anyone import Convolutions, noise
from command import Irt

from interpret_robust.attacks.verify import Verification, verify
from interpret_robust.core.errors import UserError
from interpret_robust.core.intervals import rate
from interpret_robust.datasets import Dataset, Split, catalogue
from interpret_robust.datasets.npz import write_npz
from interpret_robust.models import build, checkpoint
from interpret_robust.models.variants import find_variant
from interpret_robust.training.job import Job
from interpret_robust.training.recipe import Recipe

CPU = torch.device("cpu")
EPS = 8
"""In 255ths, as in the recipe."""

N, H, W, CLASSES = 23, 16, 20, 7
Bytes = np.ndarray[Any, np.dtype[np.uint8]]


def some_data(channels: int, name: str = "data") -> Dataset:
    """Images of all brightnesses whose sizes all differ; the split repeats no image."""
    rng = np.random.default_rng(channels)
    split = Split(rng.integers(0, 256, (N, H, W, channels), np.uint8), np.arange(N) % CLASSES)
    return Dataset(name, split, split, tuple("abcdefg"))


def checkpoint_of(folder: Path, data: Dataset) -> checkpoint.Checkpoint:
    """A network of random weights that answers with many classes."""
    job = Job(data, "small", find_variant("at"), 0, Recipe("test", epochs=1, batch_size=5, learning_rate=0.01))
    network = build("small", job.variant.head, data.image_shape, CLASSES, seed=0).eval()
    with torch.no_grad():
        pixels = torch.from_numpy(data.test.images / np.float32(255)).permute(0, 3, 1, 2)
        network.classifier.bias.sub_(network(pixels).mean(0))
    path = folder / f"{job.name}.safetensors"
    checkpoint.write(path, {"job": job.describe(), "source": data.name, "history": []}, dict(network.state_dict()))
    return checkpoint.read(path)


@pytest.fixture(scope="module")
def color() -> Dataset:
    return some_data(3)


@pytest.fixture(scope="module")
def model(color: Dataset, tmp_path_factory: pytest.TempPathFactory) -> checkpoint.Checkpoint:
    return checkpoint_of(tmp_path_factory.mktemp("model"), color)


def perturb(images: Bytes, reach: int = EPS, seed: int = 0) -> Bytes:
    """Each pixel moved by up to `by`, within 0 to 255."""
    moves = np.random.default_rng(seed).integers(-reach, reach + 1, images.shape)
    return np.clip(images.astype(int) + moves, 0, 255).astype(np.uint8)


def save(path: Path, array: Any, **extras: Any) -> Path:
    """A .npy, or an HDF5 file with `array` as `images` and others under their names."""
    if path.suffix == ".npy":
        np.save(path, array, allow_pickle=True)
        return path
    with h5py.File(path, "w") as file:
        for name, values in {"images": array, **extras}.items():
            file[name] = values
    return path


def right_by_hand(model: checkpoint.Checkpoint, images: Bytes, labels: Any) -> Any:
    """Which images (n, H, W, C) are classified rightly, one at a time."""
    network, hits = model.model(CPU), []
    with torch.no_grad():
        for image, label in zip(images, labels, strict=True):
            pixels = torch.from_numpy(image.astype(np.float32) / 255).permute(2, 0, 1)[None]
            hits.append(int(network(pixels).argmax()) == label)
    return np.array(hits)


def to_bytes(pixels: npt.NDArray[np.float32]) -> Bytes:
    """Pixels (N, C, H, W) in [0, 1] as bytes (N, H, W, C)."""
    return np.rint(255 * pixels).astype(np.uint8).transpose(0, 2, 3, 1)


def ask(path: Path, model: checkpoint.Checkpoint, data: Dataset, **options: Any) -> Verification:
    return verify(path, model, data, device=CPU, **options)


@pytest.mark.parametrize("suffix", ["npy", "h5"])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("kind", ["uint8", "float32", "float64", ">f8"])
def test_all_that_is_allowed_says_the_same(
    color: Dataset, model: checkpoint.Checkpoint, tmp_path: Path, suffix: str, layout: str, kind: str
) -> None:
    count = 17
    attack, clean = perturb(color.test.images[:count]), color.test.images[:count]
    array = attack if kind == "uint8" else (attack / 255).astype(kind)
    path = save(tmp_path / f"x.{suffix}", array if layout == "NHWC" else array.transpose(0, 3, 1, 2))
    verdict = ask(path, model, color)
    difference = (attack.astype(float) - clean).reshape(count, -1) / 255
    assert verdict.images == count
    assert verdict.largest == pytest.approx(np.abs(difference).max(), abs=1e-7)
    assert verdict.mean_l2 == pytest.approx(np.sqrt((difference**2).sum(1)).mean(), rel=1e-6)
    labels = color.test.labels[:count]
    assert verdict.natural == rate(right_by_hand(model, clean, labels))
    assert verdict.adversarial == rate(right_by_hand(model, attack, labels))
    assert verdict.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("shape", [(N, 1, H, W), (N, H, W, 1), (N, H, W)])
def test_gray_images_may_lack_their_color(tmp_path: Path, shape: tuple[int, ...]) -> None:
    gray = some_data(1)
    model, attack = checkpoint_of(tmp_path, gray), perturb(gray.test.images)
    verdict = ask(save(tmp_path / "x.h5", attack.reshape(shape)), model, gray)
    assert verdict.largest == pytest.approx(EPS / 255, abs=1e-12)
    assert verdict.adversarial == rate(right_by_hand(model, attack, gray.test.labels))


def test_the_second_accuracy_is_that_of_the_files_images(
    color: Dataset, model: checkpoint.Checkpoint, tmp_path: Path
) -> None:
    """In the whole cube anything is inside: here the images in another order, on which other answers are right."""
    attack, labels = np.roll(color.test.images, 3, axis=0), color.test.labels
    natural, adversarial = (right_by_hand(model, images, labels) for images in (color.test.images, attack))
    assert natural.sum() != adversarial.sum()
    verdict = ask(save(tmp_path / "x.npy", attack), model, color, eps=1.0)
    assert (verdict.natural, verdict.adversarial) == (rate(natural), rate(adversarial))


def test_clean_images_are_at_distance_nothing(color: Dataset, model: checkpoint.Checkpoint, tmp_path: Path) -> None:
    verdict = ask(save(tmp_path / "x.npy", color.test.images), model, color, eps=0.0)
    assert (verdict.largest, verdict.mean_l2, verdict.clean_count) == (0, 0, len(color.test.images))
    assert verdict.natural == verdict.adversarial
    assert verdict.doubt is not None
    assert f"is shown {verdict.clean_count} images at the end of the file, from image 0 on" in verdict.doubt


@pytest.mark.parametrize("sign", [1, -1])
def test_an_attack_towards_the_true_classes_is_doubted(
    color: Dataset, model: checkpoint.Checkpoint, tmp_path: Path, sign: int
) -> None:
    """As where a library takes the labels for targets. Steps of 64/255 up the loss make no image right, down many."""
    images = torch.from_numpy(color.test.images / np.float32(255)).permute(0, 3, 1, 2).requires_grad_()
    labels = torch.from_numpy(color.test.labels)
    loss = torch.nn.functional.cross_entropy(model.model(CPU)(images), labels, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, images)
    attack = (images + sign * 64 / 255 * gradient.sign()).clamp(0, 1).detach().numpy()
    verdict = ask(save(tmp_path / "x.npy", attack), model, color, eps=64 / 255)
    right = [right_by_hand(model, pixels, color.test.labels) for pixels in (color.test.images, to_bytes(attack))]
    assert (int(right[1].sum()) > int(right[0].sum())) == (sign == -1)
    gains, losses = int((~right[0] & right[1]).sum()), int((right[0] & ~right[1]).sum())
    if sign == 1:
        assert verdict.doubt is None
    else:
        expected = (
            f"has {gains} of {N} images right after the attack that it had wrong before, and {losses} the other way"
        )
        assert verdict.doubt is not None and verdict.doubt.startswith(expected)


@pytest.mark.parametrize(
    ("places", "count"),
    [((), 0), ((2, 5, 9), 3), (range(9, 17), 8), (range(10, 17), 7), ((*range(8), *range(9, 17)), 16)],
)
def test_images_that_were_not_attacked_are_counted(
    color: Dataset, model: checkpoint.Checkpoint, tmp_path: Path, places: Any, count: int
) -> None:
    """Eight or more at the end are doubted, unless most of those before are unchanged too, as robust ones may be."""
    clean = color.test.images[:17]
    attack = perturb(clean)
    attack[[*places]] = clean[[*places]]
    verdict = ask(save(tmp_path / "x.npy", attack), model, color)
    assert verdict.clean_count == count
    assert (verdict.doubt is not None) == (places == range(9, 17))
    assert verdict.cells()["unchanged"] == str(count)


def test_the_answer_does_not_depend_on_the_batches(
    color: Dataset, model: checkpoint.Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / "x.npy", perturb(color.test.images) / np.float32(255))
    whole = ask(path, model, color)
    monkeypatch.setattr("interpret_robust.datasets.batches.BATCH_SIZE", 5)
    assert ask(path, model, color) == whole


def test_an_index_says_which_images_they_are(color: Dataset, model: checkpoint.Checkpoint, tmp_path: Path) -> None:
    index = np.array([20, 3, 11, 7])
    attack = perturb(color.test.images[index])
    verdict = ask(save(tmp_path / "x.h5", attack, index=index), model, color)
    labels = color.test.labels[index]
    assert verdict.natural == rate(right_by_hand(model, color.test.images[index], labels))
    assert verdict.adversarial == rate(right_by_hand(model, attack, labels))
    with pytest.raises(UserError, match="4 of 4 images, the first of them 0, are outside"):
        ask(save(tmp_path / "y.h5", attack), model, color)


def test_a_key_names_the_images(color: Dataset, model: checkpoint.Checkpoint, tmp_path: Path) -> None:
    clean, attack = color.test.images, perturb(color.test.images)
    path = save(tmp_path / "x.h5", clean, **{"attack/adversarial": attack, "label": color.test.labels})
    assert ask(path, model, color, key="images").largest == 0
    assert ask(path, model, color, key="/attack/adversarial").largest == pytest.approx(EPS / 255, abs=1e-12)


@pytest.mark.parametrize("kind", ["uint8", "float32"])
def test_one_step_of_one_pixel_beyond_the_ball_is_found(
    color: Dataset, model: checkpoint.Checkpoint, tmp_path: Path, kind: str
) -> None:
    attack = perturb(color.test.images)
    clean = int(color.test.images[9, 2, 3, 1])
    step = EPS + 1 if clean < 128 else -EPS - 1
    attack[9, 2, 3, 1] = clean + step
    path = save(tmp_path / "x.npy", attack if kind == "uint8" else (attack / 255).astype(kind))
    with pytest.raises(UserError) as error:
        ask(path, model, color)
    assert str(error.value) == (
        f"{path}: 1 of 23 images, the first of them 9, are outside the ball of 8/255 around the clean images, the "
        "farthest by a change of 9.00/255: are they in the order of the split, and was --eps theirs?"
    )
    assert ask(path, model, color, eps=9 / 255).largest == pytest.approx(9 / 255, abs=1e-7)


Change = Callable[[Dataset], Any]

BAD: dict[str, tuple[Change, str]] = {
    "images of another split's size": (
        lambda data: np.concatenate([data.test.images, data.test.images]),
        "holds 46 images, and the test split of data has 23: give 1 to 23.",
    ),
    "none": (lambda data: data.test.images[:0], "holds 0 images, and the test split of data has 23"),
    "wrong channels": (
        lambda data: data.test.images[..., :2],
        "holds an array of shape (23, 16, 20, 2), and the images here are (N, 3, 16, 20) or (N, 16, 20, 3).",
    ),
    "gray where color is": (lambda data: data.test.images[..., 0], "holds an array of shape (23, 16, 20), and"),
    "sides exchanged": (lambda data: data.test.images.swapaxes(1, 2), "holds an array of shape (23, 20, 16, 3)"),
    "integers": (lambda data: data.test.images.astype(int), "holds numbers of type int64: give uint8, or floats"),
    "floats to 255": (
        lambda data: np.clip(data.test.images, 0, 254).astype(np.float32),
        "image 0 has a pixel of 254, as of floats from 0 to 255: divide by 255 or give uint8.",
    ),
    "normalized": (
        lambda data: data.test.images / 127.5 - 1,
        "image 0 has a pixel of -1: pixels lie in [0, 1], before any normalization.",
    ),
    "not a number": (
        lambda data: np.where(np.arange(N)[:, None, None, None] == 6, np.nan, data.test.images / 255),
        "image 6 has a pixel that is not a number: pixels lie in [0, 1].",
    ),
    "infinite": (lambda data: data.test.images / 255 + np.inf, "image 0 has a pixel of inf"),
}


@pytest.mark.parametrize("suffix", ["npy", "h5"])
@pytest.mark.parametrize("kind", BAD)
def test_bad_images_get_a_sentence(
    color: Dataset, model: checkpoint.Checkpoint, tmp_path: Path, kind: str, suffix: str
) -> None:
    make, sentence = BAD[kind]
    path = save(tmp_path / f"x.{suffix}", make(color))
    with pytest.raises(UserError) as error:
        ask(path, model, color, eps=1.0)
    assert str(error.value).startswith(str(path))
    assert sentence in str(error.value)


def write_pickle(path: Path, data: Dataset) -> Path:
    return save(path.with_suffix(".npy"), np.array([{"images": data.test.images}, None], dtype=object))


def write_half(path: Path, data: Dataset, suffix: str) -> Path:
    whole = save(path.with_suffix(suffix), data.test.images).read_bytes()
    path.with_suffix(suffix).write_bytes(whole[: len(whole) // 2])
    return path.with_suffix(suffix)


def text(path: Path, _: Dataset) -> Path:
    path.with_suffix(".npy").write_text("these are no images\n")
    return path.with_suffix(".npy")


def write_zip(path: Path, data: Dataset, **arrays: Any) -> Path:
    np.savez(path.with_suffix(".npz"), **({"images": data.test.images} | arrays))
    return path.with_suffix(".npz")


def write_objects(path: Path, _: Dataset) -> Path:
    np.savez(path.with_suffix(".npz"), images=np.array([{}, None], dtype=object))
    return path.with_suffix(".npz")


def tensors(path: Path, content: Any) -> Path:
    torch.save(content, path.with_suffix(".pth"))
    return path.with_suffix(".pth")


def cut(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def chw(images: Bytes) -> torch.Tensor:
    """As libraries hold images."""
    return torch.from_numpy(images / np.float32(255)).permute(0, 3, 1, 2)


def write_several(path: Path, data: Dataset) -> Path:
    return save(path.with_suffix(".h5"), data.test.images, second=data.test.images)


def write_no_images(path: Path, data: Dataset) -> Path:
    return save(path.with_suffix(".h5"), data.test.labels)


def index_by(index: Any) -> Callable[[Path, Dataset], Path]:
    return lambda path, data: save(path.with_suffix(".h5"), data.test.images[:3], index=index)


FILES: dict[str, tuple[Callable[[Path, Dataset], Path], str]] = {
    "missing": (lambda path, _: path, "there is no file"),
    "folder": (lambda path, _: path.parent, "is a folder: stack its pictures in the order of the split, as uint8"),
    "pickled": (write_pickle, "holds Python objects, which are never unpickled"),
    "half a .npy": (lambda path, data: write_half(path, data, ".npy"), "is neither HDF5 nor a whole .npy file"),
    "half an HDF5": (lambda path, data: write_half(path, data, ".h5"), "is damaged"),
    "text": (text, "is neither HDF5 nor a whole .npy file"),
    "half an .npz": (lambda path, data: cut(write_zip(path, data)), "is no whole .npz file"),
    "half a .pth": (lambda path, data: cut(tensors(path, {"adv_complete": torch.zeros(3)})), "holds no tensors that"),
    "an .npz of objects": (write_objects, "holds Python objects, which are never unpickled"),
    "tensors of no images": (lambda path, _: tensors(path, {"labels": torch.arange(3)}), "has no images: it holds no"),
    "several attacks": (
        lambda path, data: tensors(path, dict.fromkeys(("apgd-ce", "square"), chw(data.test.images))),
        "name one with --key apgd-ce or square.",
    ),
    "labels of another order": (
        lambda path, data: write_zip(path, data, labels=np.roll(data.test.labels, 1)),
        "labels differs from the labels of the test split of data at 23 of 23 images, the first of them 0",
    ),
    "labels of one class a column": (
        lambda path, data: write_zip(path, data, y=np.eye(N, 7)),
        "y is float64 of shape (23, 7), and must be 23 integers, one for each.",
    ),
    "clean images of another order": (
        lambda path, data: write_zip(path, data, adv=data.test.images, images=data.test.images[::-1].copy()),
        "images differs from the images of the test split of data at 22 of 23 images, the first of them 0",
    ),
    "fewer clean images": (
        lambda path, data: write_zip(path, data, adv=data.test.images, images=data.test.images[:5]),
        "images holds 5 images, and there are 23 adversarial ones.",
    ),
    "several": (write_several, "holds several arrays that might be the images: name one with --key images or second."),
    "no images": (write_no_images, "has no images: it holds no dataset of three or four axes."),
    "repeated index": (index_by([4, 5, 4]), "goes from 4 to 5, and must be 3 different images"),
    "index beyond": (index_by([4, 5, 23]), "goes from 4 to 23, and must be 3 different images of the test split"),
    "short index": (index_by([4, 5]), "index is int64 of shape (2,), and must be 3 integers."),
    "fractional index": (index_by([0.0, 1.0, 2.0]), "index is float64 of shape (3,), and must be 3 integers."),
}


@pytest.mark.parametrize("kind", FILES)
def test_bad_files_get_a_sentence(color: Dataset, model: checkpoint.Checkpoint, tmp_path: Path, kind: str) -> None:
    make, sentence = FILES[kind]
    path = make(tmp_path / "x", color)
    with pytest.raises(UserError) as error:
        ask(path, model, color)
    assert str(path) in str(error.value)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_nothing_is_unpickled(color: Dataset, model: checkpoint.Checkpoint, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    path = save(tmp_path / "x.npy", np.array([Trap()], dtype=object))
    with pytest.raises(UserError):
        ask(path, model, color)
    np.load(path, allow_pickle=True)
    assert (tmp_path / "sprung").exists()
    (tmp_path / "sprung").unlink()
    np.savez(tmp_path / "x.npz", images=np.array([Trap()], dtype=object))
    traps = [tmp_path / "x.npz", tensors(tmp_path / "x", {"adv_complete": Trap()})]
    for trap in (path, *traps):
        with pytest.raises(UserError, match="unpickled"):
            ask(trap, model, color)
    assert not (tmp_path / "sprung").exists()
    torch.load(traps[-1], weights_only=False)
    assert (tmp_path / "sprung").exists()


def test_what_autoattack_saves_is_read(color: Dataset, model: checkpoint.Checkpoint, tmp_path: Path) -> None:
    """`torch.save({"adv_complete": adv_complete}, ...)` in its eval.py; one tensor an attack where run individually."""
    attack, count = perturb(color.test.images[:17]), 17
    expected = rate(right_by_hand(model, attack, color.test.labels[:count]))
    complete = ask(tensors(tmp_path / "aa", {"adv_complete": chw(attack)}), model, color)
    assert (complete.images, complete.adversarial) == (count, expected)
    arrays = {"apgd-ce": chw(color.test.images), "square": chw(attack)}
    square = ask(tensors(tmp_path / "each", arrays), model, color, key="square")
    assert square.adversarial == expected and square.largest == pytest.approx(EPS / 255, abs=1e-6)
    bare = ask(tensors(tmp_path / "bare", chw(attack)), model, color)  # and a tensor alone
    assert bare._replace(sha256="") == complete._replace(sha256="")


@pytest.mark.parametrize("save_type", ["float", "int"])
@pytest.mark.parametrize("save_clean_inputs", [False, True])
def test_what_torchattacks_saves_is_read(
    color: Dataset, model: checkpoint.Checkpoint, tmp_path: Path, save_type: str, save_clean_inputs: bool
) -> None:
    torchattacks = pytest.importorskip("torchattacks")
    batches = torch.utils.data.TensorDataset(chw(color.test.images), torch.from_numpy(color.test.labels))
    attack = torchattacks.PGD(model.model(CPU), eps=EPS / 255, alpha=2 / 255, steps=2)
    options: dict[str, Any] = {"save_type": save_type, "save_clean_inputs": save_clean_inputs}
    path = tmp_path / "theirs.pt"
    attack.save(torch.utils.data.DataLoader(batches, 9), path, verbose=False, **options)
    contents = torch.load(path, weights_only=True)
    verdict = ask(path, model, color, eps=(EPS + 1) / 255)  # its bytes are cut, not rounded
    pixels = contents["adv_inputs"] / 255 if save_type == "int" else contents["adv_inputs"]
    with torch.no_grad():
        right = model.model(CPU)(pixels).argmax(1).numpy() == color.test.labels
    assert verdict.adversarial == rate(right)
    assert 7 / 255 < verdict.largest <= 9.01 / 255


@pytest.mark.parametrize("shape", [(N,), (N, 1)])
@pytest.mark.parametrize("kind", ["int32", "int64", "uint8"])
def test_an_npz_with_labels_and_clean_images_is_read(
    color: Dataset, model: checkpoint.Checkpoint, tmp_path: Path, shape: tuple[int, ...], kind: str
) -> None:
    attack = perturb(color.test.images)
    labels = color.test.labels.astype(kind).reshape(shape)
    path = write_zip(tmp_path / "x", color, x_adv=attack, y=labels)
    assert ask(path, model, color).adversarial == rate(right_by_hand(model, attack, color.test.labels))
    order = np.array([20, 3, 11, 7])
    np.savez(tmp_path / "y.npz", adv=attack[order], images=color.test.images[order], y=labels[order], index=order)
    verdict = ask(tmp_path / "y.npz", model, color)
    assert verdict.adversarial == rate(right_by_hand(model, attack[order], color.test.labels[order]))


def test_half_and_bfloat16_tensors_are_read(color: Dataset, model: checkpoint.Checkpoint, tmp_path: Path) -> None:
    for kind in (torch.float16, torch.bfloat16):
        images = chw(color.test.images).to(kind)
        verdict = ask(tensors(tmp_path / "x", [images.requires_grad_()]), model, color, eps=1.0)
        distance = (images.detach().double() - chw(color.test.images).double()).abs().max()
        assert verdict.largest == pytest.approx(float(distance), abs=1e-7)


def test_a_key_of_nothing_and_a_key_of_no_hdf5(color: Dataset, model: checkpoint.Checkpoint, tmp_path: Path) -> None:
    path = save(tmp_path / "x.h5", color.test.images)
    with pytest.raises(UserError, match="has no images called pictures: there are images"):
        ask(path, model, color, key="pictures")
    with pytest.raises(UserError, match="is no HDF5 file: --key images is for datasets"):
        ask(save(tmp_path / "x.npy", color.test.images), model, color, key="images")


def test_the_model_must_fit_the_data(model: checkpoint.Checkpoint, tmp_path: Path) -> None:
    gray = some_data(1, "gray")
    with pytest.raises(UserError, match="which does not fit gray"):
        ask(save(tmp_path / "x.npy", gray.test.images), model, gray)


def write_twice(path: Path, split: Split) -> None:
    """Write a dataset whose training and test images are those of one split."""
    write_npz(path, catalogue._arrays(Dataset("twice", split, split, ())))


def test_the_command_prints_a_row_and_the_hash_or_one_sentence(
    irt: Irt,
    color: Dataset,
    model: checkpoint.Checkpoint,
    tmp_path: Path,
) -> None:
    write_twice(tmp_path / "data.npz", color.test)
    path = save(tmp_path / "theirs.npy", perturb(color.test.images[:17]))
    words = ["verify", path, model.path, "--dataset", tmp_path / "data.npz", "--device", "cpu"]
    code, out, err = irt(*words)
    assert (code, err) == (0, "")
    row = re.split("  +", out.splitlines()[2])
    assert (row[0], row[1].strip()) == (model.path.stem, "17")
    assert "8.00" in out
    assert f"sha256 {hashlib.sha256(path.read_bytes()).hexdigest()}" in out
    code, out, err = irt(*words, "--eps", "7/255")
    assert (code, out) == (2, "")
    assert "outside the ball of 7/255" in err
    assert err.count("\n") == 1
    code, _, err = irt(*words, "--eps", "8")
    assert (code, "eps is 8: it must lie within 0 and 1" in err) == (2, True)


def test_a_model_from_elsewhere_answers(
    irt: Irt,
    color: Dataset,
    tmp_path: Path,
) -> None:
    write_twice(tmp_path / "data.npz", color.test)
    attack = perturb(color.test.images)
    path = tensors(tmp_path / "theirs", {"adv_complete": chw(attack)})
    data = ["--dataset", tmp_path / "data.npz", "--device", "cpu"]
    network = ["--model", "anyone:Convolutions", "--model-arg", f"height={H}", "--model-arg", f"width={W}"]
    code, out, _ = irt("verify", path, *network, *data, "--weights", "random", "--normalize", "none")
    assert code == 0 and "data-anyone-Convolutions" in out and "8.00" in out
    (tmp_path / "x.safetensors").write_bytes(b"not read")
    for words in ([], [tmp_path / "x.safetensors", *network]):
        code, out, err = irt("verify", path, *words, *data)
        assert (code, out) == (2, "") and "uses one model: give a CHECKPOINT, or --model" in err


class Crowd(Convolutions):
    """Answers the other way round from the 65th image of a batch on."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits = super().forward(images)
        return torch.cat([logits[:64], logits[64:].flip(1)])


def test_batches_larger_than_those_tried_are_compared_with_few(irt: Irt, tmp_path: Path) -> None:
    data = noise(shape=(3, H, W), count=70)
    write_twice(tmp_path / "data.npz", data.test)
    for count, network in ((70, "Crowd"), (64, "Crowd"), (70, "Convolutions")):
        path = tensors(tmp_path / f"theirs-{count}", {"adv_complete": chw(data.test.images[:count])})
        words: list[Any] = [
            "--model",
            f"test_verify:{network}",
            "--model-arg",
            f"height={H}",
            "--model-arg",
            f"width={W}",
        ]
        words += ["--weights", "random", "--normalize", "none", "--dataset", tmp_path / "data.npz", "--device", "cpu"]
        code, _, err = irt("verify", path, *words)
        assert code == 0
        doubt = f"test_verify:{network} answers an image differently in a batch of 70 and in one of 8 ("
        assert (doubt in err) == (network == "Crowd" and count == 70)
