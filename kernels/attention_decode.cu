// attention_decode: attention.cu for a few queries and many keys, whose time is reading k and v once
//   forward   for each of several ranges of keys o_i and lse_i as in attention.cu; then over the ranges, in order,
//             lse = ln sum exp lse_i,  o = sum exp(lse_i - lse) o_i      (no backward: for generation)
//   shapes    q, k, v, starts, head_dim, o, lse: as in attention.cu   part_o: (splits,B,H,q_len,head_dim) f32
//             part_lse: (splits,B,H,q_len) f32, -inf with part_o 0 where a query sees nothing of a range
//   launch    grid (ceil(kv_len / span), Hkv ceil(q_len group / kFrag), B): a block takes `span` keys of a kv head and kFrag rows
//             that are pairs of a query and one of the group = H / Hkv heads that read the kv head. Its warps take kFrag keys
//             each in turn, fetch them for themselves, and join their results in order.
//             combine: grid (ceil(rows head_dim / kThreads)), rows = B H q_len; a thread makes one value of o.
//   numerics  as in attention.cu; the parts stay f32, o is rounded once
#include "attention.cuh"

constexpr int kStages = 2;

// Bytes of shared memory: 16 rows of q, and for each warp stages of 16 rows of k and v.
constexpr int kTiles = 1 + kWarps * kStages * 2;
constexpr int kShared32 = kTiles * kFrag * (32 + kPad) * kValueBytes;
constexpr int kShared64 = kTiles * kFrag * (64 + kPad) * kValueBytes;
constexpr int kShared96 = kTiles * kFrag * (96 + kPad) * kValueBytes;
constexpr int kShared128 = kTiles * kFrag * (128 + kPad) * kValueBytes;

struct Result { float o, lse; };

// Joins what one query got from `parts` ranges of keys.
DEV Result join(const float* o, int64_t o_stride, const float* lse, int64_t lse_stride, int parts) {
    float most = kLowest, sum = 0.0f, weighted = 0.0f;
    for (int i = 0; i < parts; i++) most = fmaxf(most, lse[i * lse_stride]);
    for (int i = 0; i < parts; i++) {
        const float weight = ex2((lse[i * lse_stride] - most) * kLog2e);
        sum += weight;
        weighted += weight * o[i * o_stride];
    }
    if (sum == 0.0f) return {0.0f, -INFINITY};
    return {weighted / sum, most + logf(sum)};
}

// The 16 rows of a block: queries of the heads of a group.
struct Rows {
    int first, count, group, kv_head;

    DEV Rows(const Shape& s, int tile) {
        const int tiles = (s.q_len * s.group() + kFrag - 1) / kFrag;
        first = tile % tiles * kFrag;
        count = min(s.q_len * s.group() - first, kFrag);
        group = s.group();
        kv_head = tile / tiles;
    }
    DEV int query_of(int row) const { return (first + row) / group; }
    DEV int head_of(int row) const { return kv_head * group + (first + row) % group; }
};

template <int D, int kShared>
DEV void decode(float* part_o, float* part_lse, const bf16* q, const bf16* k, const bf16* v, const uint32_t* table,
                const Shape& s, int span, float scale) {
    constexpr int kTile = kFrag * kPitch<D>, kOwn = kStages * 2 * kTile, kChunks = D / kVec;
    static_assert(kShared == kTile + kWarps * kOwn, "attention: shared memory is q and each warp's stages of k and v");
    SHARED_DYN(shared);
    const uint32_t q_tile = smem_u32(shared);
    const int batch = blockIdx.z, warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
    const Rows rows(s, blockIdx.y);
    for (int i = threadIdx.x; i < kFrag * kChunks; i += kThreads) {
        const int row = i / kChunks, col = i % kChunks * kVec;
        const bool there = row < rows.count && col < s.head_dim;
        const bf16* from = there ? q + s.q_at(batch, rows.query_of(row), rows.head_of(row)) + col : q;
        cp_async_16(q_tile + row * kPitch<D> + col * kValueBytes, from, there ? 16 : 0);
    }
    cp_async_commit();
    SHARED(int64_t, parts, kFrag);  // where a row's results go; nowhere if it is beyond the last
    if (threadIdx.x < kFrag) {
        const int row = threadIdx.x;
        const int64_t part = s.row_at(blockIdx.x * gridDim.z + batch, rows.head_of(row), rows.query_of(row));
        parts[row] = row < rows.count ? part : -1;
    }

    // The keys that some row sees of this range. A row beyond the last counts as the last.
    const int range = blockIdx.x * span, range_last = min(range + span, s.kv_len) - 1;
    const auto start_of = [&](int row) {
        const int r = min(row, rows.count - 1);
        return (int)s.starts(table, gridDim.z, batch, rows.head_of(r))[rows.query_of(r)];
    };
    const auto last_of = [&](int row) { return min(s.own(rows.query_of(min(row, rows.count - 1))), range_last); };
    const int from = -lanes_reduce<Max>(-start_of(lane % kFrag), kFrag), to = last_of(kFrag - 1);
    const int start[2] = {start_of(lane / 4), start_of(lane / 4 + 8)}, last[2] = {last_of(lane / 4), last_of(lane / 4 + 8)};

    uint8_t* const own = shared + kTile + warp * kOwn;
    const int64_t kv_row = s.kv_at(batch, 0, rows.kv_head);
    const auto load_stage = [&](int key, int stage) {
        const int64_t at = kv_row + (int64_t)key * s.kv_stride();
        const uint32_t k_tile = smem_u32(own) + stage * 2 * kTile;
        load_tile<D, kFrag, kWarp>(k_tile, k + at, to + 1 - key, s.kv_stride(), s.head_dim);
        load_tile<D, kFrag, kWarp>(k_tile + kTile, v + at, to + 1 - key, s.kv_stride(), s.head_dim);
        cp_async_commit();
    };
    int key = range + max(from - range, 0) / kFrag * kFrag + warp * kFrag;
    constexpr int kStep = kWarps * kFrag;
    if (key <= to) load_stage(key, 0);
    cp_async_wait<0>();
    __syncthreads();  // q is there
    float out[1][D / 8][4] = {};
    Softmax<1> softmax;
    for (int stage = 0; key <= to; key += kStep, stage ^= 1) {
        cp_async_wait<0>();
        __syncwarp();  // this stage is there, and every lane is done with the other
        if (key + kStep <= to) load_stage(key + kStep, stage ^ 1);
        const uint32_t k_tile = smem_u32(own) + stage * 2 * kTile;
        float scores[1][kFrag / 8][4] = {};
        uint32_t weights[1][kFrag / 8][2];
        add_scores<D>(scores, q_tile, k_tile);
        #pragma unroll
        for (int half = 0; half < 2; half++) hide(scores[0], half, start[half] - key, last[half] - key);
        softmax.step(weights, scores, out, scale * kLog2e);
        add_weighted<D>(out, weights, k_tile + kTile);
    }

    // Rows of results, behind which their lse: eight rows that are written together lie in banks of their own.
    constexpr int kResult = D + kPad;
    static_assert((kFrag * kResult + kFrag) * (int)sizeof(float) <= kOwn, "attention: results fit where stages were");
    float* const result = (float*)own;
    __syncwarp();
    #pragma unroll
    for (int half = 0; half < 2; half++) {
        const float sum = row_sum(softmax.sum[0][half]), inverse = sum > 0.0f ? 1.0f / sum : 0.0f;
        const int row = lane / 4 + half * 8;
        if (lane % 4 == 0) result[kFrag * kResult + row] = sum > 0.0f ? softmax.reference[0][half] * scale + logf(sum) : -INFINITY;
        #pragma unroll
        for (int n = 0; n < D / 8; n++) {
            float2* const pair = (float2*)&result[row * kResult + n * 8 + lane % 4 * 2];
            *pair = make_float2(out[0][n][half * 2] * inverse, out[0][n][half * 2 + 1] * inverse);
        }
    }
    __syncthreads();
    const float* const results = (const float*)(shared + kTile);
    constexpr int kStride = kOwn / (int)sizeof(float);
    for (int i = threadIdx.x; i < kFrag * D; i += kThreads) {
        const int row = i / D, col = i % D;
        const int64_t part = parts[row];
        if (part < 0 || col >= s.head_dim) continue;
        const Result joined = join(results + row * kResult + col, kStride, results + kFrag * kResult + row, kStride, kWarps);
        part_o[part * s.head_dim + col] = joined.o;
        if (col == 0) part_lse[part] = joined.lse;
    }
}

KERNEL(kThreads, kShared32)
attention_decode_d32(float* __restrict__ part_o, float* __restrict__ part_lse, const bf16* __restrict__ q,
                     const bf16* __restrict__ k, const bf16* __restrict__ v, const uint32_t* __restrict__ starts, int heads,
                     int kv_heads, int q_len, int kv_len, int head_dim, int span, float scale) {
    decode<32, kShared32>(part_o, part_lse, q, k, v, starts, {heads, kv_heads, q_len, kv_len, head_dim}, span, scale);
}
KERNEL(kThreads, kShared64)
attention_decode_d64(float* __restrict__ part_o, float* __restrict__ part_lse, const bf16* __restrict__ q,
                     const bf16* __restrict__ k, const bf16* __restrict__ v, const uint32_t* __restrict__ starts, int heads,
                     int kv_heads, int q_len, int kv_len, int head_dim, int span, float scale) {
    decode<64, kShared64>(part_o, part_lse, q, k, v, starts, {heads, kv_heads, q_len, kv_len, head_dim}, span, scale);
}
KERNEL(kThreads, kShared96)
attention_decode_d96(float* __restrict__ part_o, float* __restrict__ part_lse, const bf16* __restrict__ q,
                     const bf16* __restrict__ k, const bf16* __restrict__ v, const uint32_t* __restrict__ starts, int heads,
                     int kv_heads, int q_len, int kv_len, int head_dim, int span, float scale) {
    decode<96, kShared96>(part_o, part_lse, q, k, v, starts, {heads, kv_heads, q_len, kv_len, head_dim}, span, scale);
}
KERNEL(kThreads, kShared128)
attention_decode_d128(float* __restrict__ part_o, float* __restrict__ part_lse, const bf16* __restrict__ q,
                      const bf16* __restrict__ k, const bf16* __restrict__ v, const uint32_t* __restrict__ starts, int heads,
                      int kv_heads, int q_len, int kv_len, int head_dim, int span, float scale) {
    decode<128, kShared128>(part_o, part_lse, q, k, v, starts, {heads, kv_heads, q_len, kv_len, head_dim}, span, scale);
}
KERNEL(kThreads)
attention_decode_combine(bf16* __restrict__ o, float* __restrict__ lse, const float* __restrict__ part_o,
                         const float* __restrict__ part_lse, int rows, int heads, int q_len, int head_dim, int splits) {
    const Shape s{heads, heads, q_len, q_len, head_dim};
    const int64_t at = (int64_t)blockIdx.x * kThreads + threadIdx.x;
    const int row = (int)(at / head_dim), col = (int)(at % head_dim), i = row % q_len, head = row / q_len % heads;
    if (row < rows) {
        const Result joined = join(part_o + at, (int64_t)rows * head_dim, part_lse + row, rows, splits);
        o[s.q_at(row / q_len / heads, i, head) + col] = f2bf(joined.o);
        if (col == 0) lse[row] = joined.lse;
    }
}
