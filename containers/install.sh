#!/bin/sh
# What both containers install, and what runs in a fresh environment too: PYTHON=.venv/bin/python containers/install.sh
# TORCH=cuda: torch as PyPI has it, with its CUDA libraries. TORCH=cpu: PyTorch's own build for CPUs.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}

case "${TORCH:-cuda}" in
cuda) ;;
cpu) "$python" -m pip install --no-cache-dir --constraint constraints.txt \
	--index-url https://download.pytorch.org/whl/cpu torch torchvision ;;
*)
	echo "TORCH=$TORCH: cuda or cpu" >&2
	exit 2
	;;
esac
"$python" -m pip install --no-cache-dir --constraint constraints.txt '.[all]'
"$python" -m pip check
"$python" -m medveil.launch.cli --version
