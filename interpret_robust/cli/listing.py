"""The models of a working directory, and what its answers say of their accuracy, without torch."""

from interpret_robust.core.folders import Folders
from interpret_robust.core.parsing import format_count
from interpret_robust.core.statistics import Interval
from interpret_robust.models import checkpoint_file
from interpret_robust.results import hdf5
from interpret_robust.results.attack_outcomes import choose_most_read, find_headline, list_readings
from interpret_robust.results.hdf5 import Result

READS = "robustness/2"


def list_rows(folders: Folders) -> list[dict[str, str]]:
    """Return a row a finished checkpoint, by name: how it was trained, and its accuracies where there is a file of
    them.

    Every checkpoint is checked against its checksums. Of several files of attacks on a model the one with the most
    test images counts. Raises UserError where there are no checkpoints, or a file is damaged.
    """
    paths = folders.all_models()
    by_model = _results_by_model(folders)
    table = []
    for path in paths:
        content = checkpoint_file.read(path)
        job = content.about["job"]
        row = {
            "checkpoint": path.stem,
            "recipe": job["recipe"]["name"],
            "epochs": str(content.about["history"][-1]["epoch"]) if content.about["history"] else "",
            "trained on": format_count(job["images"], "image"),
            "MB": f"{path.stat().st_size / 1e6:.1f}",
        }
        table.append(row | (_accuracies(by_model[content.sha256]) if content.sha256 in by_model else {}))
    return table


def _results_by_model(folders: Folders) -> dict[str, Result]:
    """Return the file of an attack on each model, as it was trained, by its id: the hash of its tensors."""
    results = choose_most_read([hdf5.read(path, READS) for path in folders.list_analyses("robustness")])
    of_test = [result for result in results if _is_of_test(result)]
    return {
        result.model_id: result
        for result in sorted(of_test, key=lambda result: (len(list_readings(result)), result.count))
    }


def _is_of_test(result: Result) -> bool:
    return result.config["data"]["split"] == "test" and result.recalibration == "none"


def _accuracies(result: Result) -> dict[str, str]:
    intervals = {"natural": result["accuracy/natural"][0]}
    if name := find_headline(result):
        intervals[name] = result["accuracy/adversarial"][list_readings(result).index(name), 0]
    return {name: Interval(*interval).percent() for name, interval in intervals.items()} | {
        "images": f"{result.count} {result.config['data']['split']} of {result.config['data']['dataset']}"
    }
