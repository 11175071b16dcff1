#!/bin/sh
# The runs behind README's tables, and its command per paper, on the built-in model and on stories260K; into docs/results/runs.
#
#   scripts/results.sh SHARED [WORK]   SHARED has models/stories260k and data; about 20 minutes on two cores
#   ONLY='tiny tiny-e2-llm' scripts/results.sh SHARED
#
# A run has NAME.txt, the command and what it printed, and NAME.json, the part of its report.json that has figures. What has its result
# is not done again.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
shared=$(cd "$1" && pwd)
work=${2:-$root/target/results}
results=$root/docs/results/runs
ltrain=${LTRAIN:-$root/target/release/ltrain}
mkdir -p "$work" "$results"
case $ltrain in /*) ;; *) ltrain=$PWD/$ltrain ;; esac
[ -x "$ltrain" ] || (cd "$root" && cargo build --release)
# From a folder with short names: records name no path of this machine.
cd "$work"
mkdir -p bin
ln -sfn "$ltrain" bin/ltrain
PATH=$PWD/bin:$PATH
for file in "$shared"/models/stories260k "$shared"/data/*.txt; do ln -sfn "$file" .; done

# figures RUN: what its report has of them.
figures() {
    python3 - "$1/report.json" <<'END'
import json, sys

report = json.load(open(sys.argv[1]))
origin = {key: report["origin"][key] for key in ("command", "version", "device", "date", "seed")}
print(json.dumps({"origin": origin, **{key: report[key] for key in ("model", "method", "notes", "evaluations")}}, indent=1))
END
}

# run NAME RUN WORDS…: ltrain with these words, whose report is in the folder RUN.
run() {
    run_name=$1 run_folder=$2
    shift 2
    case " ${ONLY:-$run_name} " in *" $run_name "*) ;; *) return 0 ;; esac
    [ -e "$results/$run_name.json" ] && return 0
    echo "$(date +%T) $run_name"
    ltrain "$@" >"$run_name.log" 2>&1
    # Without the lines that only show that it is alive.
    (echo "\$ ltrain $*" && grep -Ev '^(step|evaluate|eval) ' "$run_name.log") >"$run_name.txt"
    figures "$run_folder" >"$run_name.json"
    mv "$run_name.txt" "$run_name.json" "$results"
}

# both NAME WORDS…: a paper's command, on both models.
both() {
    method=$1
    shift
    run "tiny-$method" "runs/tiny-$method" "$@" --out "runs/tiny-$method"
    # shellcheck disable=SC2086
    run "stories-$method" "runs/stories-$method" "$@" $stories --steps 200 --out "runs/stories-$method"
}

stories="--model stories260k --data stories-sampled.txt --eval-data tinystories-valid-30k.txt --target 8k"

# README's first command, and its table of stories260K.
run tiny runs/tiny --out runs/tiny
# shellcheck disable=SC2086
{
    run stories-adapters runs/adapters $stories --train lora --lora-targets q,k --rank 32 --lr 3e-3 --out runs/adapters
    run stories-adapters-512 runs/adapters-512 $stories --train lora --lora-targets q,k --rank 32 --lr 3e-3 --seq-len 512 --out runs/adapters-512
    run stories-full runs/full $stories --out runs/full
    run stories-none runs/none $stories --positions natural --rope keep --seq-len 512 --out runs/none
}
# A command per paper.
both pose --method pose
both e2-llm --method e2-llm
both longlora --method longlora
both endprompt --method endprompt
run tiny-longrecipe runs/tiny-longrecipe/extend longrecipe --replay-data synthetic:mixed-2048 --out runs/tiny-longrecipe
# shellcheck disable=SC2086
run stories-longrecipe runs/stories-longrecipe/extend longrecipe $stories --steps 200 --replay-data stories-sampled.txt --out runs/stories-longrecipe
