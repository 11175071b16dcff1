#!/usr/bin/env python3
"""Checks what training runs left behind, and says it in a line each; fails where it is not as it should be.

    check_runs.py same RUN CPU_RUN          do losses and perplexities agree with those of the same run on the CPU?
    check_runs.py rate RUN PLAN CONFIG LENGTH DEVICE
                                            how fast was it, and did it take the memory that `ltrain plan` said?

A run is its folder, PLAN what `ltrain plan` printed, CONFIG the model's config.json, LENGTH that of a row, such as 4k, DEVICE its name.
Needs nothing but Python.
"""
import json, re, statistics, sys
from pathlib import Path

# bf16 on a GPU against f32 on a CPU, as shares. Both runs see the same tokens in the same order. On the CPU, a run of 150 steps whose
# weights were off by up to one unit of bf16 at the start had losses off by 0.48 %, their mean by 0.06 %, perplexities by 0.18 %. On a
# GPU every activation is rounded, too: some four times that.
EACH, MEAN, PERPLEXITY = 0.02, 0.005, 0.01
# Planned and measured bytes: both count the same allocations.
MEMORY = 0.02
# Dense bf16 in TFLOP/s, by a part of the device's name. Cards with another form factor have other clocks and are not named here.
PEAKS = {"H200": 989, "H100": 989, "A100": 312}
OTHERS = ("NVL", "H100 PCIe")


def report(run):
    path = Path(run) / "report.json"
    if not path.exists():
        sys.exit(f"{Path(run).name}: it left no report.json")
    return json.loads(path.read_text())


def perplexities(record, role):
    """By length, of the base or the result."""
    found = [e for e in record["evaluations"] if e["role"] == role]
    return {score["length"]: score["ppl"] for score in (found[-1]["perplexity"] if found else [])}


def off(got, want):
    """Relative differences; infinite where one is missing or not finite."""
    def one(a, b):
        share = abs(a - b) / abs(b) if a is not None and b else float("inf")
        return share if share == share else float("inf")
    return [one(got.get(key), want[key]) for key in want]


def same(run, cpu_run):
    name = Path(run).name
    gpu, cpu = report(run), report(cpu_run)
    losses = [{step["step"]: step["loss"] for step in record["steps"]} for record in (gpu, cpu)]
    each, before, after = off(*losses), *(off(perplexities(gpu, role), perplexities(cpu, role)) for role in ("before", "after"))
    means = [statistics.fmean(v for v in values.values() if v is not None) if values else None for values in losses]
    found = {
        f"{len(each)} losses": (max(each, default=None), EACH),
        "their mean": (off({0: means[0]}, {0: means[1]})[0], MEAN),
        "perplexity before": (max(before, default=None), PERPLEXITY),
        "perplexity after": (max(after, default=None), PERPLEXITY),
    }
    wrong = [what for what, (share, allowed) in found.items() if share is None or share > allowed]
    told = [f"{what} " + ("not measured" if share is None else f"{share:.2%} of {allowed:.1%}") for what, (share, allowed) in found.items()]
    print(f"{name}: off the CPU's by: {', '.join(told)}" + (f"; WRONG: {', '.join(wrong)}" if wrong else ""))
    return not wrong


def flops_per_token(c, length):
    """Of LoRA training without what is computed twice: forward, and back to the inputs; frozen weights have no gradients. 2 operations
    per parameter and pass, so 4 x (linear + head), and 3.5 x the forward pass of attention, which takes 2 products, and 5 back.
    Adapters, below a hundredth of it, do not count."""
    hidden, layers = c["hidden_size"], c["num_hidden_layers"]
    q, kv = c["num_attention_heads"] * c["head_dim"], c["num_key_value_heads"] * c["head_dim"]
    linear = layers * hidden * (2 * q + 2 * kv + 3 * c["intermediate_size"])
    attention = layers * 4 * q * (length + 1) / 2
    return 4 * (linear + c["vocab_size"] * hidden) + 3.5 * attention


def rate(run, plan, config, length, device):
    name, log = Path(run).name, Path(run) / "trainer_log.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    # The first step warms up.
    speeds = [line["throughput"] for line in lines if line.get("throughput")][1:]
    if not speeds:
        sys.exit(f"{name}: it logged no second step")
    speed = statistics.median(speeds)
    tokens = int(length.removesuffix("k")) * (1024 if length.endswith("k") else 1)
    flops = speed * flops_per_token(json.loads(Path(config).read_text()), tokens) / 1e12
    told = f"{name}: {speed:,.0f} tokens/s, {flops:,.1f} TFLOP/s of the model"
    peak = next((peak for part, peak in PEAKS.items() if part in device and not any(other in device for other in OTHERS)), None)
    if peak:
        told += f", {flops / peak:.1%} of {peak}"
    found = re.search(r"^peak ([\d.,]+) ([KMGT]i)?B: (.*)$", Path(plan).read_text(), re.M)
    if not found:
        sys.exit(f"{told}; ltrain plan named no peak")
    planned = float(found[1].replace(",", "")) * 1024 ** {None: 0, "Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4}[found[2]]
    measured = max(line["vram_peak_gib"] for line in lines if "vram_peak_gib" in line) * 2**30
    if device.startswith("cpu"):
        print(f"{told}; planned {planned / 2**30:.2f} GiB, on a GPU")
        return True
    share = measured / planned - 1
    fits = abs(share) <= MEMORY
    print(f"{told}; planned {planned / 2**30:.2f} GiB ({found[3]}), measured {measured / 2**30:.2f} GiB, {share:+.1%}" + ("" if fits else "; WRONG"))
    return fits


def main():
    match sys.argv[1:]:
        case ["same", run, cpu_run]:
            right = same(run, cpu_run)
        case ["rate", run, plan, config, length, device]:
            right = rate(run, plan, config, length, device)
        case _:
            sys.exit(__doc__.strip())
    sys.exit(not right)


main()
