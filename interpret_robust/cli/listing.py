"""The models of a working directory, and what its answers say of their accuracy, without torch."""

from pathlib import Path

from interpret_robust.core.file_names import find_shared_prefix
from interpret_robust.core.folders import Folders
from interpret_robust.core.intervals import Interval
from interpret_robust.core.parsing import format_count
from interpret_robust.models import checkpoint_file, training_state
from interpret_robust.models.checkpoint_file import StoredFile
from interpret_robust.results import hdf5
from interpret_robust.results.attack_outcomes import choose_most_read, find_headline, list_readings
from interpret_robust.results.hdf5 import Result
from interpret_robust.results.tables import Table

READS = "robustness/2"


def list_models(folders: Folders) -> Table:
    """Return a row a checkpoint, by name, then a row an unfinished training, with what to do about it in the note.

    A row says how a model was trained, and its accuracies where there is a file of them. Every file is checked against
    its checksums. Of several files of attacks on a model the one with the most test images counts. Raises UserError
    where there are neither, or a file is damaged.
    """
    paths = [*folders.list_models(), *folders.list_states()] or folders.all_models()
    by_model = _results_by_model(folders)
    rows, sentences = [], []
    for path in paths:
        content = checkpoint_file.read(path)
        result = by_model.get(content.sha256)
        rows.append(_describe(path, content) | (_accuracies(result) if result else {}))
        sentences.append(training_state.explain_misnomer(path, content.about))
    remedies = filter(None, [CONTINUE if any("unfinished" in row for row in rows) else None, *sentences])
    return Table(rows, note=" ".join(remedies), prefix=find_shared_prefix([row["checkpoint"] for row in rows]))


def _describe(path: Path, content: StoredFile) -> dict[str, str]:
    """Return how a model was trained, and how far it is if it is unfinished."""
    job, history = content.about["job"], content.about["history"]
    row = {
        "checkpoint": path.stem,
        "recipe": job["recipe"]["name"],
        "epochs": str(history[-1]["epoch"]) if history else "",
        "trained on": format_count(job["images"], "image"),
        "MB": f"{path.stat().st_size / 1e6:.1f}",
    }
    is_state = training_state.is_state(content.about)
    return row | ({"unfinished": training_state.tell_progress(content.about)} if is_state else {})


CONTINUE = "An unfinished training goes on where it was when the same `irt train` is given again."


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
