#!/usr/bin/env python3
"""Writes a model with random bf16 weights, and text for it, as fast as the disk takes them: to measure how training runs, not
what it learns.

    random_model.py CONFIG_JSON TOKENIZER_FOLDER OUT        makes OUT/model and OUT/text

Weights are normal with the configuration's standard deviation, from a block of values that repeats; norms are ones. The text is
documents of 65,536 random words of the tokenizer. Needs nothing but Python. `ltrain --init` draws every value anew, which takes
minutes for billions, and refuses adapters on what nobody trained.
"""
import array, json, random, shutil, struct, sys
from pathlib import Path

BLOCK = 1 << 22  # values
DOCUMENTS, WORDS = 16, 1 << 16


def shapes(c):
    hidden, ffn, vocab = c["hidden_size"], c["intermediate_size"], c["vocab_size"]
    q, kv = c["num_attention_heads"] * c["head_dim"], c["num_key_value_heads"] * c["head_dim"]
    yield "model.embed_tokens.weight", [vocab, hidden]
    for i in range(c["num_hidden_layers"]):
        layer = {
            "input_layernorm": [hidden], "self_attn.q_proj": [q, hidden], "self_attn.k_proj": [kv, hidden],
            "self_attn.v_proj": [kv, hidden], "self_attn.o_proj": [hidden, q], "post_attention_layernorm": [hidden],
            "mlp.gate_proj": [ffn, hidden], "mlp.up_proj": [ffn, hidden], "mlp.down_proj": [hidden, ffn],
        }
        for name, shape in layer.items():
            yield f"model.layers.{i}.{name}.weight", shape
    yield "model.norm.weight", [hidden]
    if not c["tie_word_embeddings"]:
        yield "lm_head.weight", [vocab, hidden]


def main():
    config, tokenizer, folder = map(Path, sys.argv[1:])
    c = json.loads(config.read_text())
    out, text = folder / "model", folder / "text"
    out.mkdir(parents=True)
    text.mkdir()
    words = [w for w in json.loads((tokenizer / "tokenizer.json").read_text())["model"]["vocab"] if not w.startswith("<")]
    for n in range(DOCUMENTS):
        (text / f"{n}.txt").write_text(" ".join(random.Random(n).choices(words, k=WORDS)))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tokenizer / name, out)
    shutil.copy(config, out / "config.json")

    draw, header, at, order = random.Random(0), {}, 0, []
    for name, shape in shapes(c):
        size = 2
        for extent in shape:
            size *= extent
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + size]}
        order.append((shape, size))
        at += size
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)

    # The upper halves of 32-bit floats; drawn once.
    count = min(BLOCK, max(size for _, size in order) // 2)
    floats = array.array("f", (draw.gauss(0.0, c["initializer_range"]) for _ in range(count)))
    block = array.array("H", floats.tobytes())[1::2].tobytes() * 2
    with open(out / "model.safetensors", "wb", buffering=0) as file:
        file.write(struct.pack("<Q", len(head)) + head)
        for shape, size in order:
            left = size
            while left:
                # Each tensor begins elsewhere in the block.
                start = 2 * draw.randrange(count) if len(shape) > 1 else 0
                source = block[start:] if len(shape) > 1 else b"\x80\x3f" * (size // 2)
                left -= file.write(source[: min(left, 2 * count)])
    print(f"{out}: {at / 2**30:.1f} GiB of weights")


main()
