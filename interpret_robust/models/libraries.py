"""Builders of networks that libraries offer: torchvision, timm, also from the Hugging Face Hub, and RobustBench."""

import importlib
import importlib.util
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import nn

from interpret_robust.core.errors import UserError, take_first_line, unknown

MOST_TOLD = 12
"""Names that a sentence lists."""


_LOADING = re.compile(
    r"(weights|pretrained|checkpoint)(_.*)?|custom_checkpoint|state_dict|(.*_)?(dir|file|url)|path|(?!drop_).*_path"
)
"""Names of arguments by which a library's builder reads a file of its own, perhaps by unpickling it."""


def check_call(reference: str, arguments: dict[str, Any]) -> None:
    """Raise UserError for a file among the arguments of an installed library's function, `package.module:name`.

    The library could unpickle it. A function that lies in no installed package is the user's own code.
    """
    module = sys.modules.get(reference.partition(":")[0])
    is_installed = not {"site-packages", "dist-packages"}.isdisjoint(
        Path(getattr(module, "__file__", None) or "").parts
    )
    if not is_installed:
        return
    for argument, value in arguments.items():
        if isinstance(value, str) and Path(value).is_file():
            raise UserError(
                f"--model-arg {argument} could make {reference} read, and unpickle, the file {value}: name it with "
                "--weights, which is read without unpickling."
            )


def build(origin: str, name: str, classes: int, arguments: dict[str, Any], *, pretrained: bool) -> nn.Module:
    """Return the network that the library `origin`, a key of `BUILDERS`, calls `name`.

    Raises UserError for an unknown name, a library that is missing, and an argument that makes the library read a file.
    """
    for argument in arguments:
        if _LOADING.fullmatch(argument):
            raise UserError(
                f"--model-arg {argument} could make {origin} read, and unpickle, a file of its own: name the file with "
                "--weights, which never unpickles."
            )
    return BUILDERS[origin](name, pretrained, classes, arguments)


def _torchvision(name: str, pretrained: bool, classes: int, arguments: dict[str, Any]) -> nn.Module:
    from torchvision import models

    _check_known(name, models.list_models(module=models), "torchvision model")
    options = ({} if pretrained else {"num_classes": classes}) | arguments
    network: nn.Module = models.get_model(name, weights="DEFAULT" if pretrained else None, **options)
    return network


def _timm(name: str, pretrained: bool, classes: int, arguments: dict[str, Any]) -> nn.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what it still uses
            import timm
    except ImportError:
        raise _missing_package("timm") from None
    if not name.startswith(TIMM_SOURCES):
        _check_known(name.partition(".")[0], timm.list_models(), "timm model")
    options = ({} if pretrained else {"num_classes": classes}) | arguments
    try:
        with _forbid_unpickling(name):
            network: nn.Module = timm.create_model(name, pretrained=pretrained, **options)
    except Exception as error:
        if "huggingface_hub" in str(error):
            raise UserError(
                f"timm {timm.__version__} finds no huggingface_hub that it can use: pip install 'huggingface_hub<1', "
                "or a later timm than 1.0.9, which is the one that robustbench needs."
            ) from error
        if name.startswith(TIMM_SOURCES) and (sentence := _sentence(name, error, timm.__version__)):
            raise UserError(sentence) from error
        raise
    return network


def _hub(name: str, pretrained: bool, classes: int, arguments: dict[str, Any]) -> nn.Module:
    return _timm(f"hf-hub:{name}", pretrained, classes, arguments)


TIMM_SOURCES = ("hf-hub:", "local-dir:")
"""What stands before the names of models that timm reads from elsewhere, with their configuration."""


@contextmanager
def _forbid_unpickling(name: str) -> Iterator[None]:
    """Refuse what timm would unpickle: of its own weights all but tensors, of weights from elsewhere everything.

    A configuration from elsewhere names the files; some timm, 1.0.9 for one, unpickle them without `weights_only`.
    """

    def load(file: Any, *arguments: Any, **options: Any) -> Any:
        if name.startswith(TIMM_SOURCES) or options.get("weights_only") is not True:
            file_name = Path(str(file)).name
            raise UserError(
                f"{name} has no weights as safetensors here, and timm would unpickle {file_name}: ask for "
                f"model.safetensors where it comes from, or name a copy of {file_name} with --weights, which is read "
                "without unpickling."
            )
        return original(file, *arguments, **options)

    original = torch.load
    with mock.patch.object(torch, "load", load):
        yield


def is_offline(error: BaseException | None) -> bool:
    """Return whether an error is, or was caused by, a server that could not be reached."""
    while error is not None:
        if any(kind.__name__ in _OFFLINE for kind in type(error).__mro__):
            return True
        error = error.__cause__ or error.__context__
    return False


_OFFLINE = (
    "ConnectionError",
    "ConnectError",
    "URLError",
    "gaierror",
    "LocalEntryNotFoundError",
    "OfflineModeIsEnabled",
)
"""Errors, by name, of libraries that download weights and cannot."""


def _sentence(name: str, error: Exception, version: str) -> str | None:
    """Return what is wrong with a model that timm reads from elsewhere, None where its own words have to do."""
    source, _, place = name.partition(":")
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if is_offline(error):
        from huggingface_hub.constants import HF_HUB_CACHE

        return (
            f"config.json and model.safetensors of {place} are not all in {HF_HUB_CACHE}, and the Hugging Face Hub "
            "cannot be reached from here: run this once where there is a network, and copy that folder."
        )
    if kinds & {"RepositoryNotFoundError", "RevisionNotFoundError", "HFValidationError", "GatedRepoError"}:
        return f"the Hugging Face Hub has no model {place} for you: it is ORG/NAME, or ORG/NAME@REVISION."
    if kinds & {"EntryNotFoundError", "FileNotFoundError"} or isinstance(error, KeyError):
        return (
            f"{name} is no model of timm ({take_first_line(error)}): one has config.json, with its architecture, and "
            "model.safetensors."
        )
    if isinstance(error, AssertionError):
        return f"timm {version} reads no {source}:, which a later one does: pip install --upgrade timm."
    return None


def _robustbench(name: str, pretrained: bool, _: int, arguments: dict[str, Any]) -> nn.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its own libraries' old age
            _name_autoattack()
            from robustbench.model_zoo import model_dicts
            from robustbench.model_zoo.enums import BenchmarkDataset, ThreatModel
            from robustbench.utils import load_model
    except ImportError:
        raise _missing_package("robustbench") from None
    *place, name = name.split("/")
    if len(place) not in (0, 2):
        raise UserError(f"robustbench:{'/'.join([*place, name])}: give NAME, or DATASET/THREAT/NAME.")
    dataset, threat = place or ("cifar10", "Linf")
    _check_known(dataset, [member.value for member in BenchmarkDataset], "RobustBench dataset")
    _check_known(threat, [member.value for member in ThreatModel], "RobustBench threat model")
    choices = model_dicts[BenchmarkDataset(dataset)][ThreatModel(threat)]
    _check_known(name, choices, "RobustBench model")
    if pretrained:
        pretrained_network: nn.Module = load_model(name, dataset=dataset, threat_model=threat, **arguments)
        return pretrained_network
    network: nn.Module = choices[name]["model"](**arguments)
    return network


def _name_autoattack() -> None:
    """Make AutoAttack known by the name that robustbench imports: the package that it depends on has another."""
    if importlib.util.find_spec("autoattack") is None:
        sys.modules["autoattack"] = importlib.import_module("pyautoattack")
        sys.modules["autoattack.state"] = importlib.import_module("pyautoattack.state")


BUILDERS: dict[str, Callable[[str, bool, int, dict[str, Any]], nn.Module]] = {
    "torchvision": _torchvision,
    "timm": _timm,
    "hf-hub": _hub,
    "robustbench": _robustbench,
}
"""Libraries of networks: each is given a name, whether with its own weights, the number of classes, and arguments."""


def _missing_package(library: str) -> UserError:
    return UserError(f"{library}:NAME needs {library}, which is missing: pip install 'interpret-robust[{library}]'.")


def _check_known(name: str, choices: Iterable[str], subject: str) -> None:
    """Raise UserError for a name that is not known; of many names the error lists only the nearest."""
    choices = list(choices)
    if name not in choices:
        raise unknown(subject, name, choices, limit=MOST_TOLD)
