#!/usr/bin/env bash
# Makes assets/tiny/model.safetensors from random weights with ltrain's own trainer: first copying, then facts, then
# length. About a quarter of an hour on 2 cores. usage: scripts/make_tiny_model.sh [WORK_FOLDER]
set -euo pipefail
cd "$(dirname "$0")/.."
work=${1:-runs/tiny-model}
ltrain=${LTRAIN:-target/release/ltrain}
[ -x "$ltrain" ] || cargo build --release

stage() { # NAME OPTIONS...
    local name=$1
    shift
    "$ltrain" --out "$work/$name" --tokenizer assets/tiny --positions natural --rope keep --target 256 --train full \
        --threads 2 --eval none --no-control --save-every 1000 --log-every 100 "$@"
}

stage repeat --init assets/tiny/config.json --data synthetic:repeat --seq-len 64 --micro-batch 32 --steps 1600 --lr 2e-3 --warmup 50 --seed 1
stage facts-64 --model "$work/repeat/merged" --data synthetic:facts-64 --seq-len 64 --micro-batch 64 --steps 400 --lr 1e-3 --seed 5
stage facts-256 --model "$work/facts-64/merged" --data synthetic:facts-256 --seq-len 256 --micro-batch 16 --steps 2000 --lr 1e-3 \
    --schedule cosine --seed 7
stage mixed-256 --model "$work/facts-256/merged" --data synthetic:mixed-256 --seq-len 256 --micro-batch 16 --steps 1000 --lr 5e-4 \
    --schedule cosine --seed 11
"$ltrain" eval "$work/mixed-256/merged" --at 64,128,256,512,1024,2048 --passkey-samples 100
echo "copy $work/mixed-256/merged/model.safetensors to assets/tiny/ to build it in"
