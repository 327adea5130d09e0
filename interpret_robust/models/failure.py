"""Why a network failed that had answered one image."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from interpret_robust.core.errors import UserError
from interpret_robust.core.plugins import quote_error


@contextmanager
def explain_failure(label: str, ask: Callable[[Tensor], Tensor], read_images: Callable[[], Tensor]) -> Iterator[None]:
    """Make an error of a network, which has answered one image, a sentence about what else it cannot do.

    Two of the images (N, C, H, W) that `read_images` gives are asked to find out, by `ask`, which gives logits.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{label} {_find_reason(ask, read_images()[:2], quote_error(error))}") from error


def _find_reason(ask: Callable[[Tensor], Tensor], images: Tensor, words: str) -> str:
    """Return why a network may have failed, of whose error these are the first words: it is asked two images."""
    try:
        with torch.no_grad():
            answers, other_answers = ask(images), ask(1 - images)
    except UserError as refusal:
        return f"answers one image, and fails on two: {refusal}"
    except Exception:
        return f"answers one image, and not several at once ({words}): is its batch size fixed?"
    if torch.equal(answers, other_answers):
        return (
            f"answers other images as it did the first ({words}): does it keep answers between calls? Let its forward "
            "compute each anew."
        )
    return (
        f"answers images, and fails where its layers or gradients are asked for ({words}): does it keep tensors "
        "between calls, or change them in place?"
    )
