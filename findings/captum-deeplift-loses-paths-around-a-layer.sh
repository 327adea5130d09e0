#!/usr/bin/env bash
# captum 0.9.0: DeepLift and GuidedBackprop replace the gradient of a ReLU's whole input, not of the ReLU's path alone.
#
# captum hooks the tensor that a layer takes, before it hands the layer a copy. Where that tensor is read by others too,
# as in x + relu(x), the hook gets the sum of all gradients and puts the ReLU's rule in its place: the path around the
# layer is lost, and DeepLift's map misses the change of the output. So it is where two layers with rules follow each
# other (ReLU, Tanh; ReLU, MaxPool2d): the second's rule is lost. Max pools whose windows overlap lose contributions for
# another reason: max_unpool2d overwrites where it would have to add.
#
# A copy of each layer's input, by a forward pre-hook registered before, mends all but the last.
#
# Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet captum==0.9.0 torch==2.14.1
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import captum
import torch
from captum.attr import DeepLift, GuidedBackprop
from torch import nn

print(f"captum {captum.__version__}, torch {torch.__version__}")


class Around(nn.Module):
    """The sum of x + relu(x), times a sign."""

    def __init__(self, sign):
        super().__init__()
        self.relu, self.sign = nn.ReLU(), sign

    def forward(self, x):
        hidden = 1 * x
        return self.sign * (hidden + self.relu(hidden)).sum(1, keepdim=True)


def copies(model):
    return [
        module.register_forward_pre_hook(lambda _, inputs: (inputs[0].clone(),))
        for module in model.modules()
        if isinstance(module, (nn.ReLU, nn.Tanh, nn.MaxPool2d))
    ]


def missing(model, image, baseline):
    """The share of the output's change that the map misses."""
    signed_map = DeepLift(model).attribute(image, baselines=baseline, target=0)
    with torch.no_grad():
        change = (model(image) - model(baseline))[0, 0]
    return float((change - signed_map.sum()) / change)


x = torch.tensor([[2.0, -1.0]])
zero = torch.zeros_like(x)
rising, falling = Around(1), Around(-1)
plain = DeepLift(rising).attribute(x, baselines=zero, target=0).tolist()
guided = GuidedBackprop(falling).attribute(x, target=0).tolist()
copies(rising), copies(falling)
mended = DeepLift(rising).attribute(x, baselines=zero, target=0).tolist()
mended_guided = GuidedBackprop(falling).attribute(x, target=0).tolist()
print(f"x + relu(x) at (2, -1), contributions (4, -1) by hand: DeepLift {plain[0]}, with copies {mended[0]}")
print(f"-x - relu(x), (-1, -1) by hand, the path around: GuidedBackprop {guided[0]}, with copies {mended_guided[0]}")
assert plain == [[2.0, 0.0]] and mended == [[4.0, -1.0]]
assert guided == [[0.0, 0.0]] and mended_guided == [[-1.0, -1.0]]

torch.manual_seed(0)
image, baseline = torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8)
for name, layers, is_mended in (
    ("ReLU, Tanh", (nn.ReLU(), nn.Tanh()), True),
    ("ReLU, MaxPool2d(2)", (nn.ReLU(), nn.MaxPool2d(2)), True),
    ("ReLU, MaxPool2d(3, 2, 1)", (nn.ReLU(), nn.MaxPool2d(3, 2, 1)), False),
):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), *layers, nn.Flatten(), nn.LazyLinear(1)).eval()
    model(image)
    before = missing(model, image, baseline)
    copies(model)
    after = missing(model, image, baseline)
    print(f"{name}: {before:.1%} of the change missing, with copies {after:.1%}")
    assert abs(before) > 0.01 and (abs(after) < 1e-4) == is_mended
PYTHON
