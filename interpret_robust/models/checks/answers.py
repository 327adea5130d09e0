"""What is doubtful about a model's answers to a few images: a sentence each.

Sentences begin with a verb, to be read behind the model's name.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from interpret_robust.core.errors import UserError
from interpret_robust.core.random_numbers import read_generator_states
from interpret_robust.models.checks.own_numbers import describe_changes, sum_up
from interpret_robust.models.classifier import Classifier, list_precisions

BATCH, SMALL_BATCH = 64, 8
"""Copies of images in the batch whose answers are compared with those of single images; of large images fewer.

Eight decide as well: statistics of a batch differ between one image and any other number, noise differs in each answer,
and what is seldom random is told by the state of the generators.
"""

SMALL = 96 * 96
"""Pixels of the largest image of which BATCH copies are asked."""

TOLERANCE = 1e-4
"""Answers differ where a logit does by more than this share of the gap between the two largest, on average."""

ROUNDING = 1e-5
"""Share of a logit that float32 may lose on the way."""

HALF_BITS = {torch.bfloat16: 8, torch.float16: 11}
"""Bits of a number in each half precision, the coarser first."""


class Answers(NamedTuple):
    """Logits (N, classes) of the same images: in one batch with copies of themselves, again, alone, and again.

    `alike` are those of a batch of copies of the first image. `has_drawn` tells whether random numbers were drawn that
    differ from call to call, `has_seed` whether each call sets their seed; `changes` lists the weights and buffers that
    were changed meanwhile.
    """

    together: Tensor
    second: Tensor
    alone: Tensor
    alone_second: Tensor
    alike: Tensor
    has_drawn: bool
    has_seed: bool
    changes: str


def ask(model: Classifier, images: Tensor) -> Answers:
    """Return what a model answers to images (N, C, H, W), asked in four ways."""
    copies = choose_tried_batch(images) // len(images)
    batch = images.repeat(max(copies, 1), 1, 1, 1)
    sums, states = sum_up(model.backbone), [read_generator_states(images.device)]
    with torch.no_grad():
        together = model(batch)
        states.append(read_generator_states(images.device))
        second = model(batch)
        states.append(read_generator_states(images.device))
        alone, alone_second = (torch.cat([model(image[None]) for image in images]) for _ in range(2))
        alike = second if len(images) == 1 else model(images[:1].repeat(len(batch), 1, 1, 1))
    has_drawn = states[1] != states[2]
    has_seed = not has_drawn and states[0] != states[1]
    changes = describe_changes(sums, sum_up(model.backbone))
    return Answers(together, second, alone, alone_second, alike, has_drawn, has_seed, changes)


def choose_tried_batch(images: Tensor) -> int:
    """Return how many images (N, C, H, W) of their size are asked at once here."""
    return BATCH if images[0, 0].numel() <= SMALL else SMALL_BATCH


def list_logit_doubts(model: Classifier, images: Tensor) -> Iterator[str]:
    """Yield what is doubtful about the logits of images (N, C, H, W).

    Raises UserError where none of them is a number.
    """
    answers = ask(model, images)
    logits = answers.together[: len(images)]
    if not bool((logits.isfinite()).any()):
        raise UserError(
            f"the network answers none of {len(images)} images with numbers: are its weights and --normalize right?"
        )
    # A class may be left out by -inf.
    if count := int((logits.isnan() | (logits == torch.inf)).any(1).sum()):
        yield f"answers {count} of {len(images)} test images with logits that are not finite numbers."
        return
    draws = model.draws
    if is_random(answers):
        yield _randomness(answers, len(images), draws)
    else:
        if draws:
            yield f"answers the same each time: --draws {draws} changes nothing."
        if answers.has_drawn:
            yield (
                f"draws random numbers, though {len(images)} test images were answered the same each time: they may "
                "count in a few passes only. --draws 20 asks for the expectation over 20."
            )
        if answers.has_seed:
            yield (
                "sets the seed of its random numbers in each call: these numbers are those of one draw, and --draws "
                "does not change it. The program that calls it draws the same numbers after each call, too."
            )
        if not is_alone(answers):
            yield _dependence_on_batch(answers)
    is_varied, dtype = bool((logits != logits[0]).any()), find_half_precision(logits)
    if is_varied:
        yield from _probabilities(logits)
    if is_varied and dtype and not torch.equal(logits, logits.round()):
        yield (
            f"answers with numbers of {str(dtype).removeprefix('torch.')}, of {HALF_BITS[dtype]} bits: its "
            "gradients are as coarse, attacks may be too weak, and classes may tie. Without autocast or the cast "
            "in its forward it is run in float32."
        )
    elif not is_random(answers) and (count := _count_ties(logits)):
        yield (
            f"gives its highest logit to several classes on {count} of {len(images)} test images, and the first of "
            "them counts as its answer. Does its forward clamp, round or shift its logits? Return them as they were "
            "before."
        )


def _count_ties(logits: Tensor) -> int:
    """Return how many rows of logits (N, classes) have several highest ones."""
    return int(((logits == logits.amax(1, keepdim=True)).sum(1) > 1).sum())


def find_half_precision(logits: Tensor) -> torch.dtype | None:
    """Return the half precision in which all of these logits can be written, None where they need more digits."""
    return next((dtype for dtype in HALF_BITS if torch.equal(logits.to(dtype).to(logits), logits)), None)


def is_random(answers: Answers) -> bool:
    """Return whether the same question got two answers."""
    return not (is_same(answers.together, answers.second) and is_same(answers.alone, answers.alone_second))


def is_alone(answers: Answers) -> bool:
    """Return whether an answer does not depend on the other images of its batch."""
    copies = len(answers.together) // len(answers.alone)
    return is_same(answers.together, answers.alone.repeat(copies, 1)) and is_same(
        answers.alike, answers.alone[:1].expand_as(answers.alike)
    )


def is_same(first: Tensor, second: Tensor) -> bool:
    """Return whether two sets of logits (N, classes) are equal but for rounding."""
    first, second = first.detach(), second.detach()  # one that a network kept may ask for gradients
    highest = first.topk(min(2, first.shape[1]), dim=1).values
    gaps = highest[:, 0] - highest[:, 1] if highest.shape[1] > 1 else highest[:, 0].abs()
    gap = float(gaps.mean().clamp_min(1e-30).nan_to_num(1.0, 1.0))
    return torch.allclose(first, second, rtol=ROUNDING, atol=TOLERANCE * gap, equal_nan=True)


def _dependence_on_batch(answers: Answers) -> str:
    differences = f"answers an image differently alone and in a batch of {len(answers.together)}"
    if answers.changes:
        return (
            f"{differences}, and its forward changes its own numbers ({answers.changes}): numbers depend on "
            "--batch-size, or on what was asked before. Is a layer in training mode, or does the network adapt to the "
            "images that it sees? Let its forward leave its weights and buffers as they are."
        )
    return (
        f"{differences}: numbers depend on --batch-size. Does a layer use statistics of its batch, or does the network "
        "remember earlier images?"
    )


def _randomness(answers: Answers, count: int, draws: int | None) -> str:
    pairs = (answers.together[:count], answers.second[:count]), (answers.alone, answers.alone_second)
    changes = max(int((first.argmax(1) != second.argmax(1)).sum()) for first, second in pairs)
    if draws:
        return (
            f"draws random numbers: answers are the expectation over {draws} draws of them, and two such expectations "
            f"decide {changes} of {count} images differently. More --draws are steadier."
        )
    differences = f"answers an image differently each time ({changes} of {count} decisions changed)"
    if answers.changes and not answers.has_drawn:
        return (
            f"{differences}, since its forward changes its own numbers ({answers.changes}), as where it adapts to the "
            "images that it sees or keeps running statistics: no number can be repeated. Let its forward leave its "
            "weights and buffers as they are."
        )
    if not answers.has_drawn:
        return (
            f"{differences}, and draws none of the random numbers of torch, NumPy and Python: it remembers earlier "
            "images, or has a generator of its own, and no number can be repeated. Let its forward depend on the "
            "images alone."
        )
    return (
        f"{differences}: each number is one draw of many, and attacks are too weak. --draws 20 asks for their "
        "expectation over 20."
    )


def _probabilities(logits: Tensor) -> Iterator[str]:
    """Yield a sentence where logits (N, classes) look like what a softmax or a sigmoid gives."""
    low, high = float(logits.min()), float(logits.max())
    sums = logits.double().sum(1)
    are_equal = bool(((sums - sums[0]).abs() < TOLERANCE * (high - low)).all())
    shift = float(1 - sums[0]) / logits.shape[1]  # from probabilities less a constant back to them
    is_shifted = low + shift >= -TOLERANCE and high - low > 0.5
    is_softmax = are_equal and (low >= 0 or is_shifted)
    is_sigmoid = low >= 0 and high <= 1 and high - low > 0.5
    if is_softmax or is_sigmoid:
        kind = "probabilities" if is_softmax else "numbers between 0 and 1"
        yield (
            f"answers with {kind}, not with logits: gradients of the loss nearly vanish, attacks fail and robustness "
            f"is overstated. Return what goes into its {'softmax' if is_softmax else 'last activation'}."
        )


def is_coarse(model: Classifier, logits: Tensor) -> bool:
    """Return whether a model computes in half precision, whose rounding hides small differences."""
    return find_half_precision(logits) is not None or bool(list_precisions(model) & HALF_BITS.keys())
