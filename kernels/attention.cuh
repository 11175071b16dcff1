// attention: what its kernels share, which is extents, visibility, tiles in shared memory and their products
//   tiles      rows of D bf16 values, D = head_dim padded with zeros, at a pitch of D + 8 values. The pitch is an odd number of
//              16-byte chunks, so the eight rows that ldmatrix reads together lie in different banks, and every address is a
//              lane's own plus a constant (with an XOR swizzle it would have to be computed for each step).
//   products   mma.m16n8k16, bf16 in, f32 out. A warp owns 16 M rows of a product. Its sums in registers have the layout of the
//              next product's left operand, so scores become weights without shared memory.
//   registers  sums[m][n][e] of a lane is row 16 m + lane / 4 + 8 (e / 2), column 8 n + 2 (lane % 4) + e % 2.
#pragma once
#include "reduce.cuh"
#include "vec8.cuh"

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * kWarp;
constexpr int kFrag = 16;       // rows of a left operand, and depth of one step
constexpr int kPad = 8;         // values between the rows of a tile

constexpr float kLowest = -1e30f;  // loses against every score, and its distance to -inf is not NaN
constexpr float kSlack = 8.0f;     // a softmax lets its weights grow to 2^kSlack

template <int D> constexpr int kPitch = (D + kPad) * kValueBytes;

// Extents of one call; the queries are the last q_len of the kv_len tokens.
struct Shape {
    int heads, kv_heads, q_len, kv_len, head_dim;

    DEV int group() const { return heads / kv_heads; }
    DEV int q_stride() const { return heads * head_dim; }
    DEV int kv_stride() const { return kv_heads * head_dim; }
    // The token that query i is: the last key that it sees.
    DEV int own(int i) const { return kv_len - q_len + i; }
    // Where a row begins in q (B,q_len,H,head_dim), in k (B,kv_len,Hkv,head_dim), in lse (B,H,q_len).
    DEV int64_t q_at(int batch, int i, int head) const { return (((int64_t)batch * q_len + i) * heads + head) * head_dim; }
    DEV int64_t kv_at(int batch, int j, int head) const { return (((int64_t)batch * kv_len + j) * kv_heads + head) * head_dim; }
    DEV int64_t row_at(int batch, int head, int i) const { return ((int64_t)batch * heads + head) * q_len + i; }
    // The first visible key of each query, from the table (2, batches q_len): one half of the heads after the other.
    DEV const uint32_t* starts(const uint32_t* table, int batches, int batch, int head) const {
        const int half = head * 2 >= heads ? 1 : 0;
        return table + ((int64_t)half * batches + batch) * q_len;
    }
};

// What `count` queries from `first` on see of the keys: some see `from`, some see `to`; all see `all_from` to `all_to`.
struct Seen {
    int from, to, all_from, all_to;

    // Queries beyond the last see nothing.
    DEV Seen(const uint32_t* starts, const Shape& s, int first, int count) {
        const int last = min(first + count, s.q_len) - 1;
        from = first <= last ? (int)starts[first] : 0;
        to = first <= last ? s.own(last) : -1;
        all_from = first <= last ? (int)starts[last] : 0;
        all_to = s.own(first);
    }
    DEV bool some(int key, int count) const { return key <= to && key + count > from; }
    DEV bool all(int key, int count) const { return key >= all_from && key + count - 1 <= all_to; }
};

// Hides, in one of the two rows that a lane has of a fragment, the columns that are not `first` to `last`.
template <int N> DEV void hide(float (&scores)[N][4], int half, int first, int last) {
    const int lane_col = threadIdx.x % 4 * 2;
    #pragma unroll
    for (int n = 0; n < N; n++) {
        #pragma unroll
        for (int e = 0; e < 2; e++) {
            const int col = n * 8 + e;
            if (col < first - lane_col || col > last - lane_col) scores[n][half * 2 + e] = -INFINITY;
        }
    }
}

// Hides from queries `query`, `query + 1`, ... the keys that they do not see; the first column is `key`.
template <int M, int N>
DEV void hide_keys(float (&scores)[M][N][4], const uint32_t* starts, const Shape& s, int query, int key) {
    #pragma unroll
    for (int m = 0; m < M; m++) {
        #pragma unroll
        for (int half = 0; half < 2; half++) {
            const int i = min(query + m * kFrag + half * 8 + (int)(threadIdx.x % kWarp / 4), s.q_len - 1);
            hide(scores[m], half, (int)starts[i] - key, s.own(i) - key);
        }
    }
}

// Starts the copy of `kRows` rows, `stride` apart, into a tile; rows from `rows` on and columns from `head_dim` on become zeros.
template <int D, int kRows, int kTeam = kThreads>
DEV void load_tile(uint32_t tile, const bf16* from, int rows, int stride, int head_dim) {
    constexpr int kChunks = D / kVec, kStep = kTeam / kChunks;
    static_assert(kTeam % kWarp == 0 && kStep > 0, "attention: whole warps copy whole rows");
    const int thread = threadIdx.x % kTeam, first = thread / kChunks, col = thread % kChunks * kVec;
    constexpr bool kEven = kTeam % kChunks == 0 && kRows % kStep == 0;
    // Threads that are left over when kStep rows are dealt out have none.
    const int there = first < kStep && col < head_dim ? rows - first : 0;
    tile += first * kPitch<D> + col * kValueBytes;
    from += first * stride + col;
    #pragma unroll
    for (int row = 0; row < kRows; row += kStep) {
        if (kEven || first < min(kStep, kRows - row)) cp_async_16(tile + row * kPitch<D>, from, row < there ? 16 : 0);
        from += kStep * stride;
    }
}

// A lane's part of the address of a left operand, or of a right operand whose rows are the depth (transposed on the way).
template <int D> DEV uint32_t lane_rows() {
    const int lane = threadIdx.x % kWarp;
    return lane % 16 * kPitch<D> + lane / 16 * 16;
}

// The same for a right operand whose rows are columns of the product.
template <int D> DEV uint32_t lane_cols() {
    const int lane = threadIdx.x % kWarp;
    return (lane % 8 + lane / 16 * 8) * kPitch<D> + lane / 8 % 2 * 16;
}

// sums += A B': 16 M rows of the tile at `a` by 8 N rows of the tile at `b`.
template <int D, int M, int N> DEV void add_scores(float (&sums)[M][N][4], uint32_t a, uint32_t b) {
    static_assert(D % kFrag == 0 && N % 2 == 0, "attention: tiles are whole fragments");
    a += lane_rows<D>();
    b += lane_cols<D>();
    #pragma unroll
    for (int d = 0; d < D; d += kFrag) {
        uint32_t left[M][4];
        #pragma unroll
        for (int m = 0; m < M; m++) ldmatrix_x4(left[m], a + m * kFrag * kPitch<D> + d * kValueBytes);
        #pragma unroll
        for (int n = 0; n < N; n += 2) {
            uint32_t right[4];
            ldmatrix_x4(right, b + n * 8 * kPitch<D> + d * kValueBytes);
            #pragma unroll
            for (int m = 0; m < M; m++) {
                mma_m16n8k16_bf16(sums[m][n], left[m], right[0], right[1]);
                mma_m16n8k16_bf16(sums[m][n + 1], left[m], right[2], right[3]);
            }
        }
    }
}

// sums += W B: weights (16 M, 8 K), two of a row in 32 bits, by the 8 K rows of the tile at `b`.
template <int D, int M, int K>
DEV void add_weighted(float (&sums)[M][D / 8][4], const uint32_t (&weights)[M][K][2], uint32_t b) {
    static_assert(D % kFrag == 0 && K % 2 == 0, "attention: tiles are whole fragments");
    b += lane_rows<D>();
    #pragma unroll
    for (int k = 0; k < K; k += 2) {
        uint32_t left[M][4];
        #pragma unroll
        for (int m = 0; m < M; m++) {
            #pragma unroll
            for (int i = 0; i < 4; i++) left[m][i] = weights[m][k + i / 2][i % 2];
        }
        #pragma unroll
        for (int n = 0; n < D / 8; n += 2) {
            uint32_t right[4];
            ldmatrix_x4_trans(right, b + k * 8 * kPitch<D> + n * 8 * kValueBytes);
            #pragma unroll
            for (int m = 0; m < M; m++) {
                mma_m16n8k16_bf16(sums[m][n], left[m], right[0], right[1]);
                mma_m16n8k16_bf16(sums[m][n + 1], left[m], right[2], right[3]);
            }
        }
    }
}

// Over the four lanes that share a row.
DEV float row_sum(float v) { return lanes_reduce<Sum>(v, 4); }
DEV float row_max(float v) { return lanes_reduce<Max>(v, 4); }

// A lane's rows of a softmax over the keys so far: weights are 2^(scale2 (S - reference)).
template <int M> struct Softmax {
    float reference[M][2], sum[M][2];

    DEV Softmax() {
        #pragma unroll
        for (int m = 0; m < M; m++) {
            #pragma unroll
            for (int half = 0; half < 2; half++) reference[m][half] = kLowest, sum[m][half] = 0.0f;
        }
    }

    // Makes the maximum of a row its reference where the two have come too far apart.
    template <int N, int W> DEV void follow_maximum(const float (&scores)[N][4], float (&out)[W][4], int m, float scale2) {
        float high[2];
        bool far = false;
        #pragma unroll
        for (int half = 0; half < 2; half++) {
            high[half] = reference[m][half];
            #pragma unroll
            for (int n = 0; n < N; n++) high[half] = fmaxf(high[half], fmaxf(scores[n][half * 2], scores[n][half * 2 + 1]));
            high[half] = row_max(high[half]);
            far = far || (high[half] - reference[m][half]) * scale2 > kSlack;
        }
        if (!__any_sync(~0u, far)) return;
        #pragma unroll
        for (int half = 0; half < 2; half++) {
            const float shrink = ex2((reference[m][half] - high[half]) * scale2);
            reference[m][half] = high[half];
            sum[m][half] *= shrink;
            #pragma unroll
            for (int w = 0; w < W; w++) out[w][half * 2] *= shrink, out[w][half * 2 + 1] *= shrink;
        }
    }

    // Weights of a tile of scores; `out`, weighted so far, follows the reference.
    template <int N, int W>
    DEV void step(uint32_t (&weights)[M][N][2], const float (&scores)[M][N][4], float (&out)[M][W][4], float scale2) {
        #pragma unroll
        for (int m = 0; m < M; m++) {
            follow_maximum(scores[m], out[m], m, scale2);
            // Both rows of a fragment in turn: its scores leave whole register quads to the weights.
            #pragma unroll
            for (int n = 0; n < N; n++) {
                #pragma unroll
                for (int half = 0; half < 2; half++) {
                    const float shift = reference[m][half] * scale2;
                    const float a = ex2(fmaf(scores[m][n][half * 2], scale2, -shift));
                    const float b = ex2(fmaf(scores[m][n][half * 2 + 1], scale2, -shift));
                    sum[m][half] += a + b;
                    weights[m][n][half] = pack_bf16(a, b);
                }
            }
        }
    }
};

// Rounds a warp's 16 M rows to bf16 and writes the first `rows` of them, `stride` apart, by way of as many rows of a tile that no
// other warp reads any more.
template <int D, int M>
DEV void store_rows(bf16* to, const float (&sums)[M][D / 8][4], uint8_t* tile, int rows, int stride, int head_dim) {
    const int lane = threadIdx.x % kWarp;
    __syncwarp();
    #pragma unroll
    for (int m = 0; m < M; m++) {
        #pragma unroll
        for (int half = 0; half < 2; half++) {
            uint32_t* row = (uint32_t*)(tile + (m * kFrag + half * 8 + lane / 4) * kPitch<D>);
            #pragma unroll
            for (int n = 0; n < D / 8; n++) row[n * 4 + lane % 4] = pack_bf16(sums[m][n][half * 2], sums[m][n][half * 2 + 1]);
        }
    }
    __syncwarp();
    #pragma unroll
    for (int i = 0; i < M * kFrag * D / kVec; i += kWarp) {
        const int row = (i + lane) / (D / kVec), col = (i + lane) % (D / kVec) * kVec;
        const uint4* chunk = (const uint4*)(tile + row * kPitch<D> + col * kValueBytes);
        if (row < rows && col < head_dim) store8(to + (int64_t)row * stride + col, *chunk);
    }
}
