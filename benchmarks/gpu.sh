#!/bin/sh
# benchmarks/gpu.sh OUT [MINUTES]: the table of benchmarks/gpu.md on this machine's GPU. Needs a Python with torch and torchvision for it;
# what else is missing is installed, from WHEELS (a folder) where there is no index.
set -eu
cd "$(dirname "$0")/.."
out=${1:?folder for the results} minutes=${2:-8} python=${PYTHON:-python3}
"$python" -c 'import fastcore, safetensors, tqdm, matplotlib, PIL' 2>/dev/null ||
    "$python" -m pip install --quiet ${WHEELS:+--no-index --find-links "$WHEELS"} fastcore safetensors tqdm matplotlib pillow
PYTHONPATH=. exec "$python" benchmarks/gpu.py "$out" --minutes "$minutes"
