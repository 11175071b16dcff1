#!/bin/sh
# The study of docs/study.md: every method on the built-in model, with equal tokens, several seeds, two targets.
#
#   scripts/study.sh [WORK]            everything, into docs/results/study; a few hours on two cores
#   TARGETS=2048 SEEDS=1 METHODS='pose uniform' scripts/study.sh
#
# Can be stopped at any time: what has its result is not done again, and a training that was begun goes on. WORK (target/study) holds the
# models, which nobody needs afterwards.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
work=${1:-$root/target/study}
results=${RESULTS:-$root/docs/results/study}
tokens=${TOKENS:-819200}
ltrain=${LTRAIN:-$root/target/release/ltrain}
mkdir -p "$work" "$results"
work=$(cd "$work" && pwd) results=$(cd "$results" && pwd)
case $ltrain in /*) ;; *) ltrain=$PWD/$ltrain ;; esac
[ -x "$ltrain" ] || (cd "$root" && cargo build --release)

# Which methods a target has; the fewer are those whose difference matters at any length.
methods() {
    few="untrained contiguous pose pose-3 uniform endprompt mix random e2-llm contiguous-long pose-long uniform-long longrecipe full-length s2"
    case $1 in
        2048) echo "$few longlora contiguous-short pose-short" ;;
        8192) echo "$few pose-large" ;;
        *) echo "study.sh: targets are 2048 and 8192" >&2; exit 2 ;;
    esac
}

# Flags of a method. The rotation is YaRN, ltrain's default, where a method does not bring its own.
flags() {
    case $1 in
        contiguous*) echo "--positions natural --rope yarn" ;;
        full-length) echo "--method full-length --rope yarn" ;;
        s2) echo "--method full-length --rope yarn --attention s2" ;;
        longlora) echo "--method longlora --rope yarn" ;;
        pose|pose-long|pose-large|pose-short) echo "--method pose" ;;
        pose-3) echo "--method pose --pose-chunks 3" ;;
        longrecipe) echo "--method longrecipe --rope yarn" ;;
        mix) echo "--positions mix:natural=15,pose=40,uniform=45" ;;
        uniform*) echo "--method uniform" ;;
        random|e2-llm|endprompt) echo "--method $1" ;;
        *) echo "study.sh: no method called $1" >&2; exit 2 ;;
    esac
}

# Tokens of a method's rows at a target.
row() {
    case $1 in
        full-length|s2|longlora) echo "$2" ;;
        longrecipe|*-long|*-large) echo $(($2 * 3 / 10)) ;;
        *) echo 256 ;;
    esac
}

# Rows of a step: 4,096 tokens or as near to it as whole rows come, or as many tokens as a row of the target has.
rows() {
    tokens_of_step=4096
    case $1 in *-large) tokens_of_step=$2 ;; esac
    rows=$((tokens_of_step / $(row "$1" "$2")))
    [ "$rows" -ge 1 ] || rows=1
    echo "$rows"
}

# Tokens of a document that rows are taken from: all methods read the same text but those that are asked what short text is worth.
document() {
    case $1 in
        *-short) echo 256 ;;
        *) echo "$2" ;;
    esac
}

# measure MODEL TARGET LENGTHS RESULT [FLAGS]: loss by length and position, retrieval among eight distractors by length and depth. At the
# target the depths are distances, from the value to where it is asked for, of 256 tokens, half of the target, the target less 256, less
# 64 and less 16: a distance D is the depth (T - 6 - D) / (T - 12), as data/synthetic/probe.rs counts.
measure() {
    of=$1 at=$3 to=$4
    case $2 in
        2048) depths=0.8772102,0.5,0.1227898,0.0284872,0.0049116 samples=40 ;;
        8192) depths=0.9694377,0.5,0.0305623,0.0070905,0.0012225 samples=12 ;;
    esac
    shift 4
    # From the folder of the models: records name no path of this machine.
    (cd "$work" && "$ltrain" eval "$of" --at "$at" --tasks ppl,niah --distractors 8 --samples "$samples" --depths "$depths" \
        --windows 24 --seed 1 "$@" --json "$to.part" >/dev/null)
    mv "$to.part" "$to"
}

# lengths TARGET: where all are measured.
lengths() {
    case $1 in
        2048) echo 256,512,1024,2048 ;;
        8192) echo 256,2048,8192 ;;
    esac
}

for target in ${TARGETS:-2048 8192}; do
    for seed in ${SEEDS:-1 2 3}; do
        for method in ${METHODS:-$(methods "$target")}; do
            result=$results/$target-$method-$seed.json
            [ -e "$result" ] && continue
            if [ "$method" = untrained ]; then
                # It has no seed.
                result=$results/$target-untrained-1.json
                [ -e "$result" ] || measure builtin:tiny "$target" "$(lengths "$target")" "$result" --rope keep,linear,ntk,yarn
                continue
            fi
            row=$(row "$method" "$target")
            rows=$(rows "$method" "$target")
            steps=$((tokens / (rows * row)))
            run=$target-$method-$seed
            echo "$(date +%T) $target $method seed $seed: $steps steps of $rows x $row tokens"
            # shellcheck disable=SC2046
            "$ltrain" $(flags "$method") --target "$target" --data "synthetic:mixed-$(document "$method" "$target")" --seq-len "$row" \
                --micro-batch "$rows" --accum 1 --steps "$steps" --seed "$seed" --eval none --no-control --export merged --keep 1 \
                --progress quiet --out "$work/$run"
            cp "$work/$run/trainer_log.jsonl" "$results/$run.log.jsonl"
            if [ "$method" = e2-llm ]; then
                # Shorter lengths under a window of their own, which is what it promises.
                for length in $(lengths "$target" | tr , ' '); do
                    [ "$length" -ge "$target" ] ||
                        measure "$run/merged" "$target" "$length" "$results/$target-e2-llm-at-$length-$seed.json" --rope "linear:$((length / 256))"
                done
            fi
            measure "$run/merged" "$target" "$(lengths "$target")" "$result"
            rm -rf "${work:?}/$run"
        done
    done
done
