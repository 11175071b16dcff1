#!/bin/sh
# The runs behind README's tables and its command per paper, on the built-in model and on stories260K, into docs/results/runs.
#
#   scripts/results.sh SHARED [WORK]   SHARED has models/stories260k and data; 20 to 30 minutes on two cores
#   ONLY='tiny-pose tiny-e2-llm' scripts/results.sh SHARED
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
[ -x "$ltrain" ] || (cd "$root" && cargo build --release)
# From a folder with short names: records name no path of this machine.
cd "$work"
for file in "$shared"/models/stories260k "$shared"/data/*.txt; do ln -sfn "$file" .; done

# record NAME RUN: the figures of a run's report.
record() {
    python3 - "$2/report.json" >"$results/$1.json" <<'END'
import json, sys

report = json.load(open(sys.argv[1]))
origin = {key: report["origin"][key] for key in ("command", "version", "device", "date", "seed")}
print(json.dumps({"origin": origin, **{key: report[key] for key in ("model", "method", "notes", "evaluations")}}, indent=1))
END
}

# run NAME RUN WORDS…: ltrain with these words, whose report is in the folder RUN.
run() {
    name=$1 folder=$2
    shift 2
    case " ${ONLY:-$name} " in *" $name "*) ;; *) return 0 ;; esac
    [ -e "$results/$name.json" ] && return 0
    echo "$(date +%T) $name"
    (echo "$ ltrain $*" && "$ltrain" "$@" --progress quiet 2>&1) >"$name.txt"
    record "$name" "$folder"
    cp "$name.txt" "$results/$name.txt"
}

# both NAME WORDS…: one command per paper, on both models.
both() {
    name=$1
    shift
    run "tiny-$name" "runs/tiny-$name" "$@" --out "runs/tiny-$name"
    run "stories-$name" "runs/stories-$name" "$@" $stories --out "runs/stories-$name"
}

stories="--model stories260k --data stories-sampled.txt --eval-data tinystories-valid-30k.txt --target 8k"
adapters="--train lora --lora-targets q,k --rank 32 --lr 3e-3"

# shellcheck disable=SC2086
{
    # README's first command, and its table of stories260K.
    run tiny runs/tiny --out runs/tiny
    run stories-adapters runs/stories-adapters $stories $adapters --out runs/stories-adapters
    run stories-full runs/stories-full $stories --out runs/stories-full
    run stories-none runs/stories-none $stories --positions natural --rope keep --out runs/stories-none
    # A command per paper.
    both pose --method pose
    both e2-llm --method e2-llm
    both longlora --method longlora
    both endprompt --method endprompt
    run tiny-longrecipe runs/tiny-longrecipe/extend longrecipe --replay-data synthetic:mixed-2048 --out runs/tiny-longrecipe
    run stories-longrecipe runs/stories-longrecipe/extend longrecipe $stories --replay-data stories-sampled.txt --out runs/stories-longrecipe
}
