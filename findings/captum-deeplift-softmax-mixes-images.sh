#!/usr/bin/env bash
# captum 0.9.0: behind an nn.Softmax, DeepLift's map of an image depends on the other images of its batch.
#
# Maps are expected to be of one image each. captum's rule for nn.Softmax takes a mean away from the contributions, and
# takes it over the whole batch, images and their baselines together. In the network below an image's map changes by 18 %
# of the largest entry between a batch of four and the image alone. Of the logits, before the softmax, maps are the same.
# That the rule takes a mean away at all is captum's issue 1367: neither map sums to the change of the output.
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
from captum.attr import DeepLift
from torch import nn

print(f"captum {captum.__version__}, torch {torch.__version__}")
torch.manual_seed(0)
probabilities = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3), nn.Softmax(1)).requires_grad_(False).eval()
logits = probabilities[:3]
images, baseline = torch.randn(4, 6), torch.zeros(1, 6)


def maps(model, batch):
    return DeepLift(model).attribute(batch, baselines=baseline.expand_as(batch), target=0).detach()


def difference(model):
    """The largest change of an entry between a batch and single images, by the largest entry."""
    alone = torch.cat([maps(model, image[None]) for image in images])
    return float((maps(model, images) - alone).abs().max() / alone.abs().max())


change = (probabilities(images) - probabilities(baseline))[0, 0]
print(f"maps of a logit: {difference(logits):.1%} apart alone and in a batch of 4")
print(f"maps of a probability: {difference(probabilities):.1%} apart alone and in a batch of 4")
together, alone = maps(probabilities, images)[0].sum(), maps(probabilities, images[:1])[0].sum()
print(f"first image: its probability changes by {change:.4f}, its map sums to {together:.4f} in the batch, {alone:.4f} alone")
assert difference(logits) < 1e-6
assert difference(probabilities) > 0.1
assert abs(together - change) > 0.005 and abs(alone - change) > 0.005
PYTHON
