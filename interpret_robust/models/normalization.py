"""Means and deviations of pixels that networks are trained with, by name or as numbers."""

import math

from interpret_robust.core.errors import UserError, unknown
from interpret_robust.core.parsing import format_count

Statistics = tuple[tuple[float, ...], tuple[float, ...]]

STATISTICS: dict[str, Statistics] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
    "svhn": ((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
    "mnist": ((0.1307,), (0.3081,)),
    "fashion-mnist": ((0.2860,), (0.3530,)),
    "inception": ((0.5,), (0.5,)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "bytes": ((0.0,), (1 / 255,)),
    "none": ((0.0,), (1.0,)),
}
"""Means and deviations of pixels in [0, 1], by channel, that networks are trained with.

`imagenet` are torchvision's; `inception` takes pixels to [-1, 1], as most vision transformers of timm have it; `clip`
are OpenAI's; `bytes` takes pixels to 0 to 255. Those of datasets are what most programs for them have.
"""


def parse_statistics(text: str, channels: int) -> Statistics:
    """Return the mean and deviation for a name of STATISTICS or for numbers: `mean,std`, or one of each a channel.

    Raises UserError for anything else, and for numbers that do not suit images of so many `channels`.
    """
    mean, deviation = _statistics(text)
    if len(mean) not in (1, channels):
        problem = (
            f"is for images of {format_count(len(mean), 'channel')}, and these have {channels}"
            if text in STATISTICS
            else f"has {2 * len(mean)} numbers, and these images have {format_count(channels, 'channel')}"
        )
        each = f", or {2 * channels} ({channels} means, then {channels} standard deviations)" if channels > 1 else ""
        raise UserError(f"--normalize {text} {problem}: give 2 numbers (a mean and a standard deviation){each}.")
    return mean, deviation


def name_statistics(text: str) -> str:
    """Return one text for all that give the same normalization: its name, or numbers of six digits without one.

    Numbers that all channels share stand there once. Raises UserError as `parse_statistics`.

    Example:
        >>> name_statistics("0.485,0.456,0.406,0.229,0.224,0.225"), name_statistics("0.40,0.4,0.4,0.2,0.2,0.2")
        ('imagenet', '0.4,0.2')
    """
    numbers = _text(_statistics(text))
    return next((name for name, values in STATISTICS.items() if _text(values) == numbers), numbers)


def _text(values: Statistics) -> str:
    rounded = [[f"{number:.6g}" for number in numbers] for numbers in values]
    is_shared = all(len(set(numbers)) == 1 for numbers in rounded)
    return ",".join(number for numbers in rounded for number in (numbers[:1] if is_shared else numbers))


def _statistics(text: str) -> Statistics:
    if text in STATISTICS:
        return STATISTICS[text]
    numbers = _numbers(text)
    half = len(numbers) // 2
    return numbers[:half], numbers[half:]


EXAMPLES = "numbers: mean,std such as 0.5,0.25, or all means and then all stds, 0.49,0.48,0.45,0.25,0.24,0.26"


def _numbers(text: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise unknown("normalization", text, (*STATISTICS, EXAMPLES)) from None
    good = all(map(math.isfinite, numbers)) and min(numbers[len(numbers) // 2 :]) > 0
    if len(numbers) % 2 or not good:
        raise UserError(
            f"--normalize {text}: give a mean and a positive standard deviation, such as 0.5,0.25, or first the means "
            "of all channels and then their standard deviations, such as 0.49,0.48,0.45,0.25,0.24,0.26."
        )
    return numbers
