"""PyTorch's side of benches/step.rs: the same shapes, step and table, with transformers' Llama.

sdpa attention, fused AdamW, clip_grad_norm_, f32. Run by scripts/bench_cpu.sh.
"""
import argparse, json, os, resource, time

import torch
from transformers import LlamaConfig, LlamaForCausalLM

CASES = {  # name: hidden, layers, heads, kv_heads, ffn, vocab, tied, batch, seq_len
    "260k": (64, 5, 8, 4, 172, 512, True, 8, 512),
    "10m": (288, 6, 6, 6, 768, 4096, True, 8, 256),
    "134m": (768, 12, 12, 12, 2048, 32000, False, 1, 512),
    "32k-tokens": (64, 1, 8, 4, 172, 512, True, 1, 32768),
}


def measure(name, seconds):
    hidden, layers, heads, kv_heads, ffn, vocab, tied, batch, seq_len = CASES[name]
    torch.manual_seed(1)
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=vocab, hidden_size=hidden, intermediate_size=ffn, num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=kv_heads, max_position_embeddings=seq_len, rms_norm_eps=1e-5, tie_word_embeddings=tied,
        attn_implementation="sdpa", use_cache=False)).float()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    ids = torch.tensor([(n * 2654435761) % 2**32 % vocab for n in range(batch * seq_len)]).view(batch, seq_len)

    def step():
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    step(), step()
    times, start = [], resource.getrusage(resource.RUSAGE_SELF)
    while len(times) < 3 or sum(times) < seconds:
        at = time.perf_counter()
        loss = step()
        times.append(time.perf_counter() - at)
    end = resource.getrusage(resource.RUSAGE_SELF)
    times.sort()
    at = lambda share: times[round((len(times) - 1) * share)]
    user, system = ((end.ru_utime - start.ru_utime) / len(times), (end.ru_stime - start.ru_stime) / len(times))
    return dict(who="torch", waits=os.environ.get("OMP_WAIT_POLICY"), case=name, tokens=batch * seq_len, steps=len(times), median_s=at(0.5), p90_s=at(0.9), best_s=times[0],
                cpu_s=user + system, sys_s=system, peak_mib=end.ru_maxrss / 1024, loss=loss)


parser = argparse.ArgumentParser()
parser.add_argument("--only", action="append", choices=list(CASES))
parser.add_argument("--seconds", type=float, default=6.0)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--json")
args = parser.parse_args()
torch.set_num_threads(args.threads)
print("case          tokens   steps   median ms   p90 ms   best ms   cpu ms (user+sys)   tokens/s   peak MiB")
for name in args.only or [n for n in CASES if n != "32k-tokens"]:
    m = measure(name, args.seconds)
    print(f"{name:<12} {m['tokens']:>7} {m['steps']:>7} {1e3*m['median_s']:>11.1f} {1e3*m['p90_s']:>8.1f} {1e3*m['best_s']:>9.1f} "
          f"{1e3*(m['cpu_s']-m['sys_s']):>9.1f} + {1e3*m['sys_s']:<7.1f} {m['tokens']/m['median_s']:>10.0f} {m['peak_mib']:>10.0f}", flush=True)
    if args.json:
        with open(args.json, "a") as file:
            file.write(json.dumps(m) + "\n")
