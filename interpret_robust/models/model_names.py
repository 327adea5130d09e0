"""What people type for a model that names none: what it is, and what to type in its place. Without torch."""

from collections.abc import Mapping
from pathlib import Path

from interpret_robust.core.errors import find_nearest

FORMS = (
    "a checkpoint, a card .json, torchvision:NAME, timm:NAME, hf-hub:ORG/NAME, robustbench:NAME or "
    "package.module:callable"
)
"""What names a model."""

_PICTURE = "{text} is a picture: name a model here, and give images with their labels as --dataset FILE.npz."
_WEIGHTS = (
    "{text} holds weights without the network that they are of: name it too, --model package.module:callable (or "
    "torchvision:NAME, timm:NAME) --weights {text}."
)

BY_ENDING: Mapping[str, str] = {
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp", ".tif", ".tiff"), _PICTURE),
    **dict.fromkeys((".pt", ".pth", ".ckpt", ".bin", ".pkl", ".tar"), _WEIGHTS),
    ".py": "{text} is Python code: name the class or function in it that makes the network, --model {stem}:NAME.",
    ".npz": "{text} is a dataset: give it as --dataset {text}, and name a model here.",
    ".h5": "{text} is an answer of `irt analyze`: name the model that it is of, which `irt show {text}` tells.",
}
"""Sentences on files, by their endings."""

_FOLDER = "{text} is a folder: name one file in it, a checkpoint .safetensors or a card .json."
_WORD = (
    "there is no model {text}: a class or function of yours is package.module:{text}, a network of a library "
    "torchvision:{text} or timm:{text}, and `irt checkpoints` lists those trained here."
)
_DOTS = "there is no model {text}: a class or function in a module has a colon before its name, {parent}:{last}."
_UNKNOWN = f"there is no model {{text}}: give {FORMS}."


def _find_file(path: Path) -> Path | None:
    """Return the checkpoint or card beside `path` whose name is most like its name, or None."""
    files = [*path.parent.glob("*.json"), *path.parent.glob("*.safetensors")]
    nearest = find_nearest(path.name, [file.name for file in files]) if path.suffix else None
    return path.with_name(nearest) if nearest else None


def explain(text: str) -> str:
    """Return the sentence for a text that names no model: what it is, and what would be right.

    Example:
        >>> explain("nets.py")
        'nets.py is Python code: name the class or function in it that makes the network, --model nets:NAME.'
    """
    path, (parent, _, last) = Path(text), text.rpartition(".")
    if path.is_dir():
        sentence = _FOLDER
    elif nearest := _find_file(path):
        return f"there is no model {text}: did you mean the file {nearest}?"
    elif path.suffix.lower() in BY_ENDING:
        sentence = BY_ENDING[path.suffix.lower()]
    elif all(part.isidentifier() for part in text.split(".")):
        sentence = _DOTS if parent else _WORD
    else:
        sentence = _UNKNOWN
    return sentence.format(text=text, stem=path.stem, parent=parent, last=last)
