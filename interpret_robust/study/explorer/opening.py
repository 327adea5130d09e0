"""From what was typed to an explorer."""

from collections.abc import Sequence
from pathlib import Path

from interpret_robust.attacks.settings import check_norm
from interpret_robust.core.device import exact, resolve
from interpret_robust.core.errors import UserError
from interpret_robust.core.files import check_present
from interpret_robust.datasets import load
from interpret_robust.models.card import Reference
from interpret_robust.models.external import find_subject
from interpret_robust.study.explorer.album import Album
from interpret_robust.study.explorer.explorer import Explorer
from interpret_robust.study.explorer.models import choose_models, exhibit


@exact()
def open_explorer(
    models: Sequence[Reference],
    candidates: Sequence[Path],
    source: str | None,
    split: str,
    seed: int,
    device: str,
    picture: str = "0",
    weight: str = "auto",
    norm: str | None = None,
) -> Explorer:
    """Return an explorer of `models`, or of some of the checkpoints `candidates` where there are none.

    `source` is the name or path of the data, by default that of the first model; `picture` the number of an image, or
    the path of a picture, to begin with; `weight` whose weights of positions stand for attention; `norm` that of
    the attack that the page begins with, by default of the first model's training. All models see pictures as the
    first of them takes them. Raises UserError where one of them is not to be had, or does not fit.
    """
    references = models or choose_models(candidates, source)
    if not references:
        raise UserError(f"no checkpoint was trained on {source}: name those to be shown.")
    chosen_norm = None if norm is None else check_norm(norm)
    place = resolve(device)
    subjects = [find_subject(reference, source) for reference in references]
    dataset = subjects[0].view(load(source or subjects[0].source))
    exhibits = [
        exhibit(model, reference, dataset, place, weight) for model, reference in zip(subjects, references, strict=True)
    ]
    album = Album(dataset, split, place)
    if picture.isdigit():
        picture = str(album.entry(picture).index)
    else:
        check_present(Path(picture), "picture", "give a file, or the number of an image of the split")
        picture = album.add(Path(picture).read_bytes())
    return Explorer(exhibits, album, seed, picture, source or "", "" if weight == "auto" else weight, chosen_norm)
