"""Which class an image shall be taken for in a targeted attack."""

from collections.abc import Sequence

import torch
from torch import Tensor

from interpret_robust.core.errors import UserError, unknown
from interpret_robust.core.random_numbers import make_streams

RULES = ("least-likely", "next", "random")
PURPOSE = 9
"""Of the random numbers that choose a class."""


def check_rule(rule: str) -> None:
    """Raise UserError for a text that is neither one of RULES nor the number of a class."""
    if rule not in RULES and not rule.isdecimal():
        raise unknown("rule of targets", rule, [*RULES, "a class, such as 3"])


def draw_others(labels: Tensor, indices: Sequence[int], classes: int, seed: int, purpose: int) -> Tensor:
    """Return for each image a class (N,) other than its label, all others being as likely: a function of the seed, the
    index and the purpose.

    Raises UserError where there is only one class.
    """
    if classes < 2:
        raise UserError("the model has one class only, and a random target is another class than the true one.")
    steps = [int(stream.integers(1, classes)) for stream in make_streams(seed, indices, purpose)]
    return (labels + torch.tensor(steps, device=labels.device)) % classes


def choose_targets(rule: str, logits: Tensor, labels: Tensor, seed: int, indices: Sequence[int]) -> Tensor:
    """Return a target class of each image, (N,).

    Args:
        rule: `least-likely` by the model's logits, the true class left out (Kurakin et al. 2016,
            https://arxiv.org/abs/1607.02533); `next` after the true one, the first after the last; `random`, uniform
            among the others, a function of the seed and the image's index; or the number of a class, which images of
            this class have as their target too.
        logits: (N, classes), of the natural images.
        labels: true classes (N,).
        seed: of `random`.
        indices: the images' places in their dataset.

    Raises UserError for another rule, and for a class that the model does not have.

    Example:
        >>> choose_targets("next", torch.zeros(3, 4), torch.tensor([0, 2, 3]), seed=0, indices=range(3))
        tensor([1, 3, 0])
    """
    check_rule(rule)
    classes = logits.shape[1]
    if rule == "least-likely":
        return logits.scatter(1, labels[:, None], torch.inf).argmin(1)
    if rule == "next":
        return (labels + 1) % classes
    if rule == "random":
        return draw_others(labels, indices, classes, seed, PURPOSE)
    if int(rule) >= classes:
        raise UserError(f"the target is class {rule}, and the model's are 0 to {classes - 1}.")
    return torch.full_like(labels, int(rule))
