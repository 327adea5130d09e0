#!/usr/bin/env bash
# torchattacks 3.5.1: images saved with save_type="int" lie outside the ball of the attack, and are darker.
#
# FGSM of an image of 8 bits with eps 8/255 ends on levels of 8 bits, up to float32's rounding. Saving that in 8 bits
# should lose nothing. But `Attack.save` cuts the fraction off and does not round: a pixel of 91.99999 becomes 91. Where
# the attack went down by 8 levels, the file may be 9 below the image. Pixels that lie between levels, as those of PGDL2,
# are all taken down, by half a level on average.
#
# Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torchattacks==3.5.1 torch==2.14.1
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import os
import tempfile

import torch
import torchattacks
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

print(f"torchattacks {torchattacks.__version__}, torch {torch.__version__}")
torch.manual_seed(0)
levels = torch.randint(16, 240, (64, 3, 8, 8))
network = nn.Sequential(nn.Flatten(), nn.Linear(192, 5)).eval()
data = DataLoader(TensorDataset(levels / 255, network(levels / 255).argmax(1)), 64)


def saved(attack):
    """The levels of the attacked images that the file holds, and those of the attack itself."""
    torch.manual_seed(0)
    ((images, labels),) = data
    attacked = attack(images, labels) * 255
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "images.pt")
        attack.save(data, path, verbose=False, save_type="int")
        ((loaded, _),) = attack.load(path, batch_size=64)
    return loaded * 255, attacked


for attack in (torchattacks.FGSM(network, eps=8 / 255), torchattacks.PGDL2(network)):
    file, attacked = saved(attack)
    largest = [float((pixels - levels).abs().max()) for pixels in (attacked, attacked.round(), file)]
    shift = float((file - attacked).mean())
    print(f"{attack.attack}: largest change {largest[0]:.3f} levels, rounded {largest[1]:.0f};")
    print(f"    in the file {largest[2]:.0f} levels, and {-shift:.3f} levels darker on average")
    if attack.attack == "FGSM":
        assert largest[0] < 8.001 and largest[1] == 8 and abs(largest[2] - 9) < 0.001
    else:
        assert abs(shift + 0.5) < 0.05
PYTHON
