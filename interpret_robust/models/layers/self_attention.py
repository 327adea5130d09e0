"""The self-attention of a transformer, watched in a pass, and which of its tokens are the image's.

Nothing of the network is changed. What torch computes in one fused step, which shows no weights, is computed step by
step while a pass is watched, inside of `nn.MultiheadAttention` too; a softmax that a network takes itself is kept.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from statistics import fmean
from types import FunctionType
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from interpret_robust.core.errors import UserError
from interpret_robust.models.classifier import Classifier
from interpret_robust.models.layers.attention_trace import Trace, Use, are_alike
from interpret_robust.models.layers.dependence import LEAST_LOCALITY, sample_positions
from interpret_robust.models.layers.hooks import register_hooks
from interpret_robust.models.layers.maps import count_prefix_tokens
from interpret_robust.models.recomputation import disable_recomputation

SOFTMAX = (torch.softmax, torch.Tensor.softmax, F.softmax)

CLEAR_CELLS, CLEAR_LOCALITY = 6, 0.95
"""Cells after which no others are asked where the mean locality of each block is so large, by chance in 1 of 10^6."""


class _Watch(TorchFunctionMode):
    """A mode in which the weights of each attention are kept, and may be differentiated by."""

    def __init__(self, follow: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.weights: list[Tensor] = []
        self.follow = follow

    def __torch_function__(self, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        keywords = keywords or {}
        if function is F.scaled_dot_product_attention:
            return self._attend(*arguments, **keywords)
        if function is F.multi_head_attention_forward:
            return self._attend_in_heads(*arguments, **keywords)
        result = function(*arguments, **keywords)
        if function in SOFTMAX and result.ndim in (3, 4):
            axis = keywords.get("dim", arguments[1] if len(arguments) > 1 else None)
            if axis in (-1, result.ndim - 1):
                return self._keep(result)
            if axis in (1, -2) and result.ndim == 3 and result.shape[2] == 1:  # a pool of one query, column by column
                return self._keep(result.transpose(1, 2)).transpose(1, 2)
        return result

    def _keep(self, weights: Tensor) -> Tensor:
        if torch.is_grad_enabled() and not weights.requires_grad:
            weights.requires_grad_()
        self.weights.append(weights)
        return self.follow(weights.clone())  # the network may compute in its place

    def _attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        """Return what `F.scaled_dot_product_attention` does, by the formula of its documentation."""
        if enable_gqa:
            key, value = (part.repeat_interleave(query.shape[-3] // part.shape[-3], -3) for part in (key, value))
        scores = query * (query.shape[-1] ** -0.5 if scale is None else scale) @ key.transpose(-2, -1)
        if is_causal:
            scores = scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), -torch.inf)
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            scores = scores.masked_fill(~attn_mask, -torch.inf)
        elif attn_mask is not None:
            scores = scores + attn_mask
        weights = torch._safe_softmax(scores, -1)  # zero, not NaN, for a query without keys, as in what is fused
        return F.dropout(self._keep(weights), dropout_p) @ value

    def _attend_in_heads(self, *arguments: Any, **keywords: Any) -> tuple[Tensor, Tensor | None]:
        """Return what `F.multi_head_attention_forward` does, by a copy of it that attends as above."""
        original: Any = F.multi_head_attention_forward
        names = {**original.__globals__, "scaled_dot_product_attention": self._attend}
        function: Any = FunctionType(original.__code__, names, argdefs=original.__defaults__)
        output, _ = function(*arguments, **{**keywords, "need_weights": False})
        if not keywords.get("need_weights", True):
            return output, None
        weights = self.weights[-1] if output.ndim == 3 else self.weights[-1][0]
        return output, weights.mean(-3) if keywords.get("average_attn_weights", True) else weights


def _leave(weights: Tensor) -> Tensor:
    return weights


@contextmanager
def watch_attention(follow: Callable[[Tensor], Tensor] = _leave) -> Iterator[list[Tensor]]:
    """Yield a list to which each attention of the networks that run inside adds its weights (N, heads, T, T).

    The network goes on with what `follow` gives for a copy of them.

    Its answers are those of the plain pass, up to rounding. Where gradients are enabled they may be taken with respect
    to the weights.

    Example:
        >>> with watch_attention() as blocks:
        ...     logits = network(images)
    """
    with disable_recomputation(), _Watch(follow) as watch:
        yield watch.weights


class Tokens(NamedTuple):
    """The tokens of a transformer: those from number `first` on lie on a grid (height, width) over the image.

    `readers` is what share each has of those that the answer is read from, behind the last attention: the class token,
    or all of the image's where their mean is classified. They are of all tokens (T,); behind a pool by attention, whose
    queries are no tokens, of its queries. `heads` is how many each attention has, the first block first.
    `token_count` is T. `blocks` are the numbers of these attentions among all softmaxes that are watched: one by which
    nothing is added up, such as a router of experts, is none.
    """

    first: int
    grid: tuple[int, int]
    readers: Tensor
    heads: tuple[int, ...]
    token_count: int
    blocks: tuple[int, ...]

    def arrange_on_grid(self, rows: Tensor) -> Tensor:
        """Return the entries (N, height, width) for the image's tokens of rows (N, 1, T) over all tokens."""
        height, width = self.grid
        return rows[:, 0, self.first : self.first + height * width].reshape(len(rows), height, width)


_CACHE: WeakKeyDictionary[Classifier, dict[tuple[tuple[int, ...], torch.device], Tokens]] = WeakKeyDictionary()
"""What was seen of models whose weights stay as they are, by the shape of an image and where it lies."""


def read_tokens(model: Classifier, image: Tensor) -> Tokens:
    """Return the tokens of a model, seen in a pass of one image (1, C, H, W).

    Raises UserError for a model without self-attention, or whose attention is not over all tokens of the image, such as
    that in windows.

    Example:
        >>> read_tokens(model, image).heads
        (3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3)
    """
    if model.draws is not None:
        raise UserError("a network that draws random numbers attends differently in each pass: leave --draws out.")
    cache = _CACHE.setdefault(model, {})
    kind = tuple(image.shape), image.device
    if kind not in cache:
        cache[kind] = _look(model, image)
    return cache[kind]


def _look(model: Classifier, image: Tensor) -> Tokens:
    """Return the tokens of a model from passes of one image (1, C, H, W)."""
    with torch.no_grad():
        height, width = model.features(image).local.shape[2:]
    softmaxes, uses = _trace(model, image)
    numbers = [n for n, weights in enumerate(softmaxes) if not _is_router(weights, uses[n])]
    _check([softmaxes[n] for n in numbers], height, width)
    count = softmaxes[numbers[0]].shape[-1]
    first = _first(model, count, height * width)
    _check_what_weighs({n: softmaxes[n] for n in numbers}, uses)
    _check_positions(model, image, {n: softmaxes[n] for n in numbers}, uses, (first, height, width))
    with torch.enable_grad(), _waken(model), watch_attention() as attentions:
        answer = model(image).square().sum()
    blocks = [attentions[n] for n in numbers]
    (gradient,) = torch.autograd.grad(answer, blocks[-1], allow_unused=True)
    is_read = torch.zeros(()) if gradient is None else (gradient != 0).flatten(0, -3).any(-1).any(0).float()
    if not is_read.any():
        raise UserError("the answer of this network does not depend on its last attention.")
    heads = tuple(1 if weights.ndim == 3 else weights.shape[1] for weights in blocks)
    return Tokens(first, (height, width), is_read / is_read.sum(), heads, count, tuple(numbers))


@torch.no_grad()
def _trace(model: Classifier, image: Tensor) -> tuple[list[Tensor], list[list[Use]]]:
    """Return each attention in a pass of one image (1, C, H, W), and for what its weights are used."""
    trace, pixels = Trace(), image.clone()
    trace.see(pixels)
    with watch_attention(trace.follow) as softmaxes, trace:
        model(pixels)
    return softmaxes, [[use for use in trace.uses if use.number == number] for number in range(len(softmaxes))]


def _is_router(weights: Tensor, uses: list[Use]) -> bool:
    """Return whether weights are no attention: nothing is added up by them, and they are not of tokens for tokens."""
    return weights.shape[-2] not in (1, weights.shape[-1]) and all(use.values is None for use in uses)


def _check_what_weighs(softmaxes: dict[int, Tensor], uses: list[list[Use]]) -> None:
    """Raise UserError where the weights of a block are changed before something is weighed by them."""
    for block, (number, weights) in enumerate(softmaxes.items()):
        if not any(are_alike(use.weights, weights) for use in uses[number]):
            raise UserError(
                f"the weights of attention block {block} of this network weigh nothing as they are: they are changed "
                "behind the softmax, as by talking heads, re-attention or a difference of two, or not used, so that "
                "rollout, relevance and head:BLOCK would show others: take gradient, or let an nn.Identity give what "
                "they become and name that by --attention-layer."
            )


def _check_positions(
    model: Classifier, image: Tensor, softmaxes: dict[int, Tensor], uses: list[list[Use]], place: tuple[int, int, int]
) -> None:
    """Raise UserError where what a block weighs does not lie at the positions of the image.

    The pixels of each of a sample of cells are changed in turn: of what is weighed, the row of this cell has to change
    more than those of most others. `place` is the number of the image's first token, and the grid.
    """
    first, height, width = place
    if height * width == 1:
        return
    shares: dict[int, list[float]] = {number: [] for number in softmaxes}
    for cell in sample_positions(height, width).tolist():
        _, other_uses = _trace(model, _change_cell(image, cell, height, width))
        for number, weights in softmaxes.items():
            values, others = (_product(part[number], weights.shape[-1]) for part in (uses, other_uses))
            if values is not None and others is not None:
                start = first if len(values) >= first + height * width else 0
                size = (others - values).double().abs().sum(1)
                shares[number] += [_share_of_less(size[start : start + height * width], cell)] if size.any() else []
        if all(len(share) >= CLEAR_CELLS and fmean(share) >= CLEAR_LOCALITY for share in shares.values()):
            return
    for block, (number, share) in enumerate(shares.items()):
        if share and fmean(share) < LEAST_LOCALITY:
            raise UserError(
                f"what attention block {block} of this network weighs, by weights of shape "
                f"{tuple(softmaxes[number].shape)}, does not lie at the {height}x{width} positions of the local "
                f"features: where pixels of a position change, it changes there more than at "
                f"{fmean(share):.0%} of the others, where {LEAST_LOCALITY:.0%} are expected. It may weigh "
                "channels, which give no maps: take gradient. Or --local-layer names a layer of the same grid."
            )


def _change_cell(image: Tensor, cell: int, height: int, width: int) -> Tensor:
    """Return an image (1, C, H, W) of which the pixels of one cell of a grid are others."""
    noise = torch.rand(image.shape, generator=torch.Generator().manual_seed(0)).to(image)
    mask = torch.zeros(height * width)
    mask[cell] = 1
    is_inside = F.interpolate(mask.reshape(1, 1, height, width), image.shape[2:]).to(image.device) > 0
    return torch.where(is_inside, (image + 0.25 + noise / 2) % 1, image)


def _share_of_less(size: Tensor, cell: int) -> float:
    """Return the share of other cells that change less than one does, ties half."""
    less, ties = (size < size[cell]).sum(), (size == size[cell]).sum() - 1
    return float(less + ties / 2) / (len(size) - 1)


def _product(uses: list[Use], count: int) -> Tensor | None:
    """Return what the weights of `count` columns add up (T, D), None where it is not seen."""
    return next((use.values for use in uses if use.values is not None and len(use.values) == count), None)


def _waken(model: nn.Module) -> AbstractContextManager[None]:
    """Return a context in which linear layers whose weights are all zero depend on what they see, token by token.

    Fresh transformers begin with such a layer, and their answer of zero depends on nothing.
    """

    def add_squares(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output + inputs[0].square().sum(-1, keepdim=True)

    layers = [module for module in model.modules() if isinstance(module, nn.Linear) and not module.weight.any()]
    return register_hooks((layer, add_squares) for layer in layers)


def _check(blocks: list[Tensor], height: int, width: int) -> None:
    """Raise UserError where weights are not of all tokens for all tokens of one image, or for a pool's queries."""
    if not blocks:
        raise UserError(
            "this network has no self-attention that can be seen, such as rollout, relevance and head:BLOCK are made "
            "of: take grad-cam for weights of positions, or gradient for maps of pixels."
        )
    shapes = dict.fromkeys(tuple(weights.shape) for weights in blocks)
    count = blocks[0].shape[-1]
    sizes = {weights.shape[-2:] for weights in blocks if not is_pool(weights) or weights is not blocks[-1]}
    is_seen = sizes <= {(count, count)} and blocks[-1].shape[-1] in (count, height * width)
    if not is_seen or count < height * width or any(shape[0] != 1 for shape in shapes):
        raise UserError(
            f"the attention of this network gives weights of shape {', '.join(map(str, shapes))} for one image with "
            f"{height}x{width} local features: in each block all tokens have to attend to all (1, heads, T, T), not "
            "to those of a window or of another grid; only a pool that comes last may have queries of its own."
        )


def is_pool(weights: Tensor) -> bool:
    """Return whether attention (..., Q, T) pools tokens: it has other queries than these."""
    return weights.shape[-2] != weights.shape[-1]


def _first(model: Classifier, count: int, positions: int) -> int:
    """Return the number of the image's first token among `count`. Raises UserError where they do not fit."""
    first = getattr(model, "first_token", None)
    if first is None:
        prefix = count_prefix_tokens(model.backbone)
        first = count - positions if prefix is None or count == positions else prefix
        if first + positions == count:
            return int(first)
    elif first + positions <= count:
        return int(first)
    raise UserError(
        f"attention is over {count} tokens, of which {first} come before those of the image, and the local features "
        f"have {positions} positions: --local-layer names a layer of the same grid."
    )


def attend(model: nn.Module, images: Tensor) -> tuple[list[Tensor], Tensor]:
    """Return the weights (N, heads, Q, T) of each attention in a pass of images (N, C, H, W), and the logits."""
    with watch_attention() as blocks:
        logits = model(images)
    return [weights if weights.ndim == 4 else weights[:, None] for weights in blocks], logits
