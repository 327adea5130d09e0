#!/usr/bin/env bash
# adv-lib 0.2.8: APGD halves its step at its checkpoints although the loss has risen at every step.
#
# APGD (Croce and Hein 2020) halves its step at a checkpoint if the loss rose in too few of the steps since the last
# one, or if the best loss is the same as then. Here the loss rises at each of the first twelve steps. adv-lib and
# torchattacks, which is a port of the authors' code, begin at the same image and take the same seven steps. Then adv-lib
# halves its step at each second checkpoint, and torchattacks goes on with the whole one. adv-lib keeps no copy of the
# best loss at a checkpoint, but the tensor that it goes on changing: from the second checkpoint on it always finds the
# loss unchanged.
#
# visdom, which adv-lib imports for a logger, is an empty module here: version 0.2.4 does not install with setuptools of
# today. Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torchattacks==3.5.1 torch==2.14.1 tqdm==4.67.1 setuptools==80.9.0
"$folder/venv/bin/pip" install --quiet --no-deps adv-lib==0.2.8
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import sys
from importlib.metadata import version
from types import ModuleType

import torch
import torchattacks
from torch import nn

sys.modules["visdom"] = ModuleType("visdom")
from adv_lib.attacks import apgd

print(f"adv-lib {version('adv-lib')}, torchattacks {torchattacks.__version__}, torch {torch.__version__}")
EPS, STEPS, RISING = 0.1, 20, 12


class Dominoes(nn.Module):
    """Each pixel counts only if the one before it is near the top of the ball: the loss rises pixel by pixel."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, images):
        self.seen.append(images.detach().clone())
        height = (images.flatten(1) - 0.5) / EPS
        is_open = torch.cat([torch.ones(len(height), 1), (height[:, :-1] - 0.6).relu()], 1)
        score = (is_open * (height + 2)).sum(1) / 9
        return torch.stack([1 - score, torch.zeros_like(score)], 1)


def steps(attack):
    """The largest change of a pixel in each step, in units of eps, without momentum and before clipping cuts it."""
    network = Dominoes().eval()
    torch.manual_seed(0)
    attack(network)
    seen = torch.cat(network.seen)
    seen = seen[torch.cat([torch.tensor([True]), (seen[1:] != seen[:-1]).flatten(1).any(1)])]  # each iterate once
    seen = seen[(seen - 0.5).abs().flatten(1).amax(1) > 0]  # not the clean image
    with torch.no_grad():
        losses = [float(-network(image[None])[0, 0]) for image in seen]
    assert all(after > before for before, after in zip(losses[:RISING], losses[1 : RISING + 1]))
    moves = (seen[1:] - seen[:-1]) / EPS
    plain = [moves[0], *((move - last / 4) * 4 / 3 for last, move in zip(moves, moves[1:]))]
    return [round(float(move.abs().max()), 2) for move in plain]


images, labels = torch.full((1, 1, 4, 4), 0.5), torch.tensor([0])
halved = steps(lambda network: apgd(network, images, labels, EPS, norm=float("inf"), n_iter=STEPS, loss_function="ce"))
port = steps(
    lambda network: torchattacks.APGD(network, eps=EPS, steps=STEPS, loss="ce", rho=0.75, seed=0)(images, labels)
)
print("adv-lib:     ", *halved[:RISING])
print("torchattacks:", *port[:RISING])
assert halved[:7] == port[:7] and max(halved[:7]) == 2
assert max(halved[7:10]) <= 1 < 1.4 < max(port[7:10]) and max(halved[10:RISING]) <= 0.5
PYTHON
