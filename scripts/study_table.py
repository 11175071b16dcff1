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
# In the order of the tables, with what a row of theirs is made of.
ROWS = {"full-length": 1.0, "s2": 1.0, "longlora": 1.0, "longrecipe": 0.3, "contiguous-long": 0.3, "pose-long": 0.3, "pose-large": 0.3, "uniform-long": 0.3}
METHODS = (
    "untrained-keep untrained-linear untrained-ntk untrained-yarn contiguous random pose pose-3 uniform mix endprompt e2-llm "
    "contiguous-long pose-long pose-large uniform-long longrecipe full-length s2 longlora contiguous-short pose-short"
).split()
CONTEXT = 256
# Of the plot of losses, with their colours.
LINES = {
    "untrained-yarn": "#8a8f98", "contiguous": "#b97900", "pose": "#0068ad", "uniform": "#c04a00", "e2-llm": "#b0508a",
    "pose-long": "#00805c", "full-length": "#7a3fd1",
}
STYLE = """<style>text{fill:#333}.line{stroke:#ddd}.mark{stroke:#000}
@media(prefers-color-scheme:dark){text{fill:#ccc}.line{stroke:#333}.mark{stroke:#fff}}</style>"""


def error(values):
    """Standard error over seeds; NaN for one."""
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan


def show(values, digits, scale=1.0):
    values = [scale * v for v in values if v is not None]
    if not values:
        return "–"
    spread = error(values)
    return f"{statistics.fmean(values):.{digits}f}" + (f" ± {spread:.{digits}f}" if not math.isnan(spread) else "")


def records():
    """target -> method -> one measurement per seed. E2-LLM's of a length that has a window of its own are in `at`."""
    found, at = {}, {}
    for path in sorted(folder.glob("*.json")):
        target, method = path.stem.split("-", 1)
        method, seed = method.rsplit("-", 1)
        for record in json.loads(path.read_text()):
            name = method
            if method == "untrained":
                rope = record["rope"]
                kind = next((k for k in ("linear", "yarn") if k in rope), None)
                name = f"untrained-{kind or ('keep' if rope == 'theta 10000' else 'ntk')}"
            if "-at-" in method:
                at.setdefault((int(target), int(seed)), {})[int(method.rsplit("-", 1)[1])] = record
            else:
                found.setdefault(int(target), {}).setdefault(name, []).append({**record, "seed": int(seed)})
    for (target, seed), windows in at.items():
        for record in found.get(target, {}).get("e2-llm", []):
            if record["seed"] == seed:
                record["windows"] = windows
    return found


def nll(record, length):
    record = record.get("windows", {}).get(length, record)
    return next((s["nll"] for s in record["perplexity"] if s["length"] == length), None)


def found_at(record, length, depth=None):
    """Share of the answers that were found at a length, at one depth or at all."""
    grid = record.get("windows", {}).get(length, record)["niah"]
    column = grid["lengths"].index(length)
    rows = range(len(grid["depths"])) if depth is None else [depth]
    return statistics.fmean([grid["accuracy"][row][column] for row in rows])


def distance(length, depth):
    """Tokens from a fact to its question (src/data/synthetic/probe.rs)."""
    return length - 6 - round(depth * (length - 12))


def rate(target, method):
    """Tokens per second: the median of a training, of the fastest one, because whatever else a machine does makes it slower."""
    medians = []
    for path in folder.glob(f"{target}-{method}-*.log.jsonl"):
        # `pose` must not take what is `pose-3`'s.
        if path.name.removeprefix(f"{target}-{method}-").split(".")[0].isdigit():
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            medians.append(statistics.median(line["throughput"] for line in lines if "throughput" in line))
    return f"{max(medians) / 1000:.1f}k" if medians else "–"


def table(target, found):
    quarter = target // 4
    yield f"### 256 to {target}\n"
    yield (
        f"| method | row | tokens/s | seeds | loss at 256 | at {quarter} | at {target} | in its last half "
        f"| found at 256 | at {quarter} | at {target} |"
    )
    yield "|---" * 11 + "|"
    for method in METHODS:
        if method not in found:
            continue
        seeds = found[method]
        row = "–" if method.startswith("untrained") else int(ROWS[method] * target) if method in ROWS else CONTEXT
        last = [max(r["buckets"], key=lambda b: b["lo"])["nll"] for r in seeds]
        cells = [show([nll(r, n) for r in seeds], 3) for n in (CONTEXT, quarter, target)] + [show(last, 3)]
        cells += [show([found_at(r, n) for r in seeds], 0, 100) for n in (CONTEXT, quarter, target)]
        yield f"| {method} | {row} | {rate(target, method)} | {len(seeds)} | " + " | ".join(cells) + " |"
    grid = next(iter(found.values()))[0]["niah"]
    yield f"\nFound at {target}, by the distance from the fact to its question:\n"
    yield "| method | " + " | ".join(str(distance(target, depth)) for depth in grid["depths"]) + " |"
    yield "|---" * (1 + len(grid["depths"])) + "|"
    for method in METHODS:
        if method in found:
            cells = [show([found_at(r, target, i) for r in found[method]], 0, 100) for i in range(len(grid["depths"]))]
            yield f"| {method} | " + " | ".join(cells) + " |"
    yield ""


def svg(name, width, height, body):
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="11">'
    (folder / name).write_text("\n".join([head, STYLE, *body, "</svg>", ""]))


def text(x, y, words, anchor="start", more=""):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{more}>{words}</text>'


def bars(target, found):
    """Retrieval at the target, with standard errors over seeds."""
    methods = [m for m in METHODS if m in found]
    left, width, height = 120, 620, 20
    scale = (width - left - 60) / 100
    body = [text(left, 14, f"found among eight distractors at {target} tokens (mean and standard error of seeds)")]
    for i, method in enumerate(methods):
        values = [100 * found_at(r, target) for r in found[method]]
        y, at, spread = 24 + i * height, statistics.fmean(values), error(values)
        colour = "#999" if method.startswith("untrained") else "#00805c" if method in ROWS else "#0068ad"
        body.append(text(left - 6, y + 13, method, "end"))
        body.append(f'<rect x="{left}" y="{y + 3}" width="{max(at * scale, 0.5):.1f}" height="{height - 6}" fill="{colour}"/>')
        spread = 0 if math.isnan(spread) else spread * scale
        if spread:
            body.append(f'<path class="mark" d="M{left + at * scale - spread:.1f} {y + 10}h{2 * spread:.1f}"/>')
        body.append(text(left + at * scale + spread + 6, y + 13, f"{at:.0f} %"))
    svg(f"retrieval-{target}.svg", width, 30 + height * len(methods), body)


def heat(target, found):
    """Retrieval by length and distance: a row per method."""
    methods = [m for m in METHODS if m in found]
    grid = next(iter(found.values()))[0]["niah"]
    cells = [(n, i) for n in grid["lengths"] if n > CONTEXT for i in range(len(grid["depths"]))]
    left, cell, height = 120, 40, 18
    x = lambda k: left + k * cell + 8 * (k // len(grid["depths"]))
    body = [text(left, 12, "found, in per cent, by length of the text and distance of the fact")]
    for k, (length, i) in enumerate(cells):
        if i == 0:
            body.append(text(x(k), 30, f"{length} tokens"))
        body.append(text(x(k) + cell / 2, 44, distance(length, grid["depths"][i]), "middle"))
    for m, method in enumerate(methods):
        y = 50 + m * height
        body.append(text(left - 6, y + 13, method, "end"))
        for k, (length, i) in enumerate(cells):
            value = statistics.fmean(found_at(r, length, i) for r in found[method])
            body.append(f'<rect x="{x(k)}" y="{y}" width="{cell - 1}" height="{height - 1}" fill="#0b4f96" fill-opacity="{value:.2f}"/>')
            more = ' style="fill:#fff"' if value > 0.5 else ""
            body.append(text(x(k) + cell / 2, y + 13, f"{100 * value:.0f}", "middle", more))
    svg(f"distances-{target}.svg", x(len(cells)), 56 + height * len(methods), body)


def losses(target, found):
    """Loss by position at the target, in buckets that double."""
    methods = [m for m in LINES if m in found]
    curves = {}
    for method in methods:
        by_place = {}
        for record in found[method]:
            for bucket in record["buckets"]:
                if bucket["lo"] >= 32:
                    by_place.setdefault(bucket["lo"], []).append(bucket["nll"])
        curves[method] = {lo: statistics.fmean(values) for lo, values in sorted(by_place.items())}
    places = sorted(next(iter(curves.values())))
    low, high = min(min(c.values()) for c in curves.values()), max(max(c.values()) for c in curves.values())
    left, top, width, height = 46, 24, 470, 280
    x = lambda lo: left + width * places.index(lo) / (len(places) - 1)
    y = lambda v: top + height * (high - v) / (high - low)
    body = [text(left, 14, f"loss by position in texts of {target} tokens, nats per token")]
    for tick in range(math.ceil(low * 5), math.floor(high * 5) + 1):
        body.append(f'<path class="line" d="M{left} {y(tick / 5):.1f}h{width}"/>')
        body.append(text(left - 6, y(tick / 5) + 4, f"{tick / 5:.1f}", "end"))
    body += [text(x(lo), top + height + 26, f"{lo}+", "middle") for lo in places]
    # Names at the right, apart from each other.
    at = -math.inf
    for method in sorted(methods, key=lambda m: y(curves[m][places[-1]])):
        points = " ".join(f"{x(lo):.1f},{y(v):.1f}" for lo, v in curves[method].items())
        body.append(f'<polyline points="{points}" fill="none" stroke="{LINES[method]}" stroke-width="2"/>')
        at = max(at + 13, y(curves[method][places[-1]]) + 4)
        body.append(text(left + width + 8, at, method, more=f' style="fill:{LINES[method]}"'))
    svg(f"loss-{target}.svg", left + width + 120, top + height + 34, body)


if __name__ == "__main__":
    for target, found in sorted(records().items()):
        print("\n".join(table(target, found)))
        bars(target, found)
        heat(target, found)
        losses(target, found)
