#!/usr/bin/env bash
# A fine-tuning step against PyTorch's on this machine's CPU, in turns, so that both meet the same load.
#   scripts/bench_cpu.sh [ROUNDS]      PYTHON: an interpreter with torch and transformers; SECONDS_PER_CASE: default 6
# Prints the medians over the rounds and their ratios; keeps them in benches/results/cpu-<date>-<time>.json.
set -euo pipefail
cd "$(dirname "$0")/.."
rounds=${1:-3}
python=${PYTHON:-python3}
seconds=${SECONDS_PER_CASE:-6}
lines=$(mktemp)
trap 'rm -f "$lines"' EXIT

cargo bench --bench step --no-run
for round in $(seq "$rounds"); do
    for case in 260k 10m 134m; do
        cargo bench --quiet --bench step -- --only "$case" --seconds "$seconds" --json "$lines" | tail -1
        # Threads of OpenMP that wait by spinning, the default, are faster on an idle machine and up to ten times slower on a
        # busy one: the faster of both counts.
        for wait in active passive; do
            OMP_WAIT_POLICY=$wait "$python" benches/peers/torch_cpu.py --only "$case" --seconds "$seconds" --json "$lines" | tail -1
        done
    done
done

out=benches/results/cpu-$(date +%Y-%m-%d-%H%M).json
"$python" - "$lines" "$out" <<'PYTHON'
import json, os, statistics, sys

lines, out = sys.argv[1:]
rows = [json.loads(line) for line in open(lines)]
waits = ("active", "passive")
for row in rows:
    if row["who"] == "torch":
        row["who"] = row["waits"]
cpu = next((l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), "?")
result = dict(cpu=cpu, threads=2, load=os.getloadavg(), cases=[])
print(f"\n{'case':<6} {'ltrain tokens/s':>16} {'torch tokens/s':>15} {'ratio':>6} {'ltrain cpu s':>13} {'torch cpu s':>12} {'ratio':>6}")
for case in dict.fromkeys(r["case"] for r in rows):
    of = lambda who, key: statistics.median(r[key] for r in rows if r["case"] == case and r["who"] == who)
    tokens = next(r["tokens"] for r in rows if r["case"] == case)
    peer = min(waits, key=lambda who: of(who, "median_s"))
    ours, theirs = (tokens / of(who, "median_s") for who in ("ltrain", peer))
    cpu_ours, cpu_theirs = (of(who, "cpu_s") for who in ("ltrain", peer))
    print(f"{case:<6} {ours:>16.0f} {theirs:>15.0f} {ours/theirs:>6.2f} {cpu_ours:>13.3f} {cpu_theirs:>12.3f} {cpu_theirs/cpu_ours:>6.2f}")
    result["cases"].append(dict(case=case, tokens=tokens, torch_waits=peer, ltrain_tokens_s=ours, torch_tokens_s=theirs, ratio=ours / theirs,
                                ltrain_cpu_s=cpu_ours, torch_cpu_s=cpu_theirs, cpu_ratio=cpu_theirs / cpu_ours,
                                ltrain_peak_mib=of("ltrain", "peak_mib"), torch_peak_mib=of(peer, "peak_mib")))
os.makedirs(os.path.dirname(out), exist_ok=True)
json.dump(result, open(out, "w"), indent=1)
print(f"\nload {result['load'][0]:.1f} at the end; written to {out}")
PYTHON
