#!/usr/bin/env bash
# Installs the pinned PyTorch into benches/peers/.venv (some 5 GB: the wheel of PyPI for Linux brings CUDA along).
#   benches/peers/setup.sh
set -euo pipefail
cd "$(dirname "$0")"
python3 -m venv .venv
.venv/bin/pip install --disable-pip-version-check --no-cache-dir -r requirements.txt
.venv/bin/python -c 'import torch; print("PyTorch", torch.__version__, "CUDA:", torch.cuda.is_available())'
