// embedding: gather of rows, and its gradient without atomics
//   forward   y[n] = w[ids[n]]
//   backward  dw[v] = sum of dy[n] over the tokens n with ids[n] = v, in the order of n
//   sums      out[rows[i]] = sum of in[order[j]] over j from begins[i] up to begins[i + 1], in the order of j
//             embedding_bwd reads in = dy. With `order` the tokens sorted by id, stably, `rows` the ids that occur and `begins`
//             where each starts, that is the gradient; rows of dw that no token names keep their zeros.
//             A frequent id would keep one team busy for thousands of tokens: the host may cut it into segments whose sums go to
//             rows of a scratch tensor, and embedding_bwd_parts, which reads in = scratch, adds those.
//   shapes    ids: (rows)   y: (rows, cols)   w: (V, cols)   dy, parts: (.., cols)   dw, sums: (.., cols) f32
//             order: (tokens)   begins: (segments + 1)   rows: (segments), each row once;   cols a multiple of 8
//   launch    a team of threads, a power of two, per row or segment: team = cols / 32 rounded up in the forward, cols / 8 in the
//             backward, at most kThreads. Grid (ceil(rows / (kThreads / team))); backward (ceil(segments / (kThreads / team)),
//             ceil(cols / (8 team))).
//   numerics  the forward copies bits; the backward adds in f32
#include "ptx.cuh"
#include "stream.cuh"

constexpr int kThreads = 128;

template <class T>
DEV void add_segments(float* sums, const T* in, const uint32_t* order, const uint32_t* begins, const uint32_t* rows,
                      int segments, int cols, int team) {
    const int64_t segment = (int64_t)blockIdx.x * (kThreads / team) + (int)threadIdx.x / team;
    const int col = ((int)blockIdx.y * team + ((int)threadIdx.x & (team - 1))) * kVec;
    if (segment < segments && col < cols) {
        float sum[kVec] = {};
        const uint32_t end = begins[segment + 1];
        #pragma unroll 4
        for (uint32_t j = begins[segment]; j < end; j++) {
            float f[kVec];
            load_group(f, in + (int64_t)order[j] * cols + col);
            #pragma unroll
            for (int i = 0; i < kVec; i++) sum[i] += f[i];
        }
        store_group(sums + (int64_t)rows[segment] * cols + col, sum);
    }
}

KERNEL(kThreads) embedding_fwd(bf16* __restrict__ y, const uint32_t* __restrict__ ids, const bf16* __restrict__ w, int rows,
                               int cols, int team) {
    const int64_t row = (int64_t)blockIdx.x * (kThreads / team) + (int)threadIdx.x / team;
    if (row < rows) {
        const bf16* from = w + (int64_t)ids[row] * cols;
        bf16* to = y + row * cols;
        #pragma unroll 4
        for (int col = ((int)threadIdx.x & (team - 1)) * kVec; col < cols; col += team * kVec) {
            store8(to + col, load8(from + col));
        }
    }
}

KERNEL(kThreads) embedding_bwd(float* __restrict__ sums, const bf16* __restrict__ dy, const uint32_t* __restrict__ order,
                               const uint32_t* __restrict__ begins, const uint32_t* __restrict__ rows, int segments, int cols,
                               int team) {
    add_segments(sums, dy, order, begins, rows, segments, cols, team);
}

KERNEL(kThreads) embedding_bwd_parts(float* __restrict__ dw, const float* __restrict__ parts, const uint32_t* __restrict__ order,
                                     const uint32_t* __restrict__ begins, const uint32_t* __restrict__ rows, int segments,
                                     int cols, int team) {
    add_segments(dw, parts, order, begins, rows, segments, cols, team);
}
