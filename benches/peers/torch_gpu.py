"""What other libraries take for the ops of `ltrain bench`, at the same sizes and in the same JSON.

    python3 benches/peers/torch_gpu.py [--only OP,...] [--shapes 8b,1b] [--tokens 4k,...] [--seconds S] [--json FILE]
    python3 benches/peers/torch_gpu.py --device cpu --shapes tiny --tokens 64 --seconds 0      (does it run at all?)

Needs PyTorch; Liger Kernel is measured where it can be imported. A peer that a device or a version lacks is a row that says so.
Inputs are normal values in bf16, calls take turns on more memory than caches hold, results stay alive for a turn, and events
between calls that follow each other without a wait tell the time: as `ltrain bench` does it. `scripts/compare_peers.py` joins both.
"""
import argparse, inspect, json, math, sys, time

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

RANK = 16
ROTATED, MOST_SETS = 256 << 20, 64
MODELS = {  # hidden, heads, kv_heads, head_dim, ffn, vocab, layers, tied, (elements of the copy, extent of the product)
    "8b": (4096, 32, 8, 128, 14336, 128256, 32, False, (1 << 29, 8192)),
    "1b": (2048, 32, 8, 64, 8192, 128256, 16, True, (1 << 29, 8192)),
    "tiny": (256, 8, 2, 32, 688, 512, 2, True, (1 << 20, 256)),
}
# Lengths of packed documents, as in src/bench/ops/attention.rs.
DOCUMENTS = (1038, 352, 4915, 880, 1967, 204, 2858, 605, 8474, 1422, 737, 3611, 479, 2347, 1217, 1668)


class Dims:
    def __init__(self, model, tokens):
        self.model, self.T = model, tokens
        self.C, self.H, self.Hk, self.D, self.ffn, self.V, self.layers, self.tied, self.limits = MODELS[model]
        self.q, self.kv = self.H * self.D, self.Hk * self.D
        # Outputs of the projections of one input, and that input.
        self.groups = {"qkv": ((self.q, self.kv, self.kv), self.C), "o": ((self.C,), self.q),
                       "gate_up": ((self.ffn, self.ffn), self.C), "down": ((self.C,), self.ffn)}
        # As one weight, which is the most that a library's product can make of them.
        self.weights = {name: (sum(outs), inp) for name, (outs, inp) in self.groups.items()}


class Unavailable(Exception):
    pass


PEERS = []  # (op, name of the peer, work(d) -> ("flops" | "bytes", amount), make(d) -> call)


def peer(op, name, work):
    def register(make):
        PEERS.append((op, name, work, make))
        return make
    return register


def flops(of):
    return lambda d: ("flops", float(of(d)))


def bytes_of(of):
    return lambda d: ("bytes", float(of(d)))


def normal(*shape, scale=1.0, dtype=torch.bfloat16, grad=False):
    values = torch.randn(shape, device=DEVICE, dtype=dtype)
    return (values if scale == 1.0 else values.mul_(scale)).requires_grad_(grad)


def ids(d):
    draws = torch.rand(d.T, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return (d.V**draws - 1).long().clamp_(0, d.V - 1).to(DEVICE)


_compiled = {}


def compiled(f):
    if not COMPILE:
        raise Unavailable("--compile off")
    if f not in _compiled:
        _compiled[f] = torch.compile(f, dynamic=False)
    return _compiled[f]


def backward(forward, *leaves):
    """A call that runs the backward pass of `forward` alone, down to `leaves`."""
    outs = forward()
    outs = outs if isinstance(outs, tuple) else (outs,)
    seeds = [torch.randn_like(o) for o in outs]
    return lambda: torch.autograd.grad(outs, leaves, seeds, retain_graph=True)


# Limits.

@peer("copy", "clone", bytes_of(lambda d: 4 * d.limits[0]))
def _(d):
    x = normal(d.limits[0])
    return lambda: x.clone()


@peer("gemm", "cublas", flops(lambda d: 2 * d.limits[1] ** 3))
def _(d):
    x, w = (normal(d.limits[1], d.limits[1]) for _ in range(2))
    return lambda: F.linear(x, w)


# Attention. q, k, v are (B,T,H,D) in memory, as the other ops have them.

def documents(tokens):
    divisor, starts, at, n = (32 if tokens < 2048 else 1), [0], 0, 0
    while (at := at + DOCUMENTS[n % 16] // divisor) < tokens:
        starts.append(at)
        n += 1
    return starts


def groups(tokens, shifted):
    group = max(tokens // 4, 1)
    return sorted({0, *range(group // 2 if shifted else 0, tokens, group)})


def starts(pattern, tokens):
    """Where segments begin, for both halves of the heads."""
    return {"full": [[0]] * 2, "packed": [documents(tokens)] * 2, "s2": [groups(tokens, False), groups(tokens, True)]}[pattern]


def lengths(begins, tokens):
    return [b - a for a, b in zip(begins, begins[1:] + [tokens])]


def pairs(pattern, tokens):
    return sum(n * (n + 1) / 2 for half in starts(pattern, tokens) for n in lengths(half, tokens)) / 2


def grouped(d, call, k, v):
    """Whether the backend reads grouped keys and values; those that it reads otherwise."""
    try:
        call(k, v, True)
        return True, k, v
    except RuntimeError:
        return False, *(x.repeat_interleave(d.H // d.Hk, 1) for x in (k, v))


def sdpa(backend, causal=True):
    def forward(d, q, k, v):
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))

        def call(k, v, gqa):
            with sdpa_kernel(backend):
                return F.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=gqa)
        gqa, k, v = grouped(d, call, k, v)
        return lambda: call(k, v, gqa)
    return forward


def varlen(pattern):
    """One call per half of the heads, one for both where they see the same."""
    def forward(d, q, k, v):
        try:
            from torch.nn.attention.varlen import varlen_attn
        except ImportError:
            raise Unavailable("this version has no varlen_attn")
        halves = starts(pattern, d.T)
        heads = [(0, d.H)] if halves[0] == halves[1] else [(0, d.H // 2), (d.H // 2, d.H)]
        parts = []
        for (a, b), begins in zip(heads, halves):
            of_keys = slice(a * d.Hk // d.H, b * d.Hk // d.H)
            k_, v_ = (x[0][:, of_keys].repeat_interleave(d.H // d.Hk, 1) for x in (k, v))
            bounds = torch.tensor(begins + [d.T], dtype=torch.int32, device=DEVICE)
            parts.append((q[0][:, a:b], k_, v_, bounds, bounds, *[max(lengths(begins, d.T))] * 2))
        causal = {"is_causal": True} if "is_causal" in inspect.signature(varlen_attn).parameters else {"window_size": (-1, 0)}
        return lambda: tuple(varlen_attn(*part, **causal) for part in parts)
    return forward


def flex(pattern):
    def forward(d, q, k, v):
        from torch.nn.attention.flex_attention import create_block_mask, flex_attention
        if d.T > 32768:
            raise Unavailable("building the mask of a longer row takes too long")
        table = torch.zeros(2, d.T, dtype=torch.int32)
        for half, begins in enumerate(starts(pattern, d.T)):
            for begin in begins:
                table[half, begin:] = begin
        table = table.to(DEVICE)
        visible = lambda b, h, i, j: (j <= i) & (j >= table[h * 2 // d.H, i])
        mask = create_block_mask(visible, None, d.H if pattern == "s2" else None, d.T, d.T, device=DEVICE)
        attend = compiled(flex_attention)
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        return lambda: attend(q, k, v, block_mask=mask, enable_gqa=True)
    return forward


def attention(pattern, name, forward):
    def inputs(d, grad=False):
        return [normal(1, d.T, heads, d.D, grad=grad) for heads in (d.H, d.Hk, d.Hk)]

    def grads(d):
        leaves = inputs(d, True)
        return backward(forward(d, *leaves), *leaves)
    peer(f"attention fwd {pattern}", name, flops(lambda d: 4 * d.q * pairs(pattern, d.T)))(lambda d: forward(d, *inputs(d)))
    peer(f"attention bwd {pattern}", name, flops(lambda d: 10 * d.q * pairs(pattern, d.T)))(grads)


for name, backend in [("cudnn sdpa", SDPBackend.CUDNN_ATTENTION), ("flash sdpa", SDPBackend.FLASH_ATTENTION)]:
    attention("full", name, sdpa(backend))

    @peer("attention decode", name, bytes_of(lambda d: 4 * d.T * d.kv))
    def _(d, forward=sdpa(backend, causal=False)):
        return forward(d, normal(1, 1, d.H, d.D), *(normal(1, d.T, d.Hk, d.D) for _ in range(2)))

for pattern in ("packed", "s2"):
    attention(pattern, "varlen_attn", varlen(pattern))
    attention(pattern, "flex_attention", flex(pattern))


# Products.

def with_blas(library, call):
    def chosen():
        torch.backends.cuda.preferred_blas_library(library)
        return call()
    return chosen if DEVICE == "cuda" else call


for library in ("cublas", "cublaslt"):
    for w in ("qkv", "o", "gate_up", "down"):
        work = flops(lambda d, w=w: 2 * d.T * math.prod(d.weights[w]))

        @peer(f"linear fwd {w}", library, work)
        def _(d, w=w, library=library):
            x, weight = normal(d.T, d.weights[w][1]), normal(*d.weights[w], scale=d.weights[w][1] ** -0.5)
            return with_blas(library, lambda: x @ weight.t())

        @peer(f"linear dx {w}", library, work)
        def _(d, w=w, library=library):
            dy, weight = normal(d.T, d.weights[w][0]), normal(*d.weights[w], scale=d.weights[w][0] ** -0.5)
            return with_blas(library, lambda: dy @ weight)

        @peer(f"linear dw {w}", library, work)
        def _(d, w=w, library=library):
            dy, x = normal(d.T, d.weights[w][0]), normal(d.T, d.weights[w][1])
            return with_blas(library, lambda: dy.t() @ x)


def lora(x, projections):
    """As PEFT's Linear.forward with dropout 0, of every projection: base result, plus the scaled low-rank one."""
    return tuple(F.linear(x, w) + F.linear(F.linear(x, a), b) * 2.0 for w, a, b in projections)


def lora_inputs(d, w, grad=False):
    outs, inp = d.groups[w]
    projections = [(normal(out, inp, scale=inp**-0.5), normal(RANK, inp, scale=inp**-0.5, grad=grad),
                    normal(out, RANK, scale=0.25, grad=grad)) for out in outs]
    return normal(d.T, inp, grad=grad), projections


def lora_flops(w, low_rank):
    """The products with the weights, and so many with each pair of factors."""
    return flops(lambda d: 2 * d.T * (math.prod(d.weights[w]) + low_rank * RANK * sum(out + d.groups[w][1] for out in d.groups[w][0])))


WAYS = {"eager": lambda f: f, "compiled": compiled}
for name, of in WAYS.items():
    for w in ("qkv", "o", "gate_up", "down"):
        @peer(f"lora fwd {w}", f"peft, {name}", lora_flops(w, 1))
        def _(d, w=w, of=of):
            inputs, f = lora_inputs(d, w), of(lora)
            return lambda: f(*inputs)

        @peer(f"lora bwd {w}", f"peft, {name}", lora_flops(w, 2))
        def _(d, w=w, of=of):
            x, projections = lora_inputs(d, w, True)
            f = of(lora)
            return backward(lambda: f(x, projections), x, *(factor for _, *factors in projections for factor in factors))


# What streams through activations. As in transformers' Llama.

def rms_norm(x, w):
    f = x.float()
    return w * (f * torch.rsqrt(f.pow(2).mean(-1, keepdim=True) + 1e-5)).to(x.dtype)


def fused_rms_norm(x, w):
    return F.rms_norm(x, w.shape, w, 1e-5)


def add_rms_norm(x, residual, w):
    h = x + residual
    return h, rms_norm(h, w)


def swiglu(gate, up):
    return F.silu(gate) * up


def half_turned(x):
    a, b = x.chunk(2, -1)
    return torch.cat((-b, a), -1)


def rope(q, k, cos, sin):
    return q * cos + half_turned(q) * sin, k * cos + half_turned(k) * sin


def liger(name):
    try:
        import liger_kernel.ops as ops
    except ImportError:
        raise Unavailable("liger_kernel is not installed")
    return getattr(ops, name).apply


def liger_rms_norm(x, w):
    return liger("LigerRMSNormFunction")(x, w, 1e-5, 0.0, "llama", False)


def liger_swiglu(gate, up):
    return liger("LigerSiLUMulFunction")(gate, up)


def rows(op, name, f, count, width, inputs, leaves):
    """Forward and backward of `f`; `count` tensors of `width` move in either. `leaves` is how many of the inputs get gradients."""
    fwd, bwd = count
    work = lambda n: bytes_of(lambda d: 2 * n * d.T * width(d))

    @peer(f"{op} fwd", name, work(fwd))
    def _(d):
        given = inputs(d)
        return lambda: f(*given)

    for variant, many in leaves.items():
        @peer(f"{op} bwd{variant}", name, work(bwd))
        def _(d, many=many):
            given = inputs(d)
            wanted = [x.requires_grad_() for x in given[:many]]
            return backward(lambda: f(*given), *wanted)


def lazily(of, f):
    """Compiled when it is first called: what is not asked for costs nothing."""
    return lambda *inputs: of(f)(*inputs)


def norm_inputs(d):
    return normal(d.T, d.C), normal(d.C)


def add_norm_inputs(d):
    return normal(d.T, d.C), normal(d.T, d.C), normal(d.C)


def swiglu_inputs(d):
    return normal(d.T, d.ffn), normal(d.T, d.ffn)


def rope_inputs(d):
    angles = (torch.arange(d.T) * 8).double()[:, None] * 500000.0 ** -(torch.arange(d.D // 2) / (d.D // 2)).double()
    cos, sin = (f(torch.cat((angles, angles), -1)).to(DEVICE, torch.bfloat16)[None, :, None] for f in (torch.cos, torch.sin))
    return normal(1, d.T, d.H, d.D), normal(1, d.T, d.Hk, d.D), cos, sin


hidden, ffn, heads = lambda d: d.C, lambda d: d.ffn, lambda d: d.q + d.kv
NORM_LEAVES = {"": 1, " trained": 2}
for name, of in WAYS.items():
    rows("rms_norm", name, lazily(of, rms_norm), (2, 3), hidden, norm_inputs, NORM_LEAVES)
    rows("add_rms_norm", name, lazily(of, add_rms_norm), (4, 4), hidden, add_norm_inputs, {"": 2})
    rows("swiglu", name, lazily(of, swiglu), (3, 5), ffn, swiglu_inputs, {"": 2})
    rows("rope", name, lazily(of, rope), (2, 2), heads, rope_inputs, {"": 2})
rows("rms_norm", "F.rms_norm", fused_rms_norm, (2, 3), hidden, norm_inputs, NORM_LEAVES)
rows("rms_norm", "liger", liger_rms_norm, (2, 3), hidden, norm_inputs, NORM_LEAVES)
rows("swiglu", "liger", liger_swiglu, (3, 5), ffn, swiglu_inputs, {"": 2})


@peer("add", "eager", bytes_of(lambda d: 6 * d.T * d.C))
def _(d):
    x, y = normal(d.T, d.C), normal(d.T, d.C)
    return lambda: x + y


# Both ends of the model.

def losses(z, t, scale):
    """A chunk's losses and the gradients of its logits, in one function so that a compiler can fuse it."""
    z = z.float()
    p = torch.softmax(z, -1)
    nll = -torch.log_softmax(z, -1).gather(1, t[:, None])
    return nll, (p.scatter_add(1, t[:, None], torch.full_like(nll, -1.0)) * scale).bfloat16()


def chunked(d, f, every, trained):
    """Two products per chunk of rows, three where the weight trains, with `f` between them."""
    h, w = normal(d.T, d.C), normal(d.V, d.C, scale=d.C**-0.5)
    keep = torch.arange(0, d.T, every, device=DEVICE)
    t, chunk = ids(d)[keep], min(d.T, 4096)

    def call():
        dh, dw = torch.zeros_like(h), torch.zeros(d.V, d.C, device=DEVICE) if trained else None
        for rows in keep.split(chunk):
            x = h[rows]
            nll, dz = f(x @ w.t(), t[rows // every], 1.0 / len(keep))
            dh[rows] = dz @ w
            if trained:
                dw += dz.t() @ x
        return dh, dw
    return call


def liger_cross_entropy(d, every, trained):
    f = liger("LigerFusedLinearCrossEntropyFunction")
    h, w = normal(d.T, d.C, grad=True), normal(d.V, d.C, scale=d.C**-0.5, grad=trained)
    t = ids(d).where(torch.arange(d.T, device=DEVICE) % every == 0, -100)

    def call():
        loss = f(h, w, t)
        return torch.autograd.grad(loss[0] if isinstance(loss, tuple) else loss, (h, w) if trained else (h,))
    return call


for op, every, trained in [("frozen", 1, False), ("frozen tenth", 10, False), ("trained", 1, True)]:
    work = flops(lambda d, e=every, n=6 if trained else 4: n * d.C * d.V * -(-d.T // e))
    for name, of in WAYS.items():
        peer(f"cross_entropy {op}", f"chunked, {name}", work)(lambda d, of=of, e=every, t=trained: chunked(d, of(losses), e, t))
    peer(f"cross_entropy {op}", "liger", work)(lambda d, e=every, t=trained: liger_cross_entropy(d, e, t))


@peer("embedding fwd", "F.embedding", bytes_of(lambda d: 4 * d.T * d.C))
def _(d):
    w, t = normal(d.V, d.C), ids(d)
    return lambda: F.embedding(t, w)


@peer("embedding bwd", "embedding_dense_backward", bytes_of(lambda d: 2 * d.T * d.C + 4 * d.V * d.C))
def _(d):
    dy, t = normal(d.T, d.C), ids(d)
    return lambda: torch.ops.aten.embedding_dense_backward(dy, t, d.V, -1, False)


@peer("embedding bwd", "index_add f32", bytes_of(lambda d: 2 * d.T * d.C + 4 * d.V * d.C))
def _(d):
    dy, t = normal(d.T, d.C), ids(d)
    return lambda: torch.zeros(d.V, d.C, device=DEVICE).index_add_(0, t, dy.float())


def adapters(d):
    layer = [(d.q, d.C), (d.kv, d.C), (d.kv, d.C), (d.C, d.q), (d.ffn, d.C), (d.ffn, d.C), (d.C, d.ffn)]
    return [shape for _ in range(d.layers) for out, inp in layer for shape in ((RANK, inp), (out, RANK))]


def all_weights(d):
    layer = [(d.q, d.C), (d.kv, d.C), (d.kv, d.C), (d.C, d.q), (d.ffn, d.C), (d.ffn, d.C), (d.C, d.ffn), (1, d.C), (1, d.C)]
    return [(d.V, d.C)] * (1 if d.tied else 2) + layer * d.layers + [(1, d.C)]


for op, shapes in [("lora", adapters), ("full", all_weights)]:
    @peer(f"adamw {op}", "fused, with clip and bf16 copy", bytes_of(lambda d, s=shapes: 34 * sum(map(math.prod, s(d)))))
    def _(d, shapes=shapes):
        if 18 * sum(map(math.prod, shapes(d))) > memory():
            raise Unavailable("has no room")
        params = [normal(*s, dtype=torch.float32, grad=True) for s in shapes(d)]
        for p in params:
            p.grad = torch.randn_like(p)
        copies = [p.detach().bfloat16() for p in params]
        optimizer = torch.optim.AdamW(params, lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True)

        def step():
            # A limit that is never reached, so that gradients keep their size from call to call.
            torch.nn.utils.clip_grad_norm_(params, 1e9, foreach=True)
            optimizer.step()
            torch._foreach_copy_(copies, params)
        return step


# Measuring.

def memory():
    return torch.cuda.mem_get_info()[0] if DEVICE == "cuda" else 1 << 36


def times(calls, count):
    """Seconds of `count` calls that follow each other, taking turns."""
    last = [None] * len(calls)
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(count + 1)] if DEVICE == "cuda" else [0.0] * (count + 1)

    def mark(i):
        if DEVICE == "cuda":
            marks[i].record()
        else:
            marks[i] = time.perf_counter()
    mark(0)
    for i in range(count):
        turn = i % len(calls)
        last[turn] = None
        last[turn] = calls[turn]()
        mark(i + 1)
    if DEVICE == "cuda":
        torch.cuda.synchronize()
        return sorted(a.elapsed_time(b) / 1e3 for a, b in zip(marks, marks[1:]))
    return sorted(b - a for a, b in zip(marks, marks[1:]))


def measure(make, d, seconds):
    used = torch.cuda.memory_allocated() if DEVICE == "cuda" else 0
    calls = [make(d)]
    if DEVICE == "cuda":
        # From here on: what inputs and one call take, without what it took to make the inputs.
        torch.cuda.reset_peak_memory_stats()
    first = times(calls, 1)[0]
    once = first if first > 10 * max(seconds, 0.1) else times(calls, 3)[0]
    fewest = 20 if once * 20 <= 4 * seconds else 5
    count = min(max(int(seconds / max(once, 1e-9)), fewest), 500)
    if DEVICE == "cuda":
        set_bytes = max(torch.cuda.max_memory_allocated() - used, 1)
        turns = min(-(-ROTATED // set_bytes), MOST_SETS, count, max(memory() // set_bytes, 1))
        calls += [make(d) for _ in range(turns - 1)]
    times(calls, max(len(calls), 3))
    return times(calls, count)


def length(text):
    text = text.strip().lower()
    return int(float(text.rstrip("km")) * {"k": 1024, "m": 1 << 20}.get(text[-1], 1))


parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
parser.add_argument("--only", default="", help="beginnings of names of ops, separated by commas")
parser.add_argument("--shapes", default="8b,1b")
parser.add_argument("--tokens", default="4k,16k,32k,128k")
parser.add_argument("--seconds", type=float, default=0.5)
parser.add_argument("--device", default="cuda")
parser.add_argument("--compile", choices=["on", "off"], default="on", help="whether peers that torch.compile makes are measured")
parser.add_argument("--json", help="appends a JSON object per row to this file")
parser.add_argument("--list", action="store_true", help="prints the ops and stops")
args = parser.parse_args()
DEVICE, COMPILE = args.device, args.compile == "on"


def emit(row):
    if args.json:
        with open(args.json, "a") as file:
            file.write(json.dumps(row) + "\n")


def main():
    if args.list:
        print("\n".join(dict.fromkeys(op for op, *_ in PEERS)))
        return
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    # Every size is compiled for itself; beyond these limits the compiler would give up and leave the slow form in its place.
    torch._dynamo.config.recompile_limit = torch._dynamo.config.accumulated_recompile_limit = 1 << 16
    if DEVICE == "cuda" and not torch.cuda.is_available():
        sys.exit("torch_gpu.py: PyTorch finds no CUDA device; --device cpu --shapes tiny --tokens 64 tries whether this runs at all")
    device = torch.cuda.get_device_name() if DEVICE == "cuda" else "cpu"
    print(f"device {device}, torch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}")
    emit(dict(who="torch", device=device, torch=torch.__version__, cuda=torch.version.cuda, cudnn=torch.backends.cudnn.version()))
    print(f"{'op':<27} {'peer':<31} {'model':<5} {'tokens':>7} {'median':>12} {'p90':>12} {'rate':>16}")
    words, models = [w.strip() for w in args.only.split(",") if w.strip()], args.shapes.split(",")
    wanted = lambda op: not words or any(op.startswith(w) for w in words)
    timed = 0
    for op, name, work, make in PEERS:
        limit, alone = op in ("copy", "gemm"), op in ("copy", "gemm", "adamw lora", "adamw full")
        if not (limit or wanted(op)):
            continue
        for model in models[:1] if limit else models:
            for tokens in [0] if alone else map(length, args.tokens.split(",")):
                timed += one(op, name, work, make, Dims(model, tokens))
    if not timed:
        sys.exit("torch_gpu.py: nothing was timed")


def one(op, name, work, make, d):
    """Measures and writes a row; whether it was timed."""
    kind, amount = work(d)
    row = {"who": "torch", "peer": name, "op": op, "model": d.model, "tokens": d.T, kind: amount}
    try:
        if DEVICE == "cuda":
            torch.cuda.empty_cache()
        t = measure(make, d, args.seconds)
        at = lambda share: t[round((len(t) - 1) * share)]
        row |= dict(runs=len(t), median_s=at(0.5), p90_s=at(0.9), best_s=t[0])
        rate = f"{amount / at(0.5) / 1e12:.1f} TFLOP/s" if kind == "flops" else f"{amount / at(0.5) / 1e9:.1f} GB/s"
        result = f"{at(0.5) * 1e6:>9.1f} us {at(0.9) * 1e6:>9.1f} us {rate:>16}"
    except Unavailable as reason:
        row["skipped"] = result = str(reason)
    except torch.cuda.OutOfMemoryError:
        row["skipped"] = result = "out of memory"
    except Exception as error:
        row["failed"] = f"{type(error).__name__}: {error}".split("\n")[0][:200]
        result = "failed: " + row["failed"]
    print(f"{op:<27} {name:<31} {d.model:<5} {d.T:>7} {result}", flush=True)
    emit(row)
    return "median_s" in row


main()
