#!/usr/bin/env bash
# Tests, measures and trains on a machine with an NVIDIA driver and nothing else; made by scripts/gpu_kit.sh.
#
#     bash run.sh                        everything, in this order:
#     bash run.sh doctor tests bench     some of: doctor tests conformance bench peers compare builtin llama8b sanitize
#     bash run.sh --dry                  everything at toy sizes on the CPU: does the kit itself work?
#
# Results go to $OUT (default: ./gpu-kit-results): summary.txt, log.txt, bench.jsonl, peers.jsonl, table.md, runs.tar.gz, gpu.csv.
# A stage that fails or takes too long does not stop the others. Environment:
#     KIT_SECONDS    seconds for everything together [default: no limit]
#     BENCH          options of ltrain bench, peers too, such as "--shapes 8b --tokens 4k,32k --seconds 0.3"
#     PEERS          options of torch_gpu.py on top of them, such as "--only attention"
#     PYTHON         an interpreter with PyTorch, for the peers [default: python3]
#     STEPS          training steps of each run of the 8B model [default: 6]
# Peers need PyTorch; the 8B model's random weights take 16 GB of $KIT_TMP [default: /dev/shm, or /tmp where that is small].
set -u

kit=$(cd "$(dirname "$0")" && pwd)
out=${OUT:-gpu-kit-results}
mkdir -p "$out"
out=$(cd "$out" && pwd)
python=${PYTHON:-python3}
work=$(mktemp -d)
started=$SECONDS
models=
stages=()
dry=
for word in "$@"; do
    if [ "$word" = --dry ]; then dry=yes; else stages+=("$word"); fi
done
[ ${#stages[@]} -gt 0 ] || stages=(doctor tests conformance bench peers compare builtin llama8b sanitize)

# What a stage returns that lacks something which need not be there.
skip=77

say() { echo "$*" | tee -a "$out/log.txt"; }

# Unpacked beside its tests' fixtures, which they look for from there.
tar -xzf "$kit/kit.tar.gz" -C "$work" || { say "run.sh: $kit/kit.tar.gz cannot be unpacked"; exit 1; }
export LTRAIN_FIXTURES=$work/tests/fixtures LTRAIN_CACHE=$work/cache NO_COLOR=1 COLUMNS=130
ltrain=$work/bin/ltrain

# What is left behind whatever happens, a kill at a time limit too.
cleanup() {
    [ -z "${smi:-}" ] || kill "$smi" 2>/dev/null
    (cd "$work" && find runs -type f -size -4M -regextype posix-extended -regex '.*\.(jsonl?|toml|html|csv)' 2>/dev/null |
        tar -czf "$out/runs.tar.gz" -T - 2>/dev/null)
    rm -rf "$work" ${models:+"$models"}
}
trap cleanup EXIT
trap 'exit 130' INT TERM

left() {
    local seconds=$1
    if [ -n "${KIT_SECONDS:-}" ]; then
        local rest=$((KIT_SECONDS - (SECONDS - started)))
        [ "$rest" -ge "$seconds" ] || seconds=$rest
    fi
    echo "$seconds"
}

# The last value of a field of a log with a JSON object per line.
field() {
    grep -oE "\"$1\":[0-9.eE+-]+" "$2" | tail -n 1 | cut -d: -f2
}

# run LIMIT COMMAND...: its output goes to the log, its status is returned.
run() {
    local limit
    limit=$(left "$1")
    shift
    say "$ $*"
    [ "$limit" -gt 0 ] || { say "no time is left"; return 124; }
    timeout --kill-after=10 "$limit" "$@" > >(tee -a "$out/log.txt") 2>&1
    local status=$?
    [ $status -ne 124 ] || say "stopped after $limit s"
    return $status
}

device() {
    if [ -n "$dry" ]; then echo "--gpus 0"; else echo "--gpus 1"; fi
}

stage_doctor() {
    run 60 "$ltrain" doctor
}

stage_tests() {
    local status=0 binary
    [ -n "$dry" ] || export LTRAIN_BACKENDS=cuda
    for binary in "$work"/tests/bin/*; do
        [ "$binary" != "$work/tests/bin/conformance" ] || continue
        if [ -n "$dry" ]; then
            run 60 "$binary" --list || status=1
        else
            run 240 "$binary" --test-threads 4 || status=1
        fi
    done
    [ -z "$dry" ] || { run 120 "$work/tests/bin/model" llama_headdim || status=1; }
    return $status
}

# Conformance of every ptx.cuh wrapper: one after the other, so that one that never ends is the last one named. --dry: on the
# emulation.
stage_conformance() {
    [ -n "$dry" ] || export LTRAIN_BACKENDS=cuda
    run 240 "$work/tests/bin/conformance" --test-threads 1 --nocapture
}

sizes() {
    if [ -n "$dry" ]; then echo "--shapes tiny --tokens 64 --seconds 0"; else echo "${BENCH:-}"; fi
}

stage_bench() {
    # shellcheck disable=SC2046
    run 540 "$ltrain" bench $(device) $(sizes) --json "$out/bench.jsonl"
}

stage_peers() {
    "$python" -c 'import torch' 2>>"$out/log.txt" || { say "$python has no PyTorch"; return $skip; }
    local device=cuda compile=on
    [ -z "$dry" ] || { device=cpu compile=off; }
    # shellcheck disable=SC2046
    run 540 "$python" "$work/benches/peers/torch_gpu.py" --device $device --compile $compile $(sizes) ${PEERS:-} \
        --json "$out/peers.jsonl"
}

stage_compare() {
    [ -s "$out/bench.jsonl" ] && [ -s "$out/peers.jsonl" ] || { say "bench or peers left nothing"; return $skip; }
    "$python" "$work/scripts/compare_peers.py" "$out/bench.jsonl" "$out/peers.jsonl" >"$out/table.md" 2>>"$out/log.txt"
    local status=$?
    tail -n 12 "$out/table.md" | tee -a "$out/log.txt"
    return $status
}

# The built-in model: on the device and on the CPU with the same settings, then far on the device.
stage_builtin() {
    local status=0 steps=()
    [ -z "$dry" ] || steps=(--steps 2 --no-control --eval none)
    # shellcheck disable=SC2046
    run 240 "$ltrain" $(device) "${steps[@]}" --out "$work/runs/builtin" || status=1
    run 240 "$ltrain" --gpus 0 "${steps[@]}" --out "$work/runs/builtin-cpu" || status=1
    # shellcheck disable=SC2046
    run 240 "$ltrain" $(device) "${steps[@]}" --target 128k --out "$work/runs/builtin-128k" || status=1
    return $status
}

# LoRA on a model of Llama 3 8B's shape: what was planned, what was used, how fast.
stage_llama8b() {
    local tmp=${KIT_TMP:-/dev/shm} status=0 config=$work/llama3-8b.json lengths="4k 32k" limit=(--mem-limit 80g)
    [ -n "${KIT_TMP:-}" ] || [ "$(df --output=avail -k "$tmp" 2>/dev/null | tail -1)" -ge 20000000 ] || tmp=/tmp
    [ -z "$dry" ] || { config=$work/assets/tiny/config.json lengths=512 limit=(); }
    models=$(mktemp -d "$tmp/ltrain-kit.XXXXXX") || return 1
    run 300 "$python" "$work/random_model.py" "$config" "$work/assets/tiny" "$models/made" || return 1
    for length in $lengths; do
        local settings=(--model "$models/made/model" --tokenizer "$work/assets/tiny" --data "$models/made/text" --val none --target 128k
            --seq-len "$length" --train lora --rank 16 --steps "${STEPS:-6}" --micro-batch 1 --accum 1 --recompute layers
            --eval none --no-control --export none --log-every 1 "${limit[@]}")
        # shellcheck disable=SC2046
        run 60 "$ltrain" plan $(device) "${settings[@]}" || status=1
        # shellcheck disable=SC2046
        run 400 "$ltrain" $(device) "${settings[@]}" --out "$work/runs/llama8b-$length" || status=1
        rm -rf "$work/runs/llama8b-$length"/checkpoint-*
    done
    rm -rf "$models"
    models=
    return $status
}

# The parity tests under compute-sanitizer.
stage_sanitize() {
    local tool status=0
    command -v compute-sanitizer >/dev/null || { say "compute-sanitizer is not installed"; return $skip; }
    export LTRAIN_BACKENDS=cuda
    for tool in memcheck racecheck; do
        run 280 compute-sanitizer --tool $tool --error-exitcode 9 "$work/tests/bin/ops" backend || status=1
    done
    return $status
}

: >"$out/log.txt"
: >"$out/summary.txt"
rm -f "$out/bench.jsonl" "$out/peers.jsonl"
say "ltrain's GPU kit on $(uname -srm), $(nproc) threads"
reason=
if [ -z "$dry" ]; then
    found=$("$ltrain" doctor 2>&1 | sed -n 's/^device *//p')
    found=${found:-ltrain doctor does not run}
    case $found in
    gpu*) say "device $found" ;;
    *) reason="no GPU: ${found#cpu }" ;;
    esac
    if [ -z "$reason" ] && command -v nvidia-smi >/dev/null; then
        nvidia-smi --query-gpu=timestamp,name,driver_version,clocks.sm,clocks.mem,power.draw,temperature.gpu,memory.used \
            --format=csv --loop=5 >"$out/gpu.csv" 2>/dev/null &
        smi=$!
    fi
fi
failed=0
for stage in "${stages[@]}"; do
    before=$SECONDS
    case $stage in
    doctor | tests | conformance | bench | peers | compare | builtin | llama8b | sanitize) ;;
    *) say "unknown stage: $stage"; failed=1; continue ;;
    esac
    say ""
    say "==> $stage"
    if [ -n "$reason" ] && [ "$stage" != doctor ] && [ "$stage" != compare ]; then
        result="skipped ($reason)"
        failed=1
    else
        "stage_$stage"
        case $? in
        0) result=ok ;;
        $skip) result="skipped (see log.txt)" ;;
        *) result=FAILED; failed=1 ;;
        esac
    fi
    printf '%-11s %s, %d s\n' "$stage" "$result" $((SECONDS - before)) >>"$out/summary.txt"
done

{
    for log in "$work"/runs/llama8b-*/trainer_log.jsonl; do
        [ -e "$log" ] || continue
        name=$(basename "$(dirname "$log")")
        # Model operations per token: 2 (2 linear parameters + head) + 3.5 x 2 x heads x head_dim x layers x length.
        case $name in
        *-4k) gflop=33.8 ;;
        *-32k) gflop=60.1 ;;
        *) gflop=0 ;;
        esac
        tokens=$(field throughput "$log") peak=$(field vram_peak_gib "$log")
        awk -v name="$name" -v tokens="$tokens" -v gflop=$gflop -v peak="$peak" 'BEGIN {
            rate = tokens * gflop / 1e3
            printf "%s: %s tokens/s, %.1f TFLOP/s of the model, %.1f%% of 989, peak %s GiB\n", name, tokens, rate, rate / 9.89, peak
        }'
    done
    grep -hE '^peak ' "$out/log.txt" | sed 's/^/planned: /'
    grep -hE 'geometric mean' "$out/table.md" 2>/dev/null
    grep -hE 'test result: ' "$out/log.txt" | sort | uniq -c
} >>"$out/summary.txt"
echo
cat "$out/summary.txt"
exit $failed
