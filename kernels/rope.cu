// rope: rotary position embedding at any per-token position, in place on queries and keys in one launch
//   angle     t = 2 pi position f,  f = inv_freq / (2 pi rope_scale) turns per position
//   forward   x1' = x1 c - x2 s,  x2' = x2 c + x1 s,  pairs (i, i + D/2),  c = factor cos t,  s = factor sin t
//   backward  the transpose: dx1 = dy1 c + dy2 s,  dx2 = dy2 c - dy1 s
//   shapes    q: (B,T,heads,D)   k: (B,T,kv_heads,D)   positions: (B,T)   turns: (B,D/2); tokens = B T, D a multiple of 8
//   launch    a thread has four neighbouring pairs of one token, whose sines it forms once, and walks over heads (those of q,
//             then those of k). Grid (ceil(tokens / floor(kThreads / (D/8))), parts): part p has the heads [p n, (p + 1) n) with
//             n = ceil((heads + kv_heads) / parts). More parts for few tokens, fewer to form fewer sines. D at most 1024.
//   numerics  turns = round(2^64 frac(f)), so position * turns mod 2^64 is the fraction of a turn, off by position / 2^65 at
//             most. Its upper 32 bits, as a signed number, become half-turns in f32: 9.5e-8 rad off, at any 32-bit position.
//             Sine, cosine and rotation in f32, one rounding of each result.
//
// Making turns. inv_freq and rope_scale are f32, exact in f64. In f64 alone, f is off by three roundings, 3 2^-53 f with
// f <= 0.16 for inv_freq / rope_scale <= 1: 3.4e-16 rad per position and thus 3.4e-9 rad at ten million, a thirtieth of the
// device's last bit. All 64 bits, for positions up to 2^32, take one correction term:
//     q = inv_freq / rope_scale              e = fma(-q, rope_scale, inv_freq) / rope_scale       (q + e is the quotient)
//     p = q I                                r = fma(q, I, -p) + q J + e I                        (I + J = 1 / (2 pi))
//     p -= floor(p)                          turns = u64(floor(p 2^64)) + i64(round(fract(p 2^64) + r 2^64))    mod 2^64
// with I = 0.15915494309189535 and J = -9.839338337591243e-18. floor(p 2^64) and its remainder are exact in f64.
#include "ptx.cuh"
#include "vec8.cuh"

constexpr int kThreads = 128;
constexpr int kPairs = 4;
constexpr int kBatch = 4;

struct Angles {
    float cos[kPairs], sin[kPairs];
};

DEV Angles angles_of(uint32_t position, const uint64_t* turns, float factor) {
    Angles a;
    #pragma unroll
    for (int i = 0; i < kPairs; i++) {
        const int32_t phase = (int32_t)((position * turns[i]) >> 32);
        float s, c;
        sincospif((float)phase * 0x1p-31f, &s, &c);
        a.cos[i] = factor * c;
        a.sin[i] = factor * s;
    }
    return a;
}

// One token's heads [first, last) of x, which points at this thread's first pair in head 0. Reads kBatch heads before it writes
// one. kSign +1 turns by the angle, -1 back.
template <int kSign> DEV void turn_heads(bf16* x, int first, int last, int head_dim, const Angles& a) {
    for (int head = first; head < last; head += kBatch) {
        bf16* at = x + head * head_dim;
        uint2 held[kBatch][2];
        #pragma unroll
        for (int b = 0; b < kBatch; b++) {
            if (head + b < last) {
                held[b][0] = load4(at + b * head_dim);
                held[b][1] = load4(at + b * head_dim + head_dim / 2);
            }
        }
        #pragma unroll
        for (int b = 0; b < kBatch; b++) {
            float x1[kPairs], x2[kPairs], y1[kPairs], y2[kPairs];
            unpack4(x1, held[b][0]);
            unpack4(x2, held[b][1]);
            #pragma unroll
            for (int i = 0; i < kPairs; i++) {
                const float s = kSign * a.sin[i];
                y1[i] = x1[i] * a.cos[i] - x2[i] * s;
                y2[i] = x2[i] * a.cos[i] + x1[i] * s;
            }
            if (head + b < last) {
                store4(at + b * head_dim, pack4(y1));
                store4(at + b * head_dim + head_dim / 2, pack4(y2));
            }
        }
    }
}

template <int kSign>
DEV void rotate(bf16* q, bf16* k, const uint32_t* positions, const uint64_t* turns, int heads, int kv_heads, int head_dim,
                int seq_len, int tokens, float factor) {
    const int lanes = head_dim / 8, per_block = kThreads / lanes;  // threads per token, tokens per block
    const int pair = (int)threadIdx.x % lanes * kPairs;
    const int64_t token = (int64_t)blockIdx.x * per_block + (int)threadIdx.x / lanes;
    if ((int)threadIdx.x < per_block * lanes && token < tokens) {
        const int row = (int)token / seq_len;
        const Angles a = angles_of(positions[token], turns + (int64_t)row * (head_dim / 2) + pair, factor);
        const int share = (heads + kv_heads + (int)gridDim.y - 1) / (int)gridDim.y;
        const int first = (int)blockIdx.y * share, last = min(first + share, heads + kv_heads);
        turn_heads<kSign>(q + token * heads * head_dim + pair, first, min(last, heads), head_dim, a);
        turn_heads<kSign>(k + token * kv_heads * head_dim + pair, max(first - heads, 0), last - heads, head_dim, a);
    }
}

KERNEL(kThreads) rope_fwd(bf16* __restrict__ q, bf16* __restrict__ k, const uint32_t* __restrict__ positions,
                          const uint64_t* __restrict__ turns, int heads, int kv_heads, int head_dim, int seq_len, int tokens,
                          float factor) {
    rotate<+1>(q, k, positions, turns, heads, kv_heads, head_dim, seq_len, tokens, factor);
}

KERNEL(kThreads) rope_bwd(bf16* __restrict__ dq, bf16* __restrict__ dk, const uint32_t* __restrict__ positions,
                          const uint64_t* __restrict__ turns, int heads, int kv_heads, int head_dim, int seq_len, int tokens,
                          float factor) {
    rotate<-1>(dq, dk, positions, turns, heads, kv_heads, head_dim, seq_len, tokens, factor);
}
