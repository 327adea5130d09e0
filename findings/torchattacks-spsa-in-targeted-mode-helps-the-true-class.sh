#!/usr/bin/env bash
# torchattacks 3.5.1: SPSA and PIFGSMPP, set to random or least likely target classes, make images more certainly right.
#
# Both say that they support targeted mode, and `set_mode_targeted_random` and `set_mode_targeted_least_likely` take them
# without a warning. The other attacks then look up the target of each image. These two never do: they keep the labels
# that they are called with, and, being targeted, descend towards them. These are the true classes, so that what should
# be an attack raises the accuracy: here from about a half to all of the images, where PGD and FGSM in the same mode
# lower it to zero. A model so evaluated looks perfectly robust. Only `set_mode_targeted_by_label`, where
# the caller gives targets in the place of labels, does what it says.
#
# Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torchattacks==3.5.1 torch==2.14.1 torchvision==0.29.1 scipy==1.17.1
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
from importlib.metadata import version

import torch
import torchattacks
from torch import nn

print(f"torchattacks {version('torchattacks')}, torch {torch.__version__}")
torch.manual_seed(0)
classes, count = 6, 300
network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 9, classes, bias=False)).eval()
images = torch.rand(count, 3, 8, 9) * 0.6 + 0.2
with torch.no_grad():
    network[1].weight.copy_(torch.randn(classes, 3 * 8 * 9) * 0.3)
    network[1].weight.sub_(network[1].weight.mean(1, keepdim=True))
    logits = network(images)
    labels = torch.where(torch.arange(count) % 2 == 0, logits.argmax(1), logits.topk(2).indices[:, 1])


def accuracy(adversarial):
    with torch.no_grad():
        return float((network(adversarial).argmax(1) == labels).float().mean())


eps = 0.1
attacks = {
    "PGD": lambda: torchattacks.PGD(network, eps=eps, alpha=eps / 4, steps=20),
    "FGSM": lambda: torchattacks.FGSM(network, eps=eps),
    "SPSA": lambda: torchattacks.SPSA(network, eps=eps, lr=eps / 4, nb_iter=20),
    "PIFGSMPP": lambda: torchattacks.PIFGSMPP(network, max_epsilon=eps),
}
print(f"accuracy on the {count} clean images: {accuracy(images):.1%}")
print("under attack:      untargeted   random target   least likely")
for name, make in attacks.items():
    rates = []
    for mode in ("default", "targeted_random", "targeted_least_likely"):
        attack = make()
        if mode != "default":
            getattr(attack, f"set_mode_{mode}")(quiet=True)
        rates.append(accuracy(attack(images, labels)))
    print(f"{name:<19}{rates[0]:9.1%}{rates[1]:15.1%}{rates[2]:15.1%}")
    clean, (untargeted, *targeted) = accuracy(images), rates
    assert untargeted < 0.5 * clean
    if name in ("SPSA", "PIFGSMPP"):
        assert min(targeted) > 0.9 > clean
    else:
        assert max(targeted) < 0.5 * clean
PYTHON
