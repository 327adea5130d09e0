#!/usr/bin/env bash
# torchattacks 3.5.1: an attack on a model in train mode ends the eval mode of its frozen parts.
#
# Fine-tuning with frozen batch norm is `model.train()`, then `eval()` on the batch norms. torchattacks says that it
# changes train mode to eval mode during the attack. What it puts back is the mode of the outermost module alone, by
# `model.train()`, which reaches all modules inside. So after the first attack of a training loop the batch norms are in
# train mode: they normalize by the batch, and their running statistics, which were to stay, move. Dropout that was
# switched off is on again. A model that is in eval mode as a whole stays so.
#
# Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torchattacks==3.5.1 torch==2.14.1
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import torch
import torchattacks
from torch import nn

print(f"torchattacks {torchattacks.__version__}, torch {torch.__version__}")
torch.manual_seed(0)
network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(), nn.Flatten(), nn.Linear(144, 5))
images, labels = torch.rand(4, 3, 8, 8), torch.arange(4)
norm, dropout = network[1], network[3]


def moves():
    """How far a training step's forward pass moves the running mean."""
    before = norm.running_mean.clone()
    network(images)
    return float((norm.running_mean - before).abs().max())


for attack in (torchattacks.FGSM(network), torchattacks.PGD(network, steps=1), torchattacks.APGD(network, steps=2)):
    network.train()
    norm.eval(), dropout.eval()
    still = moves()
    attack(images, labels)
    modes, moved = (network.training, norm.training, dropout.training), moves()
    print(f"{attack.attack}: train mode of network, batch norm, dropout: (True, False, False), after it {modes};")
    print(f"    a pass moves the running mean by {still}, after it by {moved:.3f}")
    assert modes == (True, True, True) and still == 0 and moved > 0.001

network.eval()
torchattacks.FGSM(network)(images, labels)
print(f"network in eval mode: after the attack, modules in train mode: {sum(m.training for m in network.modules())}")
assert not any(module.training for module in network.modules())
PYTHON
