"""What the files are called in which analyses store the numbers of a view."""

from pathlib import Path
from typing import Any

from interpret_robust import analyses
from interpret_robust.analyses.engine.naming import name_file
from interpret_robust.study.explorer.album import Album
from interpret_robust.study.explorer.models import Exhibit
from interpret_robust.study.explorer.view import View


def list_stems(exhibit: Exhibit, album: Album, view: View, seed: int, weight: str) -> dict[str, str]:
    """Return by analysis the path of its file of a model under a view's attack, but for its limit and its ending.

    `weight` is the choice of weights of positions, empty for the default. The analyses of positions are left out of a
    model without local features, and where the attack is on another loss than theirs.
    """
    attack = {"eps": view.eps, "norm": view.norm, "seed": seed}
    steps, is_margin = str(view.steps), view.loss == "margin"
    readings = {"pgd": "none", "cw": steps} if is_margin else {"pgd": steps, "cw": "none"}
    of_positions = {**attack, "steps": view.steps} | ({"spatial_weight": weight} if weight else {})
    settings: dict[str, dict[str, Any]] = {"robustness": attack | readings}
    if exhibit.weight and not is_margin:
        settings |= {"attention-rank": of_positions, "attention-maps": of_positions}
    subject, dataset = exhibit.subject, album.dataset.name
    other_dataset = dataset if dataset != subject.job["dataset"] else ""
    stems = {}
    for name, values in settings.items():
        analysis = analyses.get(name)
        path = name_file(
            Path("analyses"),
            analysis,
            subject.name,
            subject.job,
            album.split_name,
            analysis.settings(**values),
            None,
            other_dataset,
        )
        stems[name] = str(path.with_suffix(""))
    return stems
