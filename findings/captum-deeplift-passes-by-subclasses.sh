#!/usr/bin/env bash
# captum 0.9.0: DeepLift passes by subclasses of the layers that it knows, and its map is then input times gradient.
#
# DeepLift and GuidedBackprop have rules for nn.ReLU. A subclass of it, `class MyReLU(nn.ReLU): pass`, is one to
# GuidedBackprop (isinstance) and none to DeepLift (an exact class). Without a word its map is then (x - baseline) times
# the plain gradient, to the last bit, and does not sum to the change of the output.
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


class MyReLU(nn.ReLU):
    pass


torch.manual_seed(0)
first, last = nn.Linear(6, 8), nn.Linear(8, 3)
plain, subclass = nn.Sequential(first, nn.ReLU(), last).eval(), nn.Sequential(first, MyReLU(), last).eval()
images, baseline = torch.randn(4, 6), torch.zeros(4, 6)
assert torch.equal(plain(images), subclass(images))

leaf = images.clone().requires_grad_()
(gradient,) = torch.autograd.grad(plain(leaf)[:, 0].sum(), leaf)
change = (plain(images) - plain(baseline))[:, 0]
sums = {}
for name, model in (("nn.ReLU", plain), ("subclass", subclass)):
    signed_map = DeepLift(model).attribute(images, baselines=baseline, target=0).detach()
    sums[name] = float(((signed_map.sum(1) - change) / change).abs().max())
    is_product = torch.equal(signed_map, (images - baseline) * gradient)
    print(f"{name}: maps miss the change of the output by up to {sums[name]:.1%}; input times gradient: {is_product}")
    assert is_product == (name == "subclass")
assert sums["nn.ReLU"] < 1e-4 and sums["subclass"] > 0.1

guided = [GuidedBackprop(model).attribute(images, target=0) for model in (plain, subclass)]
print(f"GuidedBackprop, the same map with either: {torch.equal(*guided)}")
assert torch.equal(*guided) and not torch.allclose(guided[0], gradient)
PYTHON
