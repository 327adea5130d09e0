#!/usr/bin/env bash
# timm 1.0.9 beside huggingface_hub 2.4.0: pip installs both without a complaint, and timm says that the hub's package is
# not installed. RobustBench pins timm to this version, and pip chooses the newest huggingface_hub beside it.
#
# timm imports a function that huggingface_hub has dropped, takes the ImportError for a missing package, and keeps that to
# itself until pretrained weights are asked for: "Hugging Face hub model specified but package not installed". What helps
# is an older huggingface_hub (0.36.2), and not what the message says, to install it.
#
# Fails if that changes. Nothing is downloaded by timm.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet timm==1.0.9 huggingface_hub==2.4.0 torch==2.14.1 torchvision
"$folder/venv/bin/pip" check
cat >"$folder/ask.py" <<'PYTHON'
import os

os.environ["HF_HUB_OFFLINE"] = "1"
import huggingface_hub
import timm
from timm.models import _hub

print(f"timm {timm.__version__}, huggingface_hub {huggingface_hub.__version__}: timm sees it: {_hub.has_hf_hub()}")
try:
    timm.create_model("resnet18", pretrained=True)
except Exception as error:
    print(f"{type(error).__name__}: {str(error).splitlines()[0][:90]}")
    print("says not installed:", "package not installed" in str(error))
PYTHON
new=$("$folder/venv/bin/python" -W ignore "$folder/ask.py")
"$folder/venv/bin/pip" install --quiet huggingface_hub==0.36.2
old=$("$folder/venv/bin/python" -W ignore "$folder/ask.py")
echo "$new"
echo "$old"
grep -q "2.4.0: timm sees it: False" <<<"$new" && grep -q "not installed: True" <<<"$new"
grep -q "0.36.2: timm sees it: True" <<<"$old" && grep -q "not installed: False" <<<"$old"
