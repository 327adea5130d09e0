"""What has to be said beside the numbers of files: whose weights they show, what was left out, what is in doubt."""

import math
from collections.abc import Iterator, Sequence

from interpret_robust.results.hdf5 import Result
from interpret_robust.results.names import ATTENTION, LONG_NAMES, find_maps, find_weights, label

FEW_POSITIONS = 10
"""Below this a correlation of ranks of positions says little."""


def describe_stand_ins(results: Sequence[Result]) -> str:
    """Return a sentence on models of which other weights than their own attention are shown; nothing without any.

    A model of which several kinds are shown is told by all that its rows are called.

    Example:
        >>> describe_stand_ins([read(Path("analyses/attention-rank-cifar10-small-at-seed0-test.h5"))])
        'In place of attention, Grad-CAM of the predicted class is used for cifar10-small-at-seed0.'
    """
    names: dict[str, list[str]] = {}
    for result in results:
        kinds = {find_weights(other) for other in results if other.model_id == result.model_id}
        names.setdefault(find_weights(result), []).append(result.model_name if len(kinds) == 1 else label(result))
    names.pop(ATTENTION, None)
    return " ".join(
        f"In place of attention, {LONG_NAMES.get(source, source)} is used for {', '.join(models)}."
        for source, models in names.items()
    )


def describe_remarks(results: Sequence[Result]) -> str:
    """Return what has to be said beside all numbers of files, as the end of a note or a caption; often nothing.

    That is how images were drawn from a split in the order of its classes, how many damaged pictures were left out, by
    how much maps miss the sums that they promise, and where ranks are of few positions.
    """
    draws = dict.fromkeys(
        f"The {result.data['images']} images are drawn {result.data['drawn']}: the {result.data['split']} split of "
        f"{result.data['dataset']} is in the order of its classes."
        for result in results
        if "drawn" in result.data
    )
    left_out = dict.fromkeys(
        f"{result.data['pictures']['damaged']} damaged pictures of the {result.data['split']} split of "
        f"{result.data['dataset']} are left out."
        for result in results
        if result.data.get("pictures", {}).get("damaged")
    )
    gaps = [
        f"Maps of {label(result)} by {find_maps(result)} miss what they promise to sum to (completeness) by "
        f"{result.run['completeness_gap']:.2%}, over the first images."
        for result in results
        if "completeness_gap" in result.run
    ]
    return " ".join([*draws, *left_out, *gaps, *_few_positions(results)])


def _few_positions(results: Sequence[Result]) -> Iterator[str]:
    """Yield a sentence on each number of positions that is small for a correlation of ranks."""
    models: dict[int, dict[str, None]] = {}
    for result in results:
        if result.analysis == "attention-rank":
            models.setdefault(math.prod(result.config["local_grid"]), {})[label(result)] = None
    for positions, labels in models.items():
        if 1 < positions < FEW_POSITIONS:
            yield (
                f"Spearman is over only {positions} positions in {', '.join(labels)}, which tells little: if attention "
                "and robustness had nothing to do with each other, that of one image would still scatter by "
                f"{1 / math.sqrt(positions - 1):.2f} about zero (standard deviation). An earlier layer of a network "
                "has more positions (`irt model layers`)."
            )


def describe_doubts(results: Sequence[Result]) -> str:
    """Return what makes the numbers of files doubtful, as the beginning of a note; often nothing."""
    sentences = dict.fromkeys(doubt for result in results for doubt in result.doubts)
    return " ".join(["In doubt:", *sentences]) if sentences else ""
