// rms_norm: root-mean-square normalisation of rows, alone or with the residual sum before it
//   forward   h = x + residual (or h = x),  r = 1 / sqrt(mean(h^2) + eps),  y = h r w
//   backward  dx = r (dy w - h r^2 mean(dy w h)) [+ dh],  dw = sum over rows of dy h r
//   shapes    x, residual, h, y, dy, dx, dh: (rows, cols)   w: (cols)   rstd: (rows) f32   partial: (parts, cols) f32
//             cols a multiple of 8, at most 8192; for qk-norm rows = B T heads, cols = head_dim
//   launch    a team of threads, a power of two, shares a row and keeps it in registers, so every tensor is read once.
//             fwd, bwd_x: team = cols / 32 rounded up, at least 4 (a thread holds four vectors of eight); a team beyond one warp
//             meets at a barrier. Grid (ceil(rows / (kThreads / team))).
//             bwd_w: as in columns.cuh; sum_rows adds the parts.
//   numerics  f32 throughout; h is rounded to bf16 first and normalised as rounded, so that a recomputation from the stored h
//             gives the same bits; y and dx are rounded once. A sum's order depends on cols, rows and parts only.
#include "ptx.cuh"
#include "columns.cuh"
#include "reduce.cuh"
#include "vec8.cuh"

constexpr int kThreads = 256;
constexpr int kVecs = 4;  // 16-byte vectors of a row that one thread holds

// The part of a row that belongs to a thread: vectors lane, lane + team, ...; none beyond the last row.
struct Share {
    int64_t row;
    int lane, team, vecs;

    DEV Share(int rows, int cols, int team) : team(team) {
        row = (int64_t)blockIdx.x * (kThreads / team) + (int)threadIdx.x / team;
        lane = threadIdx.x & (team - 1);
        vecs = row < rows ? cols / kVec : 0;
    }
    DEV int at(int j) const { return lane + j * team; }
    DEV bool has(int j) const { return at(j) < vecs; }
};

// Zeros where the share ends, which add nothing to a sum.
DEV void load_share(uint4 (&held)[kVecs], const bf16* line, const Share& s) {
    #pragma unroll
    for (int j = 0; j < kVecs; j++) held[j] = s.has(j) ? load8(line + s.at(j) * kVec) : make_uint4(0, 0, 0, 0);
}

// Writes bf16(h r w).
DEV void normalise(bf16* y, float* rstd, const uint4 (&h)[kVecs], const bf16* w, const Share& s, int cols, float eps) {
    uint4 weight[kVecs];
    load_share(weight, w, s);
    float squares = 0.0f;
    #pragma unroll
    for (int j = 0; j < kVecs; j++) {
        float f[8];
        unpack8(f, h[j]);
        #pragma unroll
        for (int i = 0; i < 8; i++) squares += f[i] * f[i];
    }
    const float r = rsqrtf(team_sum<kThreads>(squares, s.team) / (float)cols + eps);
    if (s.vecs > 0 && s.lane == 0) rstd[s.row] = r;
    #pragma unroll
    for (int j = 0; j < kVecs; j++) {
        float f[8], g[8];
        unpack8(f, h[j]);
        unpack8(g, weight[j]);
        #pragma unroll
        for (int i = 0; i < 8; i++) f[i] = f[i] * r * g[i];
        if (s.has(j)) store8(y + s.row * cols + s.at(j) * kVec, pack8(f));
    }
}

// dx = r (dy w - x r^2 mean(dy w x)), plus dh where kAdd.
template <bool kAdd>
DEV void backward_x(bf16* dx, const bf16* dy, const bf16* x, const bf16* w, const float* rstd, const bf16* dh, int rows,
                    int cols, int team) {
    const Share s(rows, cols, team);
    const int64_t row = s.row * cols;
    uint4 dys[kVecs], xs[kVecs], ws[kVecs], dhs[kVecs];
    load_share(dys, dy + row, s);
    load_share(xs, x + row, s);
    load_share(ws, w, s);
    if constexpr (kAdd) load_share(dhs, dh + row, s);
    const float r = s.vecs > 0 ? rstd[s.row] : 0.0f;
    float dot = 0.0f;
    #pragma unroll
    for (int j = 0; j < kVecs; j++) {
        float a[8], b[8], c[8];
        unpack8(a, dys[j]);
        unpack8(b, xs[j]);
        unpack8(c, ws[j]);
        #pragma unroll
        for (int i = 0; i < 8; i++) dot += a[i] * c[i] * b[i];
    }
    const float m = r * r * (team_sum<kThreads>(dot, team) / (float)cols);
    #pragma unroll
    for (int j = 0; j < kVecs; j++) {
        float a[8], b[8], c[8];
        unpack8(a, dys[j]);
        unpack8(b, xs[j]);
        unpack8(c, ws[j]);
        #pragma unroll
        for (int i = 0; i < 8; i++) a[i] = r * (a[i] * c[i] - b[i] * m);
        if constexpr (kAdd) {
            unpack8(b, dhs[j]);
            #pragma unroll
            for (int i = 0; i < 8; i++) a[i] += b[i];
        }
        if (s.has(j)) store8(dx + row + s.at(j) * kVec, pack8(a));
    }
}

KERNEL(kThreads) rms_norm_fwd(bf16* __restrict__ y, float* __restrict__ rstd, const bf16* __restrict__ x,
                              const bf16* __restrict__ w, int rows, int cols, int team, float eps) {
    const Share s(rows, cols, team);
    uint4 h[kVecs];
    load_share(h, x + s.row * cols, s);
    normalise(y, rstd, h, w, s, cols, eps);
}

KERNEL(kThreads) add_rms_norm_fwd(bf16* __restrict__ h, bf16* __restrict__ y, float* __restrict__ rstd,
                                  const bf16* __restrict__ x, const bf16* __restrict__ residual, const bf16* __restrict__ w,
                                  int rows, int cols, int team, float eps) {
    const Share s(rows, cols, team);
    uint4 sum[kVecs], other[kVecs];
    load_share(sum, x + s.row * cols, s);
    load_share(other, residual + s.row * cols, s);
    #pragma unroll
    for (int j = 0; j < kVecs; j++) {
        float a[8], b[8];
        unpack8(a, sum[j]);
        unpack8(b, other[j]);
        #pragma unroll
        for (int i = 0; i < 8; i++) a[i] += b[i];
        sum[j] = pack8(a);
        if (s.has(j)) store8(h + s.row * cols + s.at(j) * kVec, sum[j]);
    }
    normalise(y, rstd, sum, w, s, cols, eps);
}

KERNEL(kThreads) rms_norm_bwd_x(bf16* __restrict__ dx, const bf16* __restrict__ dy, const bf16* __restrict__ x,
                                const bf16* __restrict__ w, const float* __restrict__ rstd, int rows, int cols, int team) {
    backward_x<false>(dx, dy, x, w, rstd, nullptr, rows, cols, team);
}

KERNEL(kThreads) rms_norm_bwd_x_add(bf16* __restrict__ dx, const bf16* __restrict__ dy, const bf16* __restrict__ x,
                                    const bf16* __restrict__ w, const float* __restrict__ rstd, const bf16* __restrict__ dh,
                                    int rows, int cols, int team) {
    backward_x<true>(dx, dy, x, w, rstd, dh, rows, cols, team);
}

KERNEL(kThreads) rms_norm_bwd_w(float* __restrict__ partial, const bf16* __restrict__ dy, const bf16* __restrict__ x,
                                const float* __restrict__ rstd, int rows, int cols, int team) {
    const Columns<kThreads> c(rows, cols, team);
    float sum[8] = {};
    #pragma unroll 4
    for (int64_t row = c.first; row < c.last; row += c.teams) {
        float a[8], b[8];
        unpack8(a, load8(dy + row * cols + c.col));
        unpack8(b, load8(x + row * cols + c.col));
        const float r = rstd[row];
        #pragma unroll
        for (int i = 0; i < 8; i++) sum[i] += a[i] * b[i] * r;
    }
    c.store_sums(partial, sum);
}
