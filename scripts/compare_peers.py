#!/usr/bin/env python3
"""Joins what `ltrain bench --json` and benches/peers/torch_gpu.py wrote: one row per op and size, against the fastest peer.

    scripts/compare_peers.py OURS.jsonl PEERS.jsonl [MORE.jsonl...] > table.md

A ratio above 1 means that ltrain is faster. The share of the limit is of the larger of both sides' own copy or matrix product,
measured in the same runs. Where a file has a row twice, the later one counts. It fails when no row could be compared.
"""
import json, math, sys


def read(paths):
    devices, ours, peers = [], {}, {}
    for path in paths:
        for number, line in enumerate(open(path), 1):
            try:
                row = json.loads(line)
            except ValueError:
                # The last line of a run that was cut off.
                print(f"{path}:{number}: not JSON, left out", file=sys.stderr)
                continue
            if "op" not in row:
                devices.append(", ".join(f"{key} {value}" for key, value in row.items() if value is not None))
                continue
            key = (row["op"], row["model"], row["tokens"])
            if row["who"] == "ltrain":
                ours[key] = row
            else:
                peers.setdefault(key, {})[row["peer"]] = row
    return devices, ours, peers


def rate(row):
    return row.get("flops", row.get("bytes")) / row["median_s"]


def shown(row):
    if "median_s" not in row:
        return "–"
    if "flops" in row:
        return f"{rate(row) / 1e12:,.0f} TFLOP/s"
    return f"{rate(row) / 1e9:,.0f} GB/s"


def time(row):
    for unit, factor in (("us", 1e6), ("ms", 1e3)):
        if row["median_s"] * factor < 1000:
            return f"{row['median_s'] * factor:.3g} {unit}"
    return f"{row['median_s']:.3g} s"


def without_time(row):
    for reason in ("skipped", "wrong", "refused", "failed"):
        if reason in row:
            return reason
    return "–"


def length(tokens):
    return "–" if tokens == 0 else f"{tokens // 1024}k" if tokens % 1024 == 0 else str(tokens)


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__.strip())
    devices, ours, peers = read(sys.argv[1:])
    limits = {}
    for op in ("copy", "gemm"):
        rows = [r for k, r in ours.items() if k[0] == op] + [r for k, p in peers.items() if k[0] == op for r in p.values()]
        limits[op] = max((rate(r) for r in rows if "median_s" in r), default=None)
    print("\n".join(f"- {device}" for device in devices))
    for op, unit, factor in (("copy", "GB/s", 1e9), ("gemm", "TFLOP/s", 1e12)):
        if limits[op]:
            print(f"- limit: {op} {limits[op] / factor:,.0f} {unit}")
    print("\n| op | model | tokens | ltrain | rate | of the limit | best peer | its time | ratio |")
    print("|---|---|---|---|---|---|---|---|---|")
    ratios = []
    for key, row in ours.items():
        op, model, tokens = key
        timed = [p for p in peers.get(key, {}).values() if "median_s" in p]
        best = min(timed, key=lambda p: p["median_s"], default=None)
        if "median_s" in row:
            limit = limits["gemm" if "flops" in row else "copy"]
            mine = [time(row), shown(row), f"{rate(row) / limit:.0%}" if limit else "–"]
        else:
            mine = [without_time(row), "–", "–"]
        theirs = [best["peer"], time(best)] if best else ["–", "–"]
        ratio = best["median_s"] / row["median_s"] if best and "median_s" in row else None
        if ratio and op not in ("copy", "gemm"):
            ratios.append((ratio, f"{op} {model} {length(tokens)}"))
        print("| " + " | ".join([op, model, length(tokens), *mine, *theirs, f"{ratio:.2f}" if ratio else "–"]) + " |")
    if ratios:
        mean = math.exp(sum(math.log(r) for r, _ in ratios) / len(ratios))
        worst, where = min(ratios)
        print(f"\n{len(ratios)} ratios: geometric mean {mean:.2f}, worst {worst:.2f} ({where})")
    unmatched = sorted({key[0] for key in peers if key not in ours})
    if unmatched:
        print(f"\nPeers without a row of ours: {', '.join(unmatched)}")
    failed = sorted({f"{key[0]} by {name} ({row['failed']})" for key, p in peers.items() for name, row in p.items() if "failed" in row})
    if failed:
        print("\nPeers that failed:\n\n" + "\n".join(f"- {line}" for line in failed))
    if not ratios:
        sys.exit("compare_peers.py: no row is timed on both sides")


main()
