#!/usr/bin/env bash
# Tests, measures and trains on a machine with an NVIDIA driver and nothing else; made by scripts/gpu_kit.sh.
#
#     bash run.sh                        every stage, in this order:
#                                        doctor tests conformance builtin llama8b bench peers compare sanitize
#     bash run.sh STAGE...               these stages, in this order
#     bash run.sh --dry [STAGE...]       at toy sizes on the CPU: does the kit itself work?
#
# Where a command may take ten minutes, three calls of at most 560 s do what matters most first:
#     bash run.sh 1                      doctor tests conformance builtin llama8b
#     bash run.sh 2                      bench peers compare, with BENCH='--shapes 8b --tokens 4k,32k --seconds 0.2'
#     bash run.sh 3                      bench peers compare sanitize, with BENCH='--shapes 8b,1b --tokens 16k,128k --seconds 0.2'
#
# Results go to $OUT (default: ./gpu-kit-results): summary.txt, log.txt, bench.jsonl, peers.jsonl, table.md, runs.tar.gz, gpu.csv.
# They are written after every stage, and another call adds to them; of what is measured or trained twice, the later counts. A stage
# that fails or takes too long does not stop the others. Environment:
#     KIT_SECONDS    seconds for everything together; a stage takes half of what is left at most, the last one all of it
#                    [default: 560 for the numbered calls, otherwise no limit]
#     BENCH          options of ltrain bench, peers too, quoted as in a shell: "--only 'linear fwd',add --shapes 8b --seconds 0.3"
#     PEERS          options of torch_gpu.py on top of them, such as "--compile off"
#     PYTHON         an interpreter, with PyTorch for the peers [default: python3]
#     STEPS          training steps of each run of the 8B model [default: 6]
# The 8B model's random weights take 16 GB of $KIT_TMP [default: /dev/shm, or /tmp where that is small].
set -u

kit=$(cd "$(dirname "$0")" && pwd)
all=(doctor tests conformance builtin llama8b bench peers compare sanitize)
python=${PYTHON:-python3}
seconds=${KIT_SECONDS:-}
options=${BENCH:-}
stages=()
dry=

# A numbered call: its options of bench, its stages.
call() {
    seconds=${KIT_SECONDS:-560}
    options=${BENCH:-$1}
    shift
    stages+=("$@")
}

for word in "$@"; do
    case $word in
    --dry) dry=yes ;;
    1) call '' doctor tests conformance builtin llama8b ;;
    2) call '--shapes 8b --tokens 4k,32k --seconds 0.2' bench peers compare ;;
    3) call '--shapes 8b,1b --tokens 16k,128k --seconds 0.2' bench peers compare sanitize ;;
    *)
        [[ " ${all[*]} " == *" $word "* ]] || { echo "run.sh: there is no stage $word; there are: ${all[*]}" >&2; exit 2; }
        stages+=("$word")
        ;;
    esac
done
[ ${#stages[@]} -gt 0 ] || stages=("${all[@]}")

device=(--gpus 1)
[ -z "$dry" ] || { device=(--gpus 0) options='--shapes tiny --tokens 64 --seconds 0'; }
# Words as a shell reads them, so that a name may have a space.
mapfile -t bench < <(xargs -r printf '%s\n' <<<"$options")
mapfile -t peers < <(xargs -r printf '%s\n' <<<"${PEERS:-}")

out=${OUT:-gpu-kit-results}
mkdir -p "$out" || exit 1
out=$(cd "$out" && pwd)
work=$(mktemp -d) || exit 1
models='' child='' smi='' stage='' deadline=''
: >"$work/notes"
mkfifo "$work/pipe"

say() { echo "$*" | tee -a "$out/log.txt"; }

# A line below the stage's in the summary.
note() { echo "    $*" >>"$work/notes"; }

# A line for each of its input.
notes() {
    local line
    while IFS= read -r line; do note "$line"; done
}

archive() {
    [ -d "$work/runs" ] || return 0
    (cd "$work" && find runs -type f -size -4M -regextype posix-extended -regex '.*\.(jsonl?|toml|html|csv)' |
        tar -czf "$out/runs.tar.gz.part" -T - 2>/dev/null && mv "$out/runs.tar.gz.part" "$out/runs.tar.gz")
}

# end_stage RESULT: whatever ends us later, this stays.
end_stage() {
    { printf '%-11s %s, %d s\n' "$stage" "$1" $((SECONDS - before)); cat "$work/notes"; } >>"$out/summary.txt"
    : >"$work/notes"
    stage=
    archive
}

stopped() {
    trap '' INT TERM HUP
    say "run.sh was stopped by a signal"
    [ -z "$stage" ] || end_stage "cut off by a signal"
    exit 143
}

cleanup() {
    # `timeout` leads a process group of its own.
    [ -z "$child" ] || kill -KILL -- "-$child" 2>/dev/null
    [ -z "$smi" ] || kill "$smi" 2>/dev/null
    rm -rf "$work" ${models:+"$models"}
}
trap cleanup EXIT
trap stopped INT TERM HUP

# left SECONDS: as many, or as few as there are until the deadline.
left() {
    local rest=$1
    [ -z "$deadline" ] || [ $((deadline - SECONDS)) -ge "$rest" ] || rest=$((deadline - SECONDS))
    echo "$rest"
}

# half SECONDS: as many, or half of what is left, for what must leave time to what follows.
half() {
    echo $(($(left $((2 * $1))) / 2))
}

# run LIMIT COMMAND...: its output goes to the log and to $work/output, its status is returned. It runs in the background, because
# bash heeds no signal while it waits for a command in the foreground.
run() {
    local limit status log
    limit=$(left "$1")
    shift
    say "$ $*"
    : >"$work/output"
    if [ "$limit" -le 0 ]; then
        say "no time is left"
        note "no time was left for: $(shown "$@")"
        return 124
    fi
    tee -a "$out/log.txt" "$work/output" <"$work/pipe" &
    log=$!
    timeout --kill-after=5 "$limit" "$@" >"$work/pipe" 2>&1 &
    child=$!
    wait "$child"
    status=$?
    child=
    # What was started by it and lives on can hold the pipe open.
    for _ in {1..100}; do
        kill -0 "$log" 2>/dev/null || break
        sleep 0.02
    done
    kill "$log" 2>/dev/null
    if [ $status -eq 124 ] || [ $status -eq 137 ]; then
        say "stopped after $limit s"
        note "stopped after $limit s: $(shown "$@")"
    fi
    return $status
}

# A command in one line of the summary.
shown() {
    local text="${*//$work\//}"
    echo "${text:0:110}"
}

# What a stage returns that lacks something which need not be there.
skip=77

stage_doctor() {
    return "$doctor"
}

# tested LIMIT NAME [OPTION...]: runs a test program. A driver call that fails ends the context of its process, and with it every
# test of that process which comes later. So what did not pass is run again in a process of its own, which tells the broken tests
# from bystanders.
tested() {
    local limit=$1 name=$2 program=$work/tests/bin/$2 test again=() broken=() alone=0 late=0
    shift 2
    if run "$(half "$limit")" "$program" --show-output "$@"; then
        outcome "$name"
        return 0
    fi
    outcome "$name"
    mapfile -t again < <(comm -23 \
        <(timeout 10 "$program" --list --format terse "$@" | sed -n 's/: test$//p' | sort) \
        <(sed -nE 's/^test (.*) \.\.\. (ok|ignored.*)$/\1/p' "$work/output" | sed 's/ - should panic.*//' | sort))
    for test in "${again[@]}"; do
        if [ "$(left 30)" -le 0 ]; then
            late=$((late + 1))
        elif run 30 "$program" --exact "$test"; then
            alone=$((alone + 1))
        else
            broken+=("$test")
        fi
    done
    note "$name: of ${#again[@]} that did not pass together, $alone pass alone, $late were not run again, ${#broken[@]} are broken"
    [ ${#broken[@]} -eq 0 ] || printf '%s\n' "${broken[@]}" | sed "s/^/$name: broken: /" | notes
    return 1
}

# What a test program says about itself.
outcome() {
    sed -n "s/^test result: /$1: /p" "$work/output" | notes
    grep -F 'skipped (' "$work/output" | sort | uniq -c | sed -E 's/^ *([0-9]+) /\1 x /' | head -n 20 | notes
}

stage_tests() {
    local status=0 program
    for program in "$work"/tests/bin/*; do
        [ "${program##*/}" != conformance ] || continue
        if [ -n "$dry" ]; then
            run 60 "$program" --list || status=1
        else
            tested 240 "${program##*/}" --test-threads 4 || status=1
        fi
    done
    [ -z "$dry" ] || tested 120 model llama_headdim || status=1
    return $status
}

# Conformance of every ptx.cuh wrapper: one after the other, so that one that never ends is the last one named. --dry: on the
# emulation.
stage_conformance() {
    tested 240 conformance --test-threads 1
}

# train LIMIT NAME OPTION...
train() {
    local limit=$1 name=$2
    shift 2
    rm -rf "$work/runs/$name"
    run "$limit" "$ltrain" "$@" --out "$work/runs/$name"
}

# It takes moments, so it is done where no time is left, too.
check() {
    local deadline=
    run 30 "$python" "$work/check_runs.py" "$@"
    local status=$?
    notes <"$work/output"
    return $status
}

# The built-in model: on the device and on the CPU with the same settings, which must agree, then far on the device.
stage_builtin() {
    local status=0 near=(--no-control --eval ppl --seq-len 256) far=(--no-control --target 128k)
    [ -z "$dry" ] || { near+=(--steps 2 --eval-at 256) far+=(--steps 2 --eval none); }
    train 240 builtin "${device[@]}" "${near[@]}" || status=1
    train 240 builtin-cpu --gpus 0 "${near[@]}" || status=1
    check same "$work/runs/builtin" "$work/runs/builtin-cpu" || status=1
    train 240 builtin-128k "${device[@]}" "${far[@]}" || status=1
    grep -E '^perplexity at' "$work/output" | sed 's/^/builtin-128k: /' | notes
    return $status
}

# LoRA on a model of Llama 3 8B's shape: what was planned, what was used, how fast.
stage_llama8b() {
    local tmp=${KIT_TMP:-/dev/shm} status=0 config=$work/llama3-8b.json lengths=(4k 32k) limit=(--mem-limit 80g) length name most
    [ -n "${KIT_TMP:-}" ] || [ "$(df --output=avail -k "$tmp" 2>/dev/null | tail -1)" -ge 20000000 ] || tmp=/tmp
    [ -z "$dry" ] || { config=$work/assets/tiny/config.json lengths=(512) limit=(); }
    models=$(mktemp -d "$tmp/ltrain-kit.XXXXXX") || return 1
    run 300 "$python" "$work/random_model.py" "$config" "$work/assets/tiny" "$models/made" || return 1
    for length in "${lengths[@]}"; do
        name=llama8b-$length
        local settings=(--model "$models/made/model" --tokenizer "$work/assets/tiny" --data "$models/made/text" --val none --target 128k
            --seq-len "$length" --train lora --rank 16 --steps "${STEPS:-6}" --micro-batch 1 --accum 1 --recompute layers
            --eval none --no-control --export none --log-every 1 "${limit[@]}")
        run 60 "$ltrain" plan "${device[@]}" "${settings[@]}" || status=1
        cp "$work/output" "$work/$name.plan"
        # The first run leaves time to the second.
        [ "$length" = "${lengths[-1]}" ] && most=400 || most=$(half 400)
        train "$most" "$name" "${device[@]}" "${settings[@]}" || status=1
        check rate "$work/runs/$name" "$work/$name.plan" "$config" "$length" "$found" || status=1
        rm -rf "$work/runs/$name"/checkpoint-*
    done
    rm -rf "$models"
    models=
    return $status
}

# A fault of the device ends the bench at the op it happened in. Then every op that failed or has no row is measured in a process of
# its own.
stage_bench() {
    local first only=() rest=() shapes=8b,1b names name shape rows
    first=$(($(cat "$out/bench.jsonl" 2>/dev/null | wc -l) + 1))
    benched 540 '' "${bench[@]}" && return 0
    # Without a row, nothing runs here at all.
    tail -n "+$first" "$out/bench.jsonl" 2>/dev/null | grep -qF '"op":' || return 1
    set -- "${bench[@]}"
    while [ $# -gt 0 ]; do
        case $1 in
        --only) only+=(--only "$2"); shift ;;
        --only=*) only+=("$1") ;;
        --shapes) shapes=$2; shift ;;
        --shapes=*) shapes=${1#*=} ;;
        *) rest+=("$1") ;;
        esac
        shift
    done
    mapfile -t names < <(names_of_ops "${only[@]}")
    for shape in ${shapes//,/ }; do
        for name in "${names[@]}"; do
            rows=$(tail -n "+$first" "$out/bench.jsonl" | grep -F "\"op\":\"$name\"" | grep -F "\"model\":\"$shape\"")
            [ -z "$rows" ] || grep -qF '"failed":' <<<"$rows" || continue
            [ "$(left 60)" -gt 0 ] || { note "not measured: $name of $shape"; continue; }
            benched 60 'alone: ' --only "$name" --shapes "$shape" "${rest[@]}"
        done
    done
    return 1
}

# What is measured with this --only: a toy run on the CPU tells, in moments.
names_of_ops() {
    timeout 60 "$ltrain" bench --gpus 0 --shapes tiny --tokens 64 --seconds 0 "$@" --json "$work/ops.jsonl" >/dev/null 2>&1
    sed -nE 's/.*"op":"([^"]*)".*/\1/p' "$work/ops.jsonl" | grep -vxE 'copy|gemm'
}

# benched LIMIT PREFIX OPTION...
benched() {
    local limit=$1 prefix=$2
    shift 2
    run "$limit" "$ltrain" bench "${device[@]}" "$@" --json "$out/bench.jsonl"
    local status=$?
    # Rows of the table, not the facts of the error that repeat them.
    grep -E '^[^ ].* (FAILED|WRONG|refused): ' "$work/output" | tr -s ' ' | sed "s/^/$prefix/" | cut -c 1-220 | notes
    return $status
}

stage_peers() {
    run 120 "$python" -c 'import torch' || { note "$python has no PyTorch"; return $skip; }
    local on=(--device cuda)
    [ -z "$dry" ] || on=(--device cpu --compile off)
    run 540 "$python" "$work/benches/peers/torch_gpu.py" "${on[@]}" "${bench[@]}" "${peers[@]}" --json "$out/peers.jsonl"
}

stage_compare() {
    [ -s "$out/bench.jsonl" ] && [ -s "$out/peers.jsonl" ] || { note "bench or peers left nothing"; return $skip; }
    # The table alone, without what is said about it; in moments.
    local deadline=
    # shellcheck disable=SC2016
    run 60 bash -c '"$@" >"$0"' "$work/table.md" "$python" "$work/scripts/compare_peers.py" "$out/bench.jsonl" "$out/peers.jsonl"
    local status=$?
    notes <"$work/output"
    grep -F 'geometric mean' "$work/table.md" | notes
    [ ! -s "$work/table.md" ] || cp "$work/table.md" "$out/table.md"
    return $status
}

# The parity tests under compute-sanitizer.
stage_sanitize() {
    local sanitizer tool status=0
    sanitizer=$(PATH=$PATH:/usr/local/cuda/bin command -v compute-sanitizer) || { note "compute-sanitizer is not installed"; return $skip; }
    for tool in memcheck racecheck; do
        run 280 "$sanitizer" --tool $tool --error-exitcode 9 "$work/tests/bin/ops" backend || status=1
        grep -F 'ERROR SUMMARY' "$work/output" | sed "s/^/$tool: /" | notes
    done
    return $status
}

{
    echo
    echo "ltrain's GPU kit, $(date -u +%Y-%m-%dT%H:%M:%SZ), $(uname -srm), $(nproc) threads: ${dry:+--dry }${stages[*]}"
} | tee -a "$out/log.txt" "$out/summary.txt"

# Unpacked beside its tests' fixtures, which they look for from there.
tar -xzf "$kit/kit.tar.gz" -C "$work" || { say "run.sh: $kit/kit.tar.gz cannot be unpacked"; exit 1; }
# What earlier calls trained stays in the archive.
if [ -s "$out/runs.tar.gz" ] && ! tar -xzf "$out/runs.tar.gz" -C "$work"; then
    say "run.sh: $out/runs.tar.gz cannot be read: it is kept as runs-unread.tar.gz"
    mv "$out/runs.tar.gz" "$out/runs-unread.tar.gz"
fi
export LTRAIN_FIXTURES=$work/tests/fixtures LTRAIN_CACHE=$work/cache NO_COLOR=1 COLUMNS=130
[ -n "$dry" ] || export LTRAIN_BACKENDS=cuda
ltrain=$work/bin/ltrain
[ -z "$seconds" ] || deadline=$seconds

run 60 "$ltrain" doctor
doctor=$?
found=$(sed -n 's/^device *//p' "$work/output")
reason=
if [ -z "$dry" ]; then
    case $found in
    gpu*)
        echo "device $found" >>"$out/summary.txt"
        if command -v nvidia-smi >/dev/null; then
            nvidia-smi --query-gpu=timestamp,name,driver_version,clocks.sm,clocks.mem,power.draw,temperature.gpu,memory.used \
                --format=csv --loop=5 >>"$out/gpu.csv" 2>/dev/null &
            smi=$!
        fi
        ;;
    '') reason="ltrain doctor does not run" ;;
    *) reason="no GPU: ${found#cpu }" ;;
    esac
fi

failed=0
while [ ${#stages[@]} -gt 0 ]; do
    stage=${stages[0]}
    stages=("${stages[@]:1}")
    before=$SECONDS
    say ""
    say "==> $stage"
    if [ -n "$seconds" ]; then
        # compare takes moments.
        others=("${stages[@]/compare/}")
        [ -n "${others[*]// /}" ] && deadline=$((SECONDS + (seconds - SECONDS) / 2)) || deadline=$seconds
    fi
    if [ -n "$reason" ] && [ "$stage" != doctor ] && [ "$stage" != compare ]; then
        result="skipped ($reason)"
        failed=1
    else
        "stage_$stage"
        case $? in
        0) result=ok ;;
        "$skip") result=skipped ;;
        *) result=FAILED failed=1 ;;
        esac
    fi
    end_stage "$result"
done
echo
cat "$out/summary.txt"
exit $failed
