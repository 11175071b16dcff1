#!/usr/bin/env bash
# Installs nvcc from NVIDIA's wheels into .nvcc, without a CUDA toolkit or a GPU, and prints its path.
#
#     LTRAIN_NVCC=$(scripts/setup_nvcc.sh) cargo build --release
set -euo pipefail
cd "$(dirname "$0")/.."

wheels=(
    nvidia-cuda-nvcc==13.0.88
    nvidia-nvvm==13.0.88
    nvidia-cuda-crt==13.0.88
    nvidia-cuda-runtime==13.0.96
    nvidia-cuda-cccl==13.0.85
)

[ -x .nvcc/bin/python ] || python3 -m venv .nvcc >&2
.nvcc/bin/python -m pip install --quiet --disable-pip-version-check "${wheels[@]}" >&2

found=(.nvcc/lib/python*/site-packages/nvidia/cu13/bin/nvcc)
if [ ! -x "${found[0]}" ]; then
    echo "setup_nvcc: the wheels are installed, but ${found[0]} cannot be run" >&2
    exit 1
fi
echo "$PWD/${found[0]}"
