#!/usr/bin/env python3
"""Tables and plots of docs/study.md from what scripts/study.sh recorded. Standard library only.

    scripts/study_table.py [docs/results/study]      # Markdown to stdout, *.svg into the folder
"""
import json
import math
import statistics
import sys
from pathlib import Path

folder = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent.parent / "docs/results/study")
ORDER = (
    "untrained-keep untrained-linear untrained-ntk untrained-yarn contiguous full-length s2 longlora random pose pose-3 pose-linear e2-llm "
    "longrecipe longrecipe-yarn endprompt uniform mix retrieval pose-long uniform-long"
).split()
DISTANCES = {2048: ["256", "1024", "1792", "1984", "2032"], 8192: ["256", "4096", "7936", "8128", "8176"]}


def error(values):
    """Standard error over seeds; nothing for one."""
    if len(values) < 2:
        return math.nan
    return statistics.stdev(values) / math.sqrt(len(values))


def show(values, digits, scale=1.0):
    values = [scale * v for v in values if v is not None]
    if not values:
        return "–"
    spread = error(values)
    return f"{statistics.fmean(values):.{digits}f}" + (f" ± {spread:.{digits}f}" if not math.isnan(spread) else "")


def records():
    """(target, method) -> evaluation records, one per seed."""
    found = {}
    for path in sorted(folder.glob("*.json")):
        target, method = path.stem.split("-", 1)
        method, _seed = method.rsplit("-", 1)
        for record in json.loads(path.read_text()):
            name = method
            if method == "untrained":
                rope = record["rope"]
                kind = next((k for k in ("linear", "yarn") if k in rope), None)
                name = f"untrained-{kind or ('keep' if rope == 'theta 10000' else 'ntk')}"
            found.setdefault((int(target), name), []).append(record)
    return found


def nll(record, length):
    return next((s["nll"] for s in record["perplexity"] if s["length"] == length), None)


def found_at(record, length, depth=None):
    grid = record.get("niah")
    if not grid or length not in grid["lengths"]:
        return None
    column = grid["lengths"].index(length)
    rows = range(len(grid["depths"])) if depth is None else [depth]
    return statistics.fmean([grid["accuracy"][row][column] for row in rows])


def rate(target, method):
    """Tokens per second: the median of a training, of the fastest one, because whatever else a machine does makes it slower."""
    medians = []
    for path in sorted(folder.glob(f"{target}-{method}-*.log.jsonl")):
        # `pose` must not take what is `pose-3`'s.
        if path.name.removeprefix(f"{target}-{method}-").split(".")[0].isdigit():
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            steps = [line for line in lines if "throughput" in line]
            medians.append(statistics.median(line["throughput"] for line in steps))
    return f"{max(medians):.0f}" if medians else "–"


def table(target, found):
    quarter = target // 4
    methods = [m for m in ORDER if (target, m) in found]
    yield f"### 256 to {target}\n"
    yield f"| method | seeds | loss at 256 | at {quarter} | at {target} | last half of {target} | found at 256 | at {quarter} | at {target} | tokens/s |"
    yield "|---" * 10 + "|"
    for method in methods:
        rows = found[target, method]
        last = [max(r["buckets"], key=lambda b: b["lo"])["nll"] for r in rows]
        cells = [show([nll(r, n) for r in rows], 3) for n in (256, quarter, target)]
        cells += [show(last, 3)] + [show([found_at(r, n) for r in rows], 0, 100) for n in (256, quarter, target)]
        cells += [rate(target, method)]
        yield f"| {method} | {len(rows)} | " + " | ".join(cells) + " |"
    yield f"\nFound at {target}, by the distance from the question to the fact:\n"
    yield "| method | " + " | ".join(DISTANCES[target]) + " |"
    yield "|---" * 6 + "|"
    for method in methods:
        rows = found[target, method]
        # A larger depth is nearer to the question.
        order = sorted(range(len(rows[0]["niah"]["depths"])), key=lambda i: -rows[0]["niah"]["depths"][i])
        cells = [show([found_at(r, target, i) for r in rows], 0, 100) for i in order]
        yield f"| {method} | " + " | ".join(cells) + " |"
    yield ""


def plot(target, found):
    """Bars of retrieval at the target, with standard errors over seeds."""
    methods = [m for m in ORDER if (target, m) in found]
    height, left, width = 22, 130, 620
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height * len(methods) + 52}" font-family="sans-serif" font-size="12">',
        '<style>text{fill:#444}@media(prefers-color-scheme:dark){text{fill:#ccc}}</style>',
        f'<text x="{left}" y="16">found at {target} of {target} tokens, among eight distractors (mean of seeds, standard error)</text>',
    ]
    scale = (width - left - 50) / 100
    for i, method in enumerate(methods):
        values = [100 * found_at(r, target) for r in found[target, method]]
        y = 28 + i * height
        at, spread = statistics.fmean(values), error(values)
        colour = "#999" if method.startswith("untrained") else "#c60" if method in ("uniform", "mix", "retrieval") else "#27c"
        out.append(f'<text x="{left - 8}" y="{y + 14}" text-anchor="end">{method}</text>')
        out.append(f'<rect x="{left}" y="{y + 3}" width="{max(at * scale, 0.5):.1f}" height="{height - 7}" fill="{colour}"/>')
        if not math.isnan(spread):
            x, r = left + at * scale, spread * scale
            out.append(f'<path d="M{x - r:.1f} {y + 10}H{x + r:.1f}" stroke="#000" stroke-width="1.5"/>')
        out.append(f'<text x="{left + at * scale + 8 + (0 if math.isnan(spread) else spread * scale):.1f}" y="{y + 14}">{at:.0f} %</text>')
    out.append("</svg>\n")
    (folder / f"retrieval-{target}.svg").write_text("\n".join(out))


if __name__ == "__main__":
    everything = records()
    for target in sorted({target for target, _ in everything}):
        print("\n".join(table(target, everything)))
        plot(target, everything)
