"""What tests share: a folder for datasets that is not the user's, small images, and checkpoints of them."""

import gc
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from command import Irt
    from torch import Tensor, nn

    from interpret_robust.datasets import Dataset

# The process that starts pytest's workers reads this too and runs no test: what loads torch is imported by fixtures.

# Set where pytest starts its workers, so that these find it before NumPy and torch, which read it once, are loaded.
os.environ["OMP_NUM_THREADS"] = "1"

gc.set_threshold(20_000, 20, 20)  # garbage is looked for seldom: thousands of times else, among all that is imported

LONG = ("test_readme", "test_ranks", "test_docs", "test_any_model", "test_workflow", "test_training", "test_cli")
"""Files with the longest tests, which begin first: none of them is still running alone when all others have ended."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests of LONG first, each file's in its order."""
    places = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path.stem, len(LONG)))


def pytest_collection_finish() -> None:
    """What is imported by now stays: garbage is not looked for among it again."""
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """No test reads or writes the datasets of whoever runs it."""
    folder = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IRT_DATA", str(folder))
        yield folder


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Tensors here are tiny: a second thread only waits, and for long where the machine has other work."""
    import torch

    torch.set_num_threads(1)
    os.environ["COLUMNS"] = "400"  # tables in one piece, whatever terminal runs the tests


@pytest.fixture(scope="session", autouse=True)
def quick_pictures() -> Iterator[Callable[[pytest.MonkeyPatch], None]]:
    """Pictures are written with few pixels, not laid out, and fonts as they are: this takes a third of the time.

    What this gives draws again as users do, until its patch is undone. `test_golden.py` and `test_figure_files.py` lay
    out every figure, and `test_figures.py` draws with the fonts that users get.
    """
    from interpret_robust.figures import saving, style

    lay_out, dpi, fonts = saving._lay_out, saving.FORMATS[".png"]["dpi"], style.RC["pdf.fonttype"]

    def patch_all(patch: pytest.MonkeyPatch, lay_out: Callable[..., None], dpi: int, fonts: int) -> None:
        patch.setattr(saving, "_lay_out", lay_out)
        patch.setitem(saving.FORMATS[".png"], "dpi", dpi)
        patch.setitem(style.RC, "pdf.fonttype", fonts)

    with pytest.MonkeyPatch.context() as patch:
        patch_all(patch, lambda figure: figure.set_layout_engine(None), 50, 3)
        yield partial(patch_all, lay_out=lay_out, dpi=dpi, fonts=fonts)


@pytest.fixture
def users_pictures(quick_pictures: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures are those that users get."""
    quick_pictures(monkeypatch)


@pytest.fixture(scope="session", autouse=True)
def modules_of_workers() -> Iterator[None]:
    """The server of workers loads what optimizers and the digits need, which each worker else loads anew."""
    from interpret_robust.core import process_pool

    modules = (*process_pool.SERVER_MODULES, "torch._dynamo", "sklearn.datasets")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process_pool, "SERVER_MODULES", modules)
        yield


@pytest.fixture(scope="session", autouse=True)
def no_lines_of_progress() -> Iterator[None]:
    """Work that is slow because the machine is busy writes no lines into what tests compare."""
    from interpret_robust.core import progress

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(progress, "FIRST_LINE", threading.TIMEOUT_MAX)
        yield


@pytest.fixture(scope="module")
def few_blocks() -> Iterator[None]:
    """Networks of torchvision have two blocks, or one a stage, whatever their name: more only take longer."""
    from torchvision.models import resnet, vision_transformer

    transformer, residual = vision_transformer.VisionTransformer, resnet.ResNet
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            vision_transformer, "VisionTransformer", lambda **arguments: transformer(**arguments | {"num_layers": 2})
        )
        patch.setattr(resnet, "ResNet", lambda block, _, **arguments: residual(block, [1] * 4, **arguments))
        yield


@pytest.fixture
def irt(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> "Irt":
    """`command.irt` without its fixtures."""
    import command

    return partial(command.irt, capfd, monkeypatch)


@pytest.fixture(scope="session")
def digits() -> "Dataset":
    from interpret_robust.datasets.cluttered_digits import make_cluttered_digits

    return make_cluttered_digits(60, 40)


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all of pytest's workers: who needs a network first leaves it there for the others."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@pytest.fixture(scope="session")
def robust_network(shared_folder: Path) -> "tuple[nn.Module, Tensor, Tensor]":
    """A small network after 120 steps of one-step adversarial training at eps 4/255, and 100 test images."""
    import torch
    import torch.nn.functional as F
    from safetensors.torch import load_model, save_model

    from interpret_robust.attacks.noise import per_image_noise
    from interpret_robust.attacks.pgd import PGD
    from interpret_robust.core.locks import Lock
    from interpret_robust.datasets.batches import TrainingBatches, to_device, to_pixels
    from interpret_robust.datasets.cluttered_digits import make_cluttered_digits
    from interpret_robust.models import build

    data, model = make_cluttered_digits(600, 100), build("small", "average", (3, 32, 32), 10, seed=0)

    def train() -> None:
        batches = TrainingBatches(data.train, 30, 0, torch.device("cpu"), pad=0, flip=False)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        for step in range(120):
            images, labels = batches.batch(step)
            eps = 4 / 255 * min(1, step / 60)
            adversarial = PGD(eps, eps, 1)(model, images, labels, per_image_noise(step, range(30)))
            optimizer.param_groups[0]["lr"] = 0.1 * min(step / 30, (120 - step) / 90)
            optimizer.zero_grad()
            F.cross_entropy(model(adversarial), labels).backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    path = shared_folder / "robust_network.safetensors"
    with Lock(path):
        if path.exists():
            load_model(model, path)
        else:
            train()
            save_model(model, str(path))
    images, labels = to_device(data.test, torch.device("cpu"))
    return model.eval(), to_pixels(images).contiguous(), labels


@pytest.fixture(scope="session")
def make_checkpoint(digits: "Dataset", shared_folder: Path) -> Callable[..., Path]:
    """Write the checkpoint of a small model that knows the training images of `digits` by heart."""
    import torch
    import torch.nn.functional as F

    from interpret_robust.core.locks import Lock
    from interpret_robust.datasets.batches import to_device, to_pixels
    from interpret_robust.models import build, checkpoint
    from interpret_robust.models.variants import find_variant
    from interpret_robust.training.job import Job
    from interpret_robust.training.recipe import Recipe

    def train(job: Job) -> dict[str, torch.Tensor]:
        model = build("small", job.variant.head, digits.image_shape, len(digits.class_names), seed=job.seed)
        images, labels = to_device(digits.train, torch.device("cpu"))
        optimizer = torch.optim.Adam(model.parameters(), 0.01)
        for _ in range(job.recipe.epochs):
            optimizer.zero_grad()
            F.cross_entropy(model(to_pixels(images)), labels).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 1 - 0.9**20
        with torch.no_grad():
            model(to_pixels(images))  # the running statistics settle as in twenty passes, which are all alike
        return dict(model.state_dict())

    def make(folder: Path, name: str = "at-att", seed: int = 0) -> Path:
        job = Job(
            digits, "small", find_variant(name), seed, Recipe("test", epochs=10, batch_size=60, learning_rate=0.01)
        )
        header = {"job": job.describe(), "source": digits.name, "code": {"version": "0"}, "history": [], "metrics": {}}
        path = shared_folder / f"{job.name}.safetensors"
        with Lock(path):
            if not path.exists():
                checkpoint.write(path, header, train(job))
        folder.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copy(path, folder))

    return make
