// attention: causal attention with grouped keys and values over a table of first visible keys
//   forward   S = scale q k' over the visible keys, P = softmax(S), o = P v, lse = ln sum exp S      (backward: attention_bwd.cu)
//   shapes    q, o: (B,q_len,H,head_dim)   k, v: (B,kv_len,Hkv,head_dim)   lse: (B,H,q_len) f32   starts: (2,B,q_len)
//             head_dim a multiple of 8, at most the D in the name; H a multiple of Hkv: head h reads kv head h / (H / Hkv).
//             Query i is token kv_len - q_len + i and sees the keys from starts[half of its head][i] to itself. Along a row
//             starts do not decrease, and none is beyond its query's token: every query sees itself. scale > 0.
//   launch    grid (ceil(q_len / kRows), H, B), longest rows first. A block takes kRows queries of a head, a warp 32 of them, and
//             walks the stages of keys that any of them sees; the next arrives during the products. A warp leaves out stages
//             that its own queries do not see, and masks only those that some of them see in part.
//   numerics  S, softmax and o in f32; P is rounded to bf16 for P v, its sum is not; o is rounded once. exp is a power of two by
//             ex2.approx, and weights are relative to a reference that follows the maximum of S in steps, which spares most
//             rescaling. Keys are added in rising order: two runs are bit-equal.
#include "attention.cuh"

constexpr int kRowFrags = 2;  // fragments of queries that a warp owns
constexpr int kRows = kWarps * kRowFrags * kFrag;
constexpr int kStages = 2;

// Keys of a stage and bytes of shared memory: a tile of queries and the stages' tiles of keys and values. Where the sums of o
// take the registers, a stage is short. Two blocks fit an A100's 164 KB.
constexpr int kKeysNarrow = 64;  // for D up to 64
constexpr int kKeysWide = 32;    // for D = 96, 128
constexpr int kShared32 = (kRows + kStages * 2 * kKeysNarrow) * (32 + kPad) * kValueBytes;
constexpr int kShared64 = (kRows + kStages * 2 * kKeysNarrow) * (64 + kPad) * kValueBytes;
constexpr int kShared96 = (kRows + kStages * 2 * kKeysWide) * (96 + kPad) * kValueBytes;
constexpr int kShared128 = (kRows + kStages * 2 * kKeysWide) * (128 + kPad) * kValueBytes;

template <int D, int kKeys, int kShared>
DEV void forward(bf16* o, float* lse, const bf16* q, const bf16* k, const bf16* v, const uint32_t* table, const Shape& s,
                 float scale) {
    constexpr int kTile = kKeys * kPitch<D>;
    static_assert(kShared == kRows * kPitch<D> + kStages * 2 * kTile, "attention: shared memory is q and the stages of k and v");
    SHARED_DYN(shared);
    const uint32_t q_tile = smem_u32(shared), stages = q_tile + kRows * kPitch<D>;
    const int batch = blockIdx.z, head = blockIdx.y, kv_head = head / s.group();
    const int first = (gridDim.x - 1 - blockIdx.x) * kRows, warp_row = threadIdx.x / kWarp * kRowFrags * kFrag;
    const uint32_t* starts = s.starts(table, gridDim.z, batch, head);
    const Seen block(starts, s, first, kRows), warp(starts, s, first + warp_row, kRowFrags * kFrag);
    const int64_t kv_row = s.kv_at(batch, 0, kv_head);
    const auto load_stage = [&](int key, int stage) {
        const uint32_t k_tile = stages + stage * 2 * kTile;
        const int64_t at = kv_row + (int64_t)key * s.kv_stride();
        load_tile<D, kKeys>(k_tile, k + at, block.to + 1 - key, s.kv_stride(), s.head_dim);
        load_tile<D, kKeys>(k_tile + kTile, v + at, block.to + 1 - key, s.kv_stride(), s.head_dim);
        cp_async_commit();
    };

    int key = block.from / kKeys * kKeys;
    load_tile<D, kRows>(q_tile, q + s.q_at(batch, first, head), s.q_len - first, s.q_stride(), s.head_dim);
    load_stage(key, 0);
    float out[kRowFrags][D / 8][4] = {};
    Softmax<kRowFrags> softmax;
    for (int stage = 0; key <= block.to; key += kKeys, stage ^= 1) {
        cp_async_wait<0>();
        __syncthreads();  // this stage is there, and every warp is done with the other
        if (key + kKeys <= block.to) load_stage(key + kKeys, stage ^ 1);
        if (warp.some(key, kKeys)) {
            float scores[kRowFrags][kKeys / 8][4] = {};
            const uint32_t k_tile = stages + stage * 2 * kTile;
            uint32_t weights[kRowFrags][kKeys / 8][2];
            add_scores<D>(scores, q_tile + warp_row * kPitch<D>, k_tile);
            if (!warp.all(key, kKeys)) hide_keys(scores, starts, s, first + warp_row, key);
            softmax.step(weights, scores, out, scale * kLog2e);
            add_weighted<D>(out, weights, k_tile + kTile);
        }
    }

    const int lane = threadIdx.x % kWarp, warp_first = first + warp_row;
    #pragma unroll
    for (int m = 0; m < kRowFrags; m++) {
        #pragma unroll
        for (int half = 0; half < 2; half++) {
            const float sum = row_sum(softmax.sum[m][half]), inverse = 1.0f / sum;
            const int i = warp_first + m * kFrag + half * 8 + lane / 4;
            if (lane % 4 == 0 && i < s.q_len) lse[s.row_at(batch, head, i)] = softmax.reference[m][half] * scale + logf(sum);
            #pragma unroll
            for (int n = 0; n < D / 8; n++) out[m][n][half * 2] *= inverse, out[m][n][half * 2 + 1] *= inverse;
        }
    }
    store_rows<D>(o + s.q_at(batch, warp_first, head), out, shared + warp_row * kPitch<D>, s.q_len - warp_first, s.q_stride(),
                  s.head_dim);
}

KERNEL(kThreads, kShared32)
attention_fwd_d32(bf16* __restrict__ o, float* __restrict__ lse, const bf16* __restrict__ q, const bf16* __restrict__ k,
                  const bf16* __restrict__ v, const uint32_t* __restrict__ starts, int heads, int kv_heads, int q_len, int kv_len,
                  int head_dim, float scale) {
    forward<32, kKeysNarrow, kShared32>(o, lse, q, k, v, starts, {heads, kv_heads, q_len, kv_len, head_dim}, scale);
}
KERNEL(kThreads, kShared64)
attention_fwd_d64(bf16* __restrict__ o, float* __restrict__ lse, const bf16* __restrict__ q, const bf16* __restrict__ k,
                  const bf16* __restrict__ v, const uint32_t* __restrict__ starts, int heads, int kv_heads, int q_len, int kv_len,
                  int head_dim, float scale) {
    forward<64, kKeysNarrow, kShared64>(o, lse, q, k, v, starts, {heads, kv_heads, q_len, kv_len, head_dim}, scale);
}
KERNEL(kThreads, kShared96)
attention_fwd_d96(bf16* __restrict__ o, float* __restrict__ lse, const bf16* __restrict__ q, const bf16* __restrict__ k,
                  const bf16* __restrict__ v, const uint32_t* __restrict__ starts, int heads, int kv_heads, int q_len, int kv_len,
                  int head_dim, float scale) {
    forward<96, kKeysWide, kShared96>(o, lse, q, k, v, starts, {heads, kv_heads, q_len, kv_len, head_dim}, scale);
}
KERNEL(kThreads, kShared128)
attention_fwd_d128(bf16* __restrict__ o, float* __restrict__ lse, const bf16* __restrict__ q, const bf16* __restrict__ k,
                   const bf16* __restrict__ v, const uint32_t* __restrict__ starts, int heads, int kv_heads, int q_len,
                   int kv_len, int head_dim, float scale) {
    forward<128, kKeysWide, kShared128>(o, lse, q, k, v, starts, {heads, kv_heads, q_len, kv_len, head_dim}, scale);
}
