"""Models that timm reads from the Hugging Face Hub or a folder: their numbers, and that nothing is unpickled."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from anyone import network_of
from safetensors.torch import save_file
from torch import nn

from interpret_robust.core.errors import UserError
from interpret_robust.models.building import make_preprocess
from interpret_robust.models.card import Card
from interpret_robust.models.library_settings import find_framing, list_outputs

timm: Any = pytest.importorskip("timm")
hub: Any = pytest.importorskip("timm.models._hub")
errors: Any = pytest.importorskip("huggingface_hub.errors")

SIZES = {"depths": [1, 1, 1, 1], "dims": [4, 4, 8, 8]}
MEAN, DEVIATION = [0.25, 0.5, 0.75], [0.5, 0.25, 0.125]
LABELS = ["n1", "n2", "n3"]

pytestmark = pytest.mark.filterwarnings("ignore")  # of timm, about torch


def small() -> nn.Module:
    """A network of three classes with other weights than seed 0 gives."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        network: nn.Module = timm.create_model("convnext_atto", num_classes=3, **SIZES)
    return network.eval()


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model as its authors publish it: a configuration and weights as safetensors."""
    folder = tmp_path_factory.mktemp("hub") / "someone" / "tiny"
    folder.mkdir(parents=True)
    hub.save_config_for_hf(small(), folder / "config.json", model_args=SIZES)
    save_file(small().state_dict(), folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["pretrained_cfg"] |= {"mean": MEAN, "std": DEVIATION, "input_size": [3, 64, 64], "crop_pct": 0.5}
    config |= {"label_names": LABELS, "label_descriptions": {"n1": "cat, tomcat", "n2": "dog", "n3": "cow"}}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def local_error(kind: str, message: str) -> Exception:
    """An error of huggingface_hub, which would make it from the answer of a server."""
    error_type: type[Exception] = getattr(errors, kind)
    error = error_type.__new__(error_type)
    Exception.__init__(error, message)
    return error


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], list[str]]:
    """Put a folder in the place of the Hub; returns which files are asked for."""

    def start(root: Path) -> list[str]:
        names: list[str] = []

        def download(repo_id: str, filename: str, **_: object) -> str:
            names.append(f"{repo_id}/{filename}")
            if not (root / repo_id).is_dir():
                raise local_error("RepositoryNotFoundError", "404")
            if not (root / repo_id / filename).is_file():
                raise local_error("EntryNotFoundError", f"404: {filename}")
            return str(root / repo_id / filename)

        # timm 1.0.9 takes a later huggingface_hub for none at all.
        monkeypatch.setattr(hub, "_has_hf_hub", True)
        monkeypatch.setattr(hub, "EntryNotFoundError", errors.EntryNotFoundError, raising=False)
        monkeypatch.setattr(hub, "hf_hub_download", download)
        return names

    return start


Serve = Callable[[Path], list[str]]


@pytest.mark.parametrize("model", ["hf-hub:someone/tiny", "timm:hf-hub:someone/tiny"])
def test_a_model_of_the_hub_is_that_of_its_authors(model: str, model_folder: Path, serve: Serve) -> None:
    names = serve(model_folder.parents[1])
    card, images = Card(model), torch.rand(2, 3, 64, 48, generator=torch.Generator().manual_seed(0))
    state = torch.get_rng_state()
    network = network_of(card, 3).eval()
    assert torch.equal(torch.get_rng_state(), state)
    with torch.no_grad():
        assert torch.equal(network(images), small()(images))
    assert names == ["someone/tiny/config.json", "someone/tiny/model.safetensors"]
    preprocess = make_preprocess(card, network, 3)
    assert (preprocess.mean.flatten().tolist(), preprocess.deviation.flatten().tolist()) == (MEAN, DEVIATION)
    framing = find_framing(card, network)
    assert framing is not None and (framing.resize, framing.crop) == ((128,), (64, 64))
    assert list_outputs(card, network) == [["n1", "cat", "tomcat"], ["n2", "dog"], ["n3", "cow"]]


def test_random_weights_need_the_configuration_alone(model_folder: Path, serve: Serve) -> None:
    names = serve(model_folder.parents[1])
    network = network_of(Card("hf-hub:someone/tiny", weights="random"), 7)
    assert names == ["someone/tiny/config.json"]
    assert network(torch.rand(1, 3, 32, 32)).shape == (1, 7)


class Bomb:
    """What makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("file_name", [None, "open_clip_pytorch_model.bin"])
@pytest.mark.parametrize("is_harmless", [True, False])
def test_nothing_of_the_hub_is_unpickled(
    file_name: str | None, is_harmless: bool, model_folder: Path, serve: Serve, tmp_path: Path
) -> None:
    folder, trace = tmp_path / "someone" / "tiny", tmp_path / "trace"
    folder.mkdir(parents=True)
    config = json.loads((model_folder / "config.json").read_text(encoding="utf-8"))
    config["pretrained_cfg"]["hf_hub_filename"] = file_name
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    torch.save(small().state_dict() if is_harmless else Bomb(trace), folder / (file_name or "pytorch_model.bin"))
    serve(tmp_path)
    with pytest.raises(UserError) as error:
        network_of(Card("hf-hub:someone/tiny"), 3)
    assert str(error.value).startswith(
        "hf-hub:someone/tiny has no weights as safetensors here, and timm would unpickle "
        f"{file_name or 'pytorch_model.bin'}: ask for model.safetensors where it comes from"
    )
    assert not trace.exists()


def test_weights_of_timm_itself_are_tensors_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def create(*_: object, **__: object) -> nn.Module:
        torch.save(Bomb(tmp_path / "trace"), tmp_path / "old.pth")
        torch.load(tmp_path / "old.pth", weights_only=False)
        return small()

    monkeypatch.setattr(timm, "create_model", create)
    with pytest.raises(UserError, match=r"resnet18 has no weights as safetensors .* unpickle old\.pth"):
        network_of(Card("timm:resnet18"), 3)
    assert not (tmp_path / "trace").exists()


def test_weights_of_a_file_go_into_the_network_of_the_hub(model_folder: Path, serve: Serve, tmp_path: Path) -> None:
    names = serve(model_folder.parents[1])
    torch.save(small().state_dict(), tmp_path / "pytorch_model.bin")
    network = network_of(Card("hf-hub:someone/tiny", weights=str(tmp_path / "pytorch_model.bin")), 3)
    expected = small().state_dict()
    assert names == ["someone/tiny/config.json"]
    assert all(torch.equal(tensor, expected[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ("hf-hub:someone/gone", "the Hugging Face Hub has no model someone/gone for you: it is ORG/NAME"),
        ("hf-hub:someone/empty", r"hf-hub:someone/empty is no model of timm \(404: config.json\): one has config.json"),
        ("hf-hub:someone/other", r"hf-hub:someone/other is no model of timm \('architecture'\): one has config.json"),
        ("hf-hub:someone/bare", r"hf-hub:someone/bare is no model of timm \(404: pytorch_model.bin\): one has"),
    ],
)
def test_what_the_hub_does_not_have_is_told(
    model: str, sentence: str, model_folder: Path, serve: Serve, tmp_path: Path
) -> None:
    for name in ("empty", "other", "bare"):
        (tmp_path / "someone" / name).mkdir(parents=True)
    (tmp_path / "someone/other/config.json").write_text('{"architectures": ["ViTForImageClassification"]}')
    (tmp_path / "someone/bare/config.json").write_text((model_folder / "config.json").read_text(encoding="utf-8"))
    serve(tmp_path)
    with pytest.raises(UserError, match=sentence) as error:
        network_of(Card(model), 3)
    assert "\n" not in str(error.value) and str(error.value).endswith(".")


def test_without_a_network_it_is_told_what_is_needed(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(tmp_path)

    def download(*_: object, **__: object) -> str:
        raise local_error("LocalEntryNotFoundError", "offline")

    monkeypatch.setattr(hub, "hf_hub_download", download)
    with pytest.raises(UserError) as error:
        network_of(Card("hf-hub:someone/tiny"), 3)
    assert str(error.value).startswith("config.json and model.safetensors of someone/tiny are not all in /")
    assert "the Hugging Face Hub cannot be reached from here: run this once where there is a network" in str(
        error.value
    )


@pytest.mark.parametrize("model", ["hf-hub:someone/tiny", "timm:resnet10t.c3_in1k"])
def test_a_hub_package_that_timm_cannot_use_is_told(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "_has_hf_hub", False)
    with pytest.raises(
        UserError, match=r"^timm [\d.]+ finds no huggingface_hub that it can use: pip install 'huggingface_hub<1', or"
    ):
        network_of(Card(model), 3)


def test_a_folder_is_read_where_timm_can(model_folder: Path) -> None:
    card, images = Card(f"timm:local-dir:{model_folder}"), torch.rand(2, 3, 64, 64)
    if not hasattr(hub, "load_model_config_from_path"):
        with pytest.raises(UserError, match=r"^timm [\d.]+ reads no local-dir:, which a later one does: pip install"):
            network_of(card, 3)
        return
    with torch.no_grad():
        assert torch.equal(network_of(card, 3).eval()(images), small()(images))
