#!/usr/bin/env bash
# captum 0.9.0: FGSM and PGD do not move an image whose gradients are below 1e-6, so confident models look robust.
#
# Both attacks use nothing but the sign of the gradient, so a network whose logits are eight times as large is expected
# to be attacked as well as before. captum takes gradients of 1e-6 and less for zero. That of the cross-entropy falls as
# exp(-margin): from a margin of about 14 on no pixel is moved, and the image counts as right under attack. The sign of
# the same float32 gradients, taken by hand, changes all answers. Nothing is warned of.
#
# FGSM documents that it has an attribute `zero_thresh` below which gradients are taken for zero, not its value. PGD,
# where it is `fgsm.zero_thresh`, does not. Setting it to 0 mends both.
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
from captum.robust import FGSM, PGD
from torch import nn

print(f"captum {captum.__version__}, torch {torch.__version__}")
EPS = 0.1
torch.manual_seed(0)
images = torch.rand(256, 1, 8, 8) * 0.6 + 0.2
weights = torch.randn(64)
labels = ((images.flatten(1) - 0.5) @ weights < 0).long()
network = nn.Sequential(nn.Flatten(), nn.Linear(64, 2)).eval()
loss = nn.CrossEntropyLoss(reduction="none")


def set_scale(scale):
    network[1].weight.data = scale * torch.stack([weights, -weights])
    network[1].bias.data = scale * weights.sum() * torch.tensor([-0.5, 0.5])


def gradients():
    inputs = images.clone().requires_grad_()
    return torch.autograd.grad(loss(network(inputs), labels).sum(), inputs)[0]


def attack(name, threshold=None):
    attack = {"FGSM": FGSM, "PGD": PGD}[name](network, loss, 0, 1)
    if threshold is not None:
        (attack if name == "FGSM" else attack.fgsm).zero_thresh = threshold
    if name == "FGSM":
        return attack.perturb(images, EPS, labels)
    return attack.perturb(images, radius=EPS, step_size=EPS / 5, step_num=20, target=labels)


def accuracy(inputs):
    with torch.no_grad():
        return float((network(inputs).argmax(1) == labels).float().mean())


print("accuracy of a linear network whose logits are larger and larger, under attack with the same eps:")
found = {}
for scale in (1, 2, 4, 8):
    set_scale(scale)
    with torch.no_grad():
        margin = float(network(images).diff().abs().median())
    by_hand = images + EPS * gradients().sign()
    adversarial = attack("FGSM")
    still = float((adversarial == images).flatten(1).all(1).float().mean())
    found[scale] = [accuracy(by_hand), accuracy(adversarial), accuracy(attack("PGD")), still]
    shown = "by hand {:.0%}, FGSM {:.0%}, PGD {:.0%}; {:.0%} of images as they were".format(*found[scale])
    print(f"    logits x{scale} (median margin {margin:.1f}): clean {accuracy(images):.0%}; {shown}")
    assert accuracy(images) == 1 and found[scale][0] == 0 and bool((gradients() != 0).all())
exact = [accuracy(attack(name, threshold=0)) for name in ("FGSM", "PGD")]
print("logits x8 and zero_thresh = 0: FGSM {:.0%}, PGD {:.0%}".format(*exact))
assert exact == [0, 0]
assert found[1] == [0, 0, 0, 0] and min(found[8][1:]) > 0.4
PYTHON
