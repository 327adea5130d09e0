"""What `irt model layers` prints of a model from elsewhere: its layers, and its self-attention."""

from interpret_robust.core.errors import UserError
from interpret_robust.models.card import Reference
from interpret_robust.models.external import ExternalModel, choose_trial_image, find_subject
from interpret_robust.models.layers.listing import Layer, list_layers
from interpret_robust.models.layers.self_attention import read_tokens


def list_layer_rows(reference: Reference, source: str, *, with_all: bool = False) -> list[dict[str, str]]:
    """Return a model's layers for `irt model layers`: those that can give local features, or all of them."""
    model = find_subject(reference, source)
    if not isinstance(model, ExternalModel):
        raise UserError(f"{model.location} is a checkpoint of `irt train`: its local features are those of the paper.")
    candidates = list_layers(model.wrapper.backbone, model.wrapper.preprocess, choose_trial_image(model.data))
    default_layer = model.wrapper.local_layer
    return [
        {
            "layer": layer.name,
            "kind": layer.kind,
            "channels": str(layer.shape[0]) if layer.shape else "",
            "positions": f"{layer.shape[1]}x{layer.shape[2]}" if layer.shape else "",
            "": _remark(layer, is_taken=layer.name == default_layer),
        }
        for layer in candidates
        if with_all or layer.is_local
    ]


def describe_attention(reference: Reference, source: str) -> str | None:
    """Return what `irt model layers` says of a transformer's self-attention, None of a network that has none."""
    model = find_subject(reference, source)
    if not isinstance(model, ExternalModel) or model.wrapper.local_layer is None:
        return None
    try:
        places = read_tokens(model.wrapper, choose_trial_image(model.data))
    except UserError:
        return None
    (height, width), heads = places.grid, places.heads
    counts = " or ".join(map(str, dict.fromkeys(heads)))
    return (
        f"self-attention in {len(heads)} blocks of {counts} heads over {height}x{width} tokens of the image: "
        "--spatial-weight and --source take rollout, relevance and head:BLOCK.HEAD, numbered from 0"
    )


def _remark(layer: Layer, *, is_taken: bool) -> str:
    if is_taken:
        return "taken"
    if layer.runs > 1:
        return f"runs {layer.runs} times"
    return "" if layer.is_local or layer.shape is None else "one position" if layer.matters else "without effect"
