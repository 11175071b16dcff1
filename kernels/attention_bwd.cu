// attention_bwd: gradients of attention.cu, recomputed from q, k, v and lse; no product adds into memory, so runs are bit-equal
//   forward   attention.cu: S = scale q k', P = exp(S - lse), o = P v
//   backward  delta = rowsum(dout o),  dP = dout v',  dS = P (dP - delta),
//             dq = scale dS k,  dk = scale dS' q,  dv = P' dout;  dk and dv sum over the heads that share a kv head
//   shapes    q, o, dout, dq: (B,T,H,head_dim)   k, v, dk, dv: (B,T,Hkv,head_dim)   lse, delta: (B,H,T) f32
//             starts: (2,B,T), head_dim, scale: as in attention.cu, with q_len = kv_len = T
//   launch    delta: grid (ceil(T / kDeltaRows), H, B), four threads share a row.
//             q: grid (ceil(T / kQueryRows), H, B); a block walks the keys that its queries see.
//             kv: grid (ceil(T / kKeyRows), Hkv, B); a block walks, head by head of the group, the queries that see its keys:
//             from the first key's own to the last whose start is not beyond the last key.
//             Both walk in stages of kStage rows; the next arrives during the products. A warp leaves out stages that its rows
//             have nothing to do with, and masks only those that some see in part.
//   numerics  S, dP and all sums in f32; P and dS are rounded to bf16 for the products, dq, dk, dv once at the end. The kv kernel
//             computes S' and dP', whose registers are the left operands of dv and dk. Stages are added in rising order.
#include "attention.cuh"

constexpr int kStage = 32;  // rows that arrive together
constexpr int kStages = 2;
constexpr int kDeltaTeam = 4;
constexpr int kDeltaRows = kThreads / kDeltaTeam;

// Rows of a block, as many as registers allow: 16 or 32 to a warp. dq is one sum, dk and dv are two.
constexpr int kQueryRows32 = 128;
constexpr int kQueryRows64 = 128;
constexpr int kQueryRows96 = 128;
constexpr int kQueryRows128 = 64;
constexpr int kKeyRows32 = 128;
constexpr int kKeyRows64 = 128;
constexpr int kKeyRows96 = 64;
constexpr int kKeyRows128 = 64;

// Bytes of shared memory: two tiles of a block's rows, the stages with two tiles each and, for kv, what goes with their queries.
constexpr int kStaged = kStages * 2 * kStage;
constexpr int kQueryStats = kStages * kStage * 12;
constexpr int kSharedQ32 = (2 * kQueryRows32 + kStaged) * (32 + kPad) * kValueBytes;
constexpr int kSharedQ64 = (2 * kQueryRows64 + kStaged) * (64 + kPad) * kValueBytes;
constexpr int kSharedQ96 = (2 * kQueryRows96 + kStaged) * (96 + kPad) * kValueBytes;
constexpr int kSharedQ128 = (2 * kQueryRows128 + kStaged) * (128 + kPad) * kValueBytes;
constexpr int kSharedKv32 = (2 * kKeyRows32 + kStaged) * (32 + kPad) * kValueBytes + kQueryStats;
constexpr int kSharedKv64 = (2 * kKeyRows64 + kStaged) * (64 + kPad) * kValueBytes + kQueryStats;
constexpr int kSharedKv96 = (2 * kKeyRows96 + kStaged) * (96 + kPad) * kValueBytes + kQueryStats;
constexpr int kSharedKv128 = (2 * kKeyRows128 + kStaged) * (128 + kPad) * kValueBytes + kQueryStats;

template <int M, int N> DEV void pack(uint32_t (&weights)[M][N][2], const float (&sums)[M][N][4]) {
    #pragma unroll
    for (int m = 0; m < M; m++) {
        #pragma unroll
        for (int n = 0; n < N; n++) {
            #pragma unroll
            for (int h = 0; h < 2; h++) weights[m][n][h] = pack_bf16(sums[m][n][h * 2], sums[m][n][h * 2 + 1]);
        }
    }
}

template <int M, int N> DEV void scale_all(float (&sums)[M][N][4], float factor) {
    #pragma unroll
    for (int m = 0; m < M; m++) {
        #pragma unroll
        for (int n = 0; n < N; n++) {
            #pragma unroll
            for (int e = 0; e < 4; e++) sums[m][n][e] *= factor;
        }
    }
}

template <int D, int kRows, int kShared>
DEV void backward_q(bf16* dq, const bf16* dout, const bf16* q, const bf16* k, const bf16* v, const float* lse,
                    const float* delta, const uint32_t* table, const Shape& s, float scale) {
    constexpr int M = kRows / kWarps / kFrag, kResident = kRows * kPitch<D>, kTile = kStage * kPitch<D>;
    static_assert(kShared == 2 * kResident + kStages * 2 * kTile, "attention: shared memory is q, dout, stages of k and v");
    SHARED_DYN(shared);
    const int batch = blockIdx.z, head = blockIdx.y, kv_head = head / s.group(), lane = threadIdx.x % kWarp;
    const int first = (gridDim.x - 1 - blockIdx.x) * kRows, warp_row = threadIdx.x / kWarp * M * kFrag;
    const uint32_t q_tile = smem_u32(shared), dout_tile = q_tile + kResident, stages = dout_tile + kResident;
    const uint32_t* starts = s.starts(table, gridDim.z, batch, head);
    const Seen block(starts, s, first, kRows), warp(starts, s, first + warp_row, M * kFrag);
    const int64_t kv_row = s.kv_at(batch, 0, kv_head);
    const auto load_stage = [&](int key, int stage) {
        const int64_t at = kv_row + (int64_t)key * s.kv_stride();
        const uint32_t k_tile = stages + stage * 2 * kTile;
        load_tile<D, kStage>(k_tile, k + at, block.to + 1 - key, s.kv_stride(), s.head_dim);
        load_tile<D, kStage>(k_tile + kTile, v + at, block.to + 1 - key, s.kv_stride(), s.head_dim);
        cp_async_commit();
    };

    int key = block.from / kStage * kStage;
    const int64_t at = s.q_at(batch, first, head), row = s.row_at(batch, head, 0);
    load_tile<D, kRows>(q_tile, q + at, s.q_len - first, s.q_stride(), s.head_dim);
    load_tile<D, kRows>(dout_tile, dout + at, s.q_len - first, s.q_stride(), s.head_dim);
    load_stage(key, 0);
    float shift[M][2], row_delta[M][2];  // of queries beyond the last: as of the last, for finite numbers
    #pragma unroll
    for (int m = 0; m < M; m++) {
        #pragma unroll
        for (int half = 0; half < 2; half++) {
            const int i = min(first + warp_row + m * kFrag + half * 8 + lane / 4, s.q_len - 1);
            shift[m][half] = lse[row + i] * kLog2e;
            row_delta[m][half] = delta[row + i];
        }
    }
    float sums[M][D / 8][4] = {};
    for (int stage = 0; key <= block.to; key += kStage, stage ^= 1) {
        cp_async_wait<0>();
        __syncthreads();  // this stage is there, and every warp is done with the other
        if (key + kStage <= block.to) load_stage(key + kStage, stage ^ 1);
        if (!warp.some(key, kStage)) continue;
        const uint32_t k_tile = stages + stage * 2 * kTile;
        float scores[M][kStage / 8][4] = {}, grads[M][kStage / 8][4];
        #pragma unroll
        for (int m = 0; m < M; m++) {
            #pragma unroll
            for (int n = 0; n < kStage / 8; n++) {
                #pragma unroll
                for (int e = 0; e < 4; e++) grads[m][n][e] = -row_delta[m][e / 2];
            }
        }
        add_scores<D>(scores, q_tile + warp_row * kPitch<D>, k_tile);
        if (!warp.all(key, kStage)) hide_keys(scores, starts, s, first + warp_row, key);
        add_scores<D>(grads, dout_tile + warp_row * kPitch<D>, k_tile + kTile);
        uint32_t weights[M][kStage / 8][2];
        #pragma unroll
        for (int m = 0; m < M; m++) {
            #pragma unroll
            for (int n = 0; n < kStage / 8; n++) {
                #pragma unroll
                for (int half = 0; half < 2; half++) {
                    const int e = half * 2;
                    const float a = ex2(fmaf(scores[m][n][e], scale * kLog2e, -shift[m][half])) * grads[m][n][e];
                    const float b = ex2(fmaf(scores[m][n][e + 1], scale * kLog2e, -shift[m][half])) * grads[m][n][e + 1];
                    weights[m][n][half] = pack_bf16(a, b);
                }
            }
        }
        add_weighted<D>(sums, weights, k_tile);
    }
    scale_all(sums, scale);
    const int warp_first = first + warp_row;
    store_rows<D>(dq + s.q_at(batch, warp_first, head), sums, shared + warp_row * kPitch<D>, s.q_len - warp_first, s.q_stride(),
                  s.head_dim);
}

// What goes with the queries of a stage.
struct QueryStats {
    float shift[kStage], delta[kStage];
    uint32_t start[kStage];
};
static_assert(sizeof(QueryStats) * kStages == kQueryStats, "attention: bytes of what goes with the queries");

// The first of the queries from `low` on whose start is beyond `key`: it and all after it do not see the key.
DEV int first_blind(const uint32_t* starts, int low, int q_len, int key) {
    int high = q_len;
    while (low < high) {
        const int middle = low + (high - low) / 2;
        if ((int)starts[middle] <= key) low = middle + 1;
        else high = middle;
    }
    return low;
}

template <int D, int kRows, int kShared>
DEV void backward_kv(bf16* dk, bf16* dv, const bf16* dout, const bf16* q, const bf16* k, const bf16* v, const float* lse,
                     const float* delta, const uint32_t* table, const Shape& s, float scale) {
    constexpr int M = kRows / kWarps / kFrag, kResident = kRows * kPitch<D>, kTile = kStage * kPitch<D>;
    static_assert(kShared == 2 * kResident + kStages * (2 * kTile + (int)sizeof(QueryStats)),
                  "attention: shared memory is k, v and the stages of q and dout with what goes with them");
    SHARED_DYN(shared);
    const int batch = blockIdx.z, kv_head = blockIdx.y, lane = threadIdx.x % kWarp;
    const int first = blockIdx.x * kRows, last = min(first + kRows, s.kv_len) - 1;
    const int warp_row = threadIdx.x / kWarp * M * kFrag, warp_first = first + warp_row, warp_last = warp_first + M * kFrag - 1;
    const uint32_t k_tile = smem_u32(shared), v_tile = k_tile + kResident, stages = v_tile + kResident;
    QueryStats* stats = (QueryStats*)(shared + 2 * kResident + kStages * 2 * kTile);

    struct At { int head, query; };
    const auto load_stage = [&](At at, int stage) {
        const int64_t row = s.q_at(batch, at.query, at.head);
        const uint32_t q_tile = stages + stage * 2 * kTile;
        load_tile<D, kStage>(q_tile, q + row, s.q_len - at.query, s.q_stride(), s.head_dim);
        load_tile<D, kStage>(q_tile + kTile, dout + row, s.q_len - at.query, s.q_stride(), s.head_dim);
        cp_async_commit();
    };
    // One warp: a lane's query of a stage. Beyond the last query nothing is seen: P = 2^-inf.
    float shift = 0.0f, query_delta = 0.0f;
    uint32_t start = 0;
    const auto read_stats = [&](At at) {
        if (threadIdx.x >= kStage) return;
        const int i = at.query + lane;
        const int64_t row = s.row_at(batch, at.head, min(i, s.q_len - 1));
        shift = i < s.q_len ? lse[row] * kLog2e : INFINITY;
        query_delta = delta[row];
        start = s.starts(table, gridDim.z, batch, at.head)[min(i, s.q_len - 1)];
    };
    const auto write_stats = [&](int stage) {
        if (threadIdx.x >= kStage) return;
        stats[stage].shift[lane] = shift;
        stats[stage].delta[lane] = query_delta;
        stats[stage].start[lane] = start;
    };

    At at = {kv_head * s.group(), first};
    const int64_t key_row = s.kv_at(batch, first, kv_head);
    load_tile<D, kRows>(k_tile, k + key_row, s.kv_len - first, s.kv_stride(), s.head_dim);
    load_tile<D, kRows>(v_tile, v + key_row, s.kv_len - first, s.kv_stride(), s.head_dim);
    load_stage(at, 0);
    read_stats(at);
    write_stats(0);
    // The heads of the group in turn, and of each the queries from `first` to the end for its half of the heads. The searches
    // take as long as the copies under way.
    const int head_end = (kv_head + 1) * s.group();
    const int end0 = first_blind(s.starts(table, gridDim.z, batch, 0), last + 1, s.q_len, last);
    const int end1 = first_blind(s.starts(table, gridDim.z, batch, s.heads - 1), last + 1, s.q_len, last);
    const auto next = [&](At at) {
        const bool more = at.query + kStage < (at.head * 2 >= s.heads ? end1 : end0);
        return more ? At{at.head, at.query + kStage} : At{at.head + 1, first};
    };
    float k_sums[M][D / 8][4] = {}, v_sums[M][D / 8][4] = {};
    for (int stage = 0; at.head < head_end; stage ^= 1) {
        cp_async_wait<0>();
        __syncthreads();  // this stage is there, and every warp is done with the other
        const At following = next(at);
        if (following.head < head_end) {
            load_stage(following, stage ^ 1);
            read_stats(following);
        }
        const QueryStats& now = stats[stage];
        if (at.query + kStage > warp_first && (int)now.start[0] <= warp_last) {
            const uint32_t q_tile = stages + stage * 2 * kTile;
            float scores[M][kStage / 8][4] = {}, grads[M][kStage / 8][4];
            #pragma unroll
            for (int n = 0; n < kStage / 8; n++) {
                const float2 d = *(const float2*)&now.delta[n * 8 + lane % 4 * 2];
                #pragma unroll
                for (int m = 0; m < M; m++) {
                    grads[m][n][0] = grads[m][n][2] = -d.x;
                    grads[m][n][1] = grads[m][n][3] = -d.y;
                }
            }
            add_scores<D>(scores, k_tile + warp_row * kPitch<D>, q_tile);
            add_scores<D>(grads, v_tile + warp_row * kPitch<D>, q_tile + kTile);
            const bool all = at.query >= warp_last && (int)now.start[kStage - 1] <= warp_first;
            #pragma unroll
            for (int n = 0; n < kStage / 8; n++) {
                const float2 shifts = *(const float2*)&now.shift[n * 8 + lane % 4 * 2];
                #pragma unroll
                for (int m = 0; m < M; m++) {
                    #pragma unroll
                    for (int e = 0; e < 4; e++) {
                        float p = ex2(fmaf(scores[m][n][e], scale * kLog2e, e % 2 == 0 ? -shifts.x : -shifts.y));
                        if (!all) {
                            const int col = n * 8 + lane % 4 * 2 + e % 2, key = warp_first + m * kFrag + e / 2 * 8 + lane / 4;
                            if (key < (int)now.start[col] || key > at.query + col) p = 0.0f;
                        }
                        scores[m][n][e] = p;
                        grads[m][n][e] *= p;
                    }
                }
            }
            uint32_t weights[M][kStage / 8][2];
            pack(weights, scores);
            add_weighted<D>(v_sums, weights, q_tile + kTile);
            pack(weights, grads);
            add_weighted<D>(k_sums, weights, q_tile);
        }
        write_stats(stage ^ 1);
        at = following;
    }
    scale_all(k_sums, scale);
    const int64_t warp_at = s.kv_at(batch, warp_first, kv_head);
    const int there = s.kv_len - warp_first;
    store_rows<D>(dk + warp_at, k_sums, shared + warp_row * kPitch<D>, there, s.kv_stride(), s.head_dim);
    store_rows<D>(dv + warp_at, v_sums, shared + kResident + warp_row * kPitch<D>, there, s.kv_stride(), s.head_dim);
}

KERNEL(kThreads)
attention_bwd_delta(float* __restrict__ delta, const bf16* __restrict__ dout, const bf16* __restrict__ o, int heads, int q_len,
                    int head_dim) {
    const Shape s{heads, heads, q_len, q_len, head_dim};
    const int lane = threadIdx.x % kDeltaTeam, i = blockIdx.x * kDeltaRows + threadIdx.x / kDeltaTeam;
    const int64_t at = s.q_at(blockIdx.z, i, blockIdx.y);
    float sum = 0.0f;
    if (i < q_len) {
        #pragma unroll 4
        for (int d = lane * kVec; d < head_dim; d += kDeltaTeam * kVec) {
            float a[8], b[8];
            unpack8(a, load8(dout + at + d));
            unpack8(b, load8(o + at + d));
            #pragma unroll
            for (int j = 0; j < 8; j++) sum += a[j] * b[j];
        }
    }
    sum = row_sum(sum);
    if (i < q_len && lane == 0) delta[s.row_at(blockIdx.z, blockIdx.y, i)] = sum;
}

KERNEL(kThreads, kSharedQ32)
attention_bwd_q_d32(bf16* __restrict__ dq, const bf16* __restrict__ dout, const bf16* __restrict__ q,
                    const bf16* __restrict__ k, const bf16* __restrict__ v, const float* __restrict__ lse,
                    const float* __restrict__ delta, const uint32_t* __restrict__ starts, int heads, int kv_heads, int tokens,
                    int head_dim, float scale) {
    backward_q<32, kQueryRows32, kSharedQ32>(dq, dout, q, k, v, lse, delta, starts,
                                             {heads, kv_heads, tokens, tokens, head_dim}, scale);
}
KERNEL(kThreads, kSharedQ64)
attention_bwd_q_d64(bf16* __restrict__ dq, const bf16* __restrict__ dout, const bf16* __restrict__ q,
                    const bf16* __restrict__ k, const bf16* __restrict__ v, const float* __restrict__ lse,
                    const float* __restrict__ delta, const uint32_t* __restrict__ starts, int heads, int kv_heads, int tokens,
                    int head_dim, float scale) {
    backward_q<64, kQueryRows64, kSharedQ64>(dq, dout, q, k, v, lse, delta, starts,
                                             {heads, kv_heads, tokens, tokens, head_dim}, scale);
}
KERNEL(kThreads, kSharedQ96)
attention_bwd_q_d96(bf16* __restrict__ dq, const bf16* __restrict__ dout, const bf16* __restrict__ q,
                    const bf16* __restrict__ k, const bf16* __restrict__ v, const float* __restrict__ lse,
                    const float* __restrict__ delta, const uint32_t* __restrict__ starts, int heads, int kv_heads, int tokens,
                    int head_dim, float scale) {
    backward_q<96, kQueryRows96, kSharedQ96>(dq, dout, q, k, v, lse, delta, starts,
                                             {heads, kv_heads, tokens, tokens, head_dim}, scale);
}
KERNEL(kThreads, kSharedQ128)
attention_bwd_q_d128(bf16* __restrict__ dq, const bf16* __restrict__ dout, const bf16* __restrict__ q,
                     const bf16* __restrict__ k, const bf16* __restrict__ v, const float* __restrict__ lse,
                     const float* __restrict__ delta, const uint32_t* __restrict__ starts, int heads, int kv_heads, int tokens,
                     int head_dim, float scale) {
    backward_q<128, kQueryRows128, kSharedQ128>(dq, dout, q, k, v, lse, delta, starts,
                                                {heads, kv_heads, tokens, tokens, head_dim}, scale);
}
KERNEL(kThreads, kSharedKv32)
attention_bwd_kv_d32(bf16* __restrict__ dk, bf16* __restrict__ dv, const bf16* __restrict__ dout, const bf16* __restrict__ q,
                     const bf16* __restrict__ k, const bf16* __restrict__ v, const float* __restrict__ lse,
                     const float* __restrict__ delta, const uint32_t* __restrict__ starts, int heads, int kv_heads, int tokens,
                     int head_dim, float scale) {
    backward_kv<32, kKeyRows32, kSharedKv32>(dk, dv, dout, q, k, v, lse, delta, starts,
                                             {heads, kv_heads, tokens, tokens, head_dim}, scale);
}
KERNEL(kThreads, kSharedKv64)
attention_bwd_kv_d64(bf16* __restrict__ dk, bf16* __restrict__ dv, const bf16* __restrict__ dout, const bf16* __restrict__ q,
                     const bf16* __restrict__ k, const bf16* __restrict__ v, const float* __restrict__ lse,
                     const float* __restrict__ delta, const uint32_t* __restrict__ starts, int heads, int kv_heads, int tokens,
                     int head_dim, float scale) {
    backward_kv<64, kKeyRows64, kSharedKv64>(dk, dv, dout, q, k, v, lse, delta, starts,
                                             {heads, kv_heads, tokens, tokens, head_dim}, scale);
}
KERNEL(kThreads, kSharedKv96)
attention_bwd_kv_d96(bf16* __restrict__ dk, bf16* __restrict__ dv, const bf16* __restrict__ dout, const bf16* __restrict__ q,
                     const bf16* __restrict__ k, const bf16* __restrict__ v, const float* __restrict__ lse,
                     const float* __restrict__ delta, const uint32_t* __restrict__ starts, int heads, int kv_heads, int tokens,
                     int head_dim, float scale) {
    backward_kv<96, kKeyRows96, kSharedKv96>(dk, dv, dout, q, k, v, lse, delta, starts,
                                             {heads, kv_heads, tokens, tokens, head_dim}, scale);
}
KERNEL(kThreads, kSharedKv128)
attention_bwd_kv_d128(bf16* __restrict__ dk, bf16* __restrict__ dv, const bf16* __restrict__ dout, const bf16* __restrict__ q,
                      const bf16* __restrict__ k, const bf16* __restrict__ v, const float* __restrict__ lse,
                      const float* __restrict__ delta, const uint32_t* __restrict__ starts, int heads, int kv_heads, int tokens,
                      int head_dim, float scale) {
    backward_kv<128, kKeyRows128, kSharedKv128>(dk, dv, dout, q, k, v, lse, delta, starts,
                                                {heads, kv_heads, tokens, tokens, head_dim}, scale);
}
