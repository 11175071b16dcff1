#!/usr/bin/env python3
"""Loads what ltrain wrote with transformers and PEFT, and checks that they compute the same loss.

    python scripts/check_with_transformers.py --model runs/x/merged --text valid.txt \\
        [--adapter runs/x/adapter --base BASE] [--lengths 512,4096,8192] [--expect runs/x/report.json]

    ltrain eval merged --data valid.txt --tasks ppl --json eval.json
    python scripts/check_with_transformers.py --model merged --text valid.txt --expect eval.json

For every length the mean loss over the first (at most three) disjoint windows of the text is computed by the merged
model, by the base with the adapter on it, and read from the report's evaluation after training, or from what `ltrain eval
--json` wrote of one model under one rotation. All must agree within
--tolerance. Exit code 1 when they do not, 2 when there is nothing to compare or a file is unusable.

Needs: torch, transformers; peft for --adapter.
"""

import argparse
import json
import sys
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

WINDOWS = 3
LOGIT_ROWS = 1024  # logits held at once: a 128k vocabulary at 8k tokens would be 4 GiB


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="merged model folder")
    parser.add_argument("--text", type=Path, required=True, help="text to measure on")
    parser.add_argument("--adapter", type=Path, help="adapter folder, with base_config/config.json in it")
    parser.add_argument("--base", type=Path, help="the adapter's base model folder")
    parser.add_argument("--lengths", default="512,4096,8192", help="context lengths (default: %(default)s)")
    parser.add_argument("--expect", type=Path, help="ltrain's report.json, or what ltrain eval --json wrote")
    parser.add_argument("--no-bos", action="store_true", help="do not put the begin-of-text token before the text")
    parser.add_argument("--tolerance", type=float, default=2e-3, help="in nats per token (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: %(default)s)")
    args = parser.parse_args()
    if (args.adapter is None) != (args.base is None):
        parser.error("--adapter and --base belong together")
    if args.adapter is None and args.expect is None:
        parser.error("nothing to compare --model with: give --adapter and --base, or --expect")
    try:
        args.lengths = [int(length) for length in args.lengths.split(",")]
    except ValueError:
        parser.error(f"--lengths: expected numbers separated by commas, got {args.lengths!r}")
    if min(args.lengths) < 2:
        parser.error("--lengths: expected at least 2")
    return args


def bos_of(folder, tokenizer):
    """The tokenizer's own word counts, be it null; where it says nothing, config.json's. As ltrain."""
    settings = folder / "tokenizer_config.json"
    if settings.exists() and "bos_token" in json.loads(settings.read_text()):
        return tokenizer.bos_token_id
    return AutoConfig.from_pretrained(folder).bos_token_id


def tokens_of(folder, text_path, bos):
    """The text as one row of tokens; the begin-of-text token, if the model has one, stands in front of it once."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with open(text_path, encoding="utf-8") as file:  # text mode: \r\n becomes \n
        ids = tokenizer(file.read(), add_special_tokens=False, verbose=False)["input_ids"]
    begin = bos_of(folder, tokenizer) if bos else None
    if begin is not None:
        ids = [begin] + ids
    return torch.tensor(ids)


def merged(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def adapted(base, adapter):
    from peft import PeftModel

    config = AutoConfig.from_pretrained(adapter / "base_config")
    model = AutoModelForCausalLM.from_pretrained(base, config=config, dtype=torch.float32)
    return PeftModel.from_pretrained(model, adapter)


@torch.no_grad()
def mean_nll(model, ids, length):
    """Mean loss in nats per token. A window's first token has no context and is not scored."""
    total, tokens = 0.0, 0
    for window in ids[: len(ids) // length * length].view(-1, length)[:WINDOWS]:
        causal = model.get_base_model() if hasattr(model, "get_base_model") else model
        hidden = causal.model(window[None, :]).last_hidden_state[0, :-1]
        for rows, targets in zip(hidden.split(LOGIT_ROWS), window[1:].split(LOGIT_ROWS)):
            logits = causal.lm_head(rows).float()
            total += torch.nn.functional.cross_entropy(logits, targets, reduction="sum").double().item()
        tokens += length - 1
    return total / tokens


def measure(model, ids, lengths):
    model.eval()
    return {length: mean_nll(model, ids, length) for length in lengths}


def reported(path):
    """Losses by length of the evaluation after training, or of the only one."""
    content = json.loads(path.read_text())
    evaluations = content if isinstance(content, list) else content["evaluations"]
    after = [e for e in evaluations if e["role"] == "after"] if isinstance(content, dict) else evaluations
    if len(after) != 1:
        roles = [e["role"] for e in evaluations]
        sys.exit(f"{path}: expected one evaluation after training, or one model under one rotation; its roles are {roles}")
    return {score["length"]: score["nll"] for score in after[0]["perplexity"] if score["windows"]}


def main():
    args = arguments()
    torch.set_num_threads(args.threads)
    ids = tokens_of(args.model, args.text, bos=not args.no_bos)
    lengths = [length for length in args.lengths if length <= len(ids)]
    for length in args.lengths:
        if length not in lengths:
            print(f"skipped {length}: the text has {len(ids)} tokens")
    columns = {"merged": measure(merged(args.model), ids, lengths)}
    if args.adapter:
        columns["base + adapter"] = measure(adapted(args.base, args.adapter), ids, lengths)
    if args.expect:
        columns["ltrain"] = reported(args.expect)

    print(f"{'length':>8}" + "".join(f"{name:>16}" for name in columns) + f"{'difference':>14}")
    good, compared = True, 0
    for length in lengths:
        values = [column.get(length) for column in columns.values()]
        known = [value for value in values if value is not None]
        cells = "".join(f"{'-':>16}" if value is None else f"{value:16.6f}" for value in values)
        if len(known) < 2:
            print(f"{length:8}{cells}{'-':>14}  nothing to compare")
            continue
        compared += 1
        difference = max(known) - min(known)
        agrees = all(value == value for value in known) and difference <= args.tolerance
        good &= agrees
        print(f"{length:8}{cells}{difference:14.2e}  {'ok' if agrees else 'MISMATCH'}")
    if not compared:
        print("nothing was compared")
        return 2
    print(f"{'agree' if good else 'disagree'} within {args.tolerance:g} nats per token")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
