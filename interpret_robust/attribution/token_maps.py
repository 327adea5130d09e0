"""Maps of a transformer: what its self-attention says of the tokens of the image.

`rollout` (Abnar & Zuidema 2020, https://arxiv.org/abs/2005.00928): the product over blocks of (A + I) / 2, where A is
the attention, averaged over heads. It knows nothing of the class.

`relevance` (Chefer et al. 2021, https://arxiv.org/abs/2103.15679): beginning with R = I, each block adds
E[(G * A)^+] R, where G is the gradient of the class's logit with respect to A, and E the mean over heads; without the I
of the beginning, which says nothing.

`head:BLOCK.HEAD`: the attention of one head, both numbered from 0; `head:BLOCK`: the mean over the heads of a block.
The BLOCK `last` is the last one.

All are read in the row of the token that the answer is read from. Of several, such as two class tokens or all tokens
of an image whose mean is classified, it is the mean row; which they are is measured (`models.layers.self_attention`).

A network may end in a pool by attention, whose queries are no tokens (timm's `AttentionPoolLatent`), or which is a
softmax of one score a token (`SeqPool` of CCT). Its weights are those of `head:last`. In the blocks before it tokens
are read in the shares that the pool has of them, and nothing of the queries is added as I is: they hold nothing of the
image.
"""

import re

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from interpret_robust.core.errors import UserError
from interpret_robust.models import Classifier
from interpret_robust.models.layers.self_attention import Tokens, attend, is_pool, read_tokens

RULES = ("rollout", "relevance", "head:BLOCK.HEAD", "head:BLOCK", "head:last")

AT_ONCE = 16
"""Images in a pass, whose attention is held in memory for all blocks."""

_HEAD = re.compile(r"head:(last|0|[1-9]\d*)(?:\.(0|[1-9]\d*))?")


def is_rule(name: str) -> bool:
    """Return whether a name is that of a rule, such as `rollout` or `head:11.3`."""
    return name in RULES[:2] or _HEAD.fullmatch(name) is not None


def compute_token_weights(rule: str, model: Classifier, images: Tensor, classes: Tensor | None = None) -> Tensor:
    """Return weights (N, H', W') of the tokens on the grid of the image by a rule, none negative.

    `relevance` is of the logits of `classes` (N,), or where that is None, of the predicted ones. Raises UserError for a
    model without self-attention over the image's tokens, and for a block or a head that it does not have.

    Example:
        >>> compute_token_weights("rollout", model, images).shape
        torch.Size([8, 14, 14])
    """
    places = read_tokens(model, images[:1])
    head = _head(rule, places.heads)
    parts = [slice(start, start + AT_ONCE) for start in range(0, len(images), AT_ONCE)]
    rows = [
        _relevance(places, *_pass_back(places, model, images[part], None if classes is None else classes[part]))
        if rule == "relevance"
        else _attention(places, _pass_forward(places, model, images[part]), head)
        for part in parts
    ]
    return places.arrange_on_grid(torch.cat(rows))


def compute_token_map(rule: str, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Return minus the weights of `compute_token_weights` for the labels, as a map (N, C, H, W) of each token's pixels.

    Minus, since a pixel that an answer rests on is one that lowers its loss. Between the middles of tokens the map is
    bilinear, and all colors are equal. Raises UserError as `compute_token_weights`.
    """
    if not isinstance(model, Classifier):
        raise UserError("the model has no local features.")
    weights = compute_token_weights(rule, model, images, labels)[:, None]
    return -F.interpolate(weights, images.shape[2:], mode="bilinear", antialias=True).expand_as(images)


def _head(rule: str, heads: tuple[int, ...]) -> tuple[int, slice] | None:
    """Return the block and the heads that a rule names, None for a rule about all. Raises UserError for others."""
    match = _HEAD.fullmatch(rule)
    if match is None:
        return None
    block, head = len(heads) - 1 if match[1] == "last" else int(match[1]), match[2]
    if block >= len(heads):
        raise UserError(f"{rule} names block {block}, and this network has {len(heads)}, numbered from 0.")
    if head is None:
        return block, slice(None)
    if int(head) >= heads[block]:
        raise UserError(f"{rule} names head {head}, and block {block} has {heads[block]}, numbered from 0.")
    return block, slice(int(head), int(head) + 1)


def _pass_forward(places: Tokens, model: nn.Module, images: Tensor) -> list[Tensor]:
    """Return the attention (N, heads, T, T) of each block, in float32."""
    with torch.no_grad():
        attentions, _ = attend(model, images)
    return [attentions[number].float() for number in places.blocks]


def _pass_back(
    places: Tokens, model: nn.Module, images: Tensor, classes: Tensor | None
) -> tuple[list[Tensor], list[Tensor]]:
    """Return the attention (N, heads, T, T) of each block, and the gradients with respect to it of the logits of
    classes, by default of the predicted ones.
    """
    with torch.enable_grad():
        attentions, logits = attend(model, images)
        blocks = [attentions[number] for number in places.blocks]
        scores = logits.amax(1) if classes is None else logits.gather(1, classes[:, None])
        gradients = torch.autograd.grad(scores.sum(), blocks, allow_unused=True, materialize_grads=True)
    return [weights.detach().float() for weights in blocks], [gradient.float() for gradient in gradients]


def _attention(places: Tokens, blocks: list[Tensor], head: tuple[int, slice] | None) -> Tensor:
    """Return the readers' rows (N, 1, T) of the rollout, or of a block's heads."""
    row = places.readers.expand(len(blocks[0]), 1, -1)
    if head is not None and head[0] == len(blocks) - 1:
        return _widen(row @ blocks[-1][:, head[1]].mean(1), places)
    if is_pool(blocks[-1]):
        row = _widen(row @ blocks[-1].mean(1), places)
        blocks = blocks[:-1]
    if head is not None:
        block, parts = head
        return row @ blocks[block][:, parts].mean(1)
    for weights in reversed(blocks):  # from the last block down, so that a row is enough
        row = (row + row @ weights.mean(1)) / 2
    return row


def _relevance(places: Tokens, blocks: list[Tensor], gradients: list[Tensor]) -> Tensor:
    """Return the readers' rows (N, 1, T) of R - I; behind a pool, whose queries have no I, of its weights times R."""
    steps = [(gradient * weights).clamp_min(0).mean(1) for weights, gradient in zip(blocks, gradients, strict=True)]
    start = places.readers.expand(len(blocks[0]), 1, -1)
    row = start.new_zeros(len(start), 1, places.token_count)
    if is_pool(blocks[-1]):
        row = _widen(start @ steps.pop(), places)
        start = torch.zeros_like(row)
    for step in reversed(steps):
        row = row + (start + row) @ step
    return row


def _widen(row: Tensor, places: Tokens) -> Tensor:
    """Return rows (N, 1, T) over all tokens, of rows over the last of them: a pool may leave out those before."""
    return F.pad(row, (places.token_count - row.shape[2], 0))
