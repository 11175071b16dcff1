#!/usr/bin/env bash
# Makes gpu-kit/: everything that a machine with an NVIDIA driver but no Rust needs to test, measure and train; at most 50 MB.
#
#     scripts/gpu_kit.sh [FOLDER]        then, over there: bash gpu-kit/run.sh [STAGE...]
#
# Kernels are compiled by $LTRAIN_NVCC, or by the nvcc that scripts/setup_nvcc.sh installs. The programs run where glibc is as new
# as here or newer.
set -euo pipefail
cd "$(dirname "$0")/.."
kit=${1:-gpu-kit}
# It is carried beside the tracked files, 13 MB, and all of that may be 64 MiB.
most=50000000
# Tests that compare every backend in reach.
tests=(ops rope model device conformance)

LTRAIN_NVCC=${LTRAIN_NVCC:-$(scripts/setup_nvcc.sh)}
export LTRAIN_NVCC
target=${CARGO_TARGET_DIR:-target}
cargo build --release
built=$(cargo test --no-run --message-format=json-render-diagnostics "${tests[@]/#/--test=}")

stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
mkdir -p "$stage/bin" "$stage/tests/bin" "$stage/assets" "$stage/benches/peers" "$stage/scripts" "$kit"
strip -o "$stage/bin/ltrain" "$target/release/ltrain"
for test in "${tests[@]}"; do
    # One JSON object per line; the test's has its name and its program.
    program=$(grep -E "\"name\":\"$test\"" <<<"$built" | sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -1)
    [ -n "$program" ] || { echo "gpu_kit: cargo named no program for the test $test" >&2; exit 1; }
    strip -o "$stage/tests/bin/$test" "$program"
done
cp -r tests/fixtures "$stage/tests/"
cp -r assets/tiny "$stage/assets/"
cp benches/peers/torch_gpu.py "$stage/benches/peers/"
cp scripts/compare_peers.py "$stage/scripts/"
cp scripts/gpu_kit/random_model.py scripts/gpu_kit/check_runs.py scripts/gpu_kit/llama3-8b.json "$stage/"
"$stage/bin/ltrain" doctor | grep -E '^(ltrain|kernels|nvcc)' >"$stage/built.txt"
if grep -q 'none in this build' "$stage/built.txt"; then
    echo "gpu_kit: the program has no GPU kernels; is $LTRAIN_NVCC an nvcc?" >&2
    exit 1
fi

tar -C "$stage" -czf "$kit/kit.tar.gz" .
cp scripts/gpu_kit/run.sh "$stage/built.txt" "$kit/"
size=$(du -sb "$kit" | cut -f1)
cat "$kit/built.txt"
echo "$kit: $((size / 1000000)) MB"
[ "$size" -le $most ] || { echo "gpu_kit: more than $((most / 1000000)) MB" >&2; exit 1; }
