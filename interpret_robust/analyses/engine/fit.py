"""Whether a model, its evaluators and the images go together, and what is doubtful about them."""

from collections.abc import Iterator, Sequence

from interpret_robust.core.errors import UserError
from interpret_robust.datasets import Dataset
from interpret_robust.datasets.base import Split
from interpret_robust.models.subject import Subject, check_fit, doubt_about_classes
from interpret_robust.models.traits import OF_OTHERS_THAN_LOGITS, list_traits


def check_models(subject: Subject, evaluators: Sequence[Subject], dataset: Dataset) -> None:
    """Raise UserError for a model that does not fit the dataset, and for evaluators that are not told apart."""
    for model in (subject, *evaluators):
        check_fit(model, dataset)
        model.local_shape()
    names = [model.name for model in evaluators]
    if len(set(names)) < len(names):
        raise UserError(f"two evaluators have one name ({', '.join(names)}): their columns could not be told apart.")
    if any(_answers_alike(subject, model) for model in evaluators):
        raise UserError(f"{subject.location} cannot be its own evaluator: name a model of another seed.")
    if subject.name in names:
        raise UserError(
            f"{subject.location} and an evaluator have one name ({subject.name}): their columns could not be told "
            "apart. --label NAME gives a model from elsewhere another, and a checkpoint has that of its file."
        )


def check_masks(analysis: str, dataset: str, images: Split) -> None:
    """Raise UserError where images of a dataset have no object masks, for an analysis that needs them."""
    if images.masks is None:
        place = "as mask_train and mask_test" if images.pictures is None else "in masks/"
        form = "a .npz" if images.pictures is None else "a folder of pictures"
        raise UserError(f"{dataset} has no object masks, which {analysis} needs: {form} has them {place}.")


def _answers_alike(first: Subject, second: Subject) -> bool:
    """Return whether two models have the same logits, as far as weights and cards tell."""
    parts_of_both = [
        {name: text for name, text in list_traits(model.job).items() if name not in OF_OTHERS_THAN_LOGITS}
        for model in (first, second)
    ]
    return first.sha256 == second.sha256 and parts_of_both[0] == parts_of_both[1]


def list_doubts(subjects: Sequence[Subject], dataset: Dataset) -> Iterator[str]:
    """Yield what is doubtful about models, and about models and images together."""
    for subject in subjects:
        yield from subject.doubts
        if doubt := doubt_about_classes(subject, dataset):
            yield doubt
