// matmul: products of bf16 matrices on tensor cores, for linear layers, their LoRA factors and the output projection
//   nt   y[m,n]  = alpha * sum of x[m,k] w[n,k]^T                   forward
//   nn   dx[m,k] = alpha * sum of dy[m,n] w[n,k]                    backward of the input
//   tn   dw[n,k] = dy[m,n]^T x[m,k]                                 backward of a weight, summed over the m rows
//   LoRA u = s x a^T (nt),  v = s dy b (nn),  da = v^T x (tn),  db = dy^T u (tn),  s = lora_alpha / r
//        y = x w^T + u b^T (nt),  dx = dy w + v a (nn): one more term of the sum, no pass over y or dx for it
//   group     projections of one input (q, k, v; gate, up) are parts of one launch: nt has their outputs side by side, as if
//             their weights were adjacent, so that the blocks in flight share x in L2; dx is one sum over all outputs and ranks.
//   shapes    matrices are row-major, and a row of width W takes padded(W) = W rounded up to 8 elements; those past W are zero.
//             So every 16-byte copy is aligned, whatever the rank or the vocabulary, and results can be operands again.
//             matmul_copy_rows pads a dense matrix and closes a padded one up; matmul_reduce writes dense rows.
//   launch    grid (tiles of all parts, 1, slabs), block (kThreads); a warp owns a quarter of the tile. The large tile is for
//             many tiles, the small one for few, and for results as narrow as a LoRA rank.
//             tn cuts m into gridDim.z slabs and writes one f32 result for each, [slabs,n,k]; matmul_reduce adds them up.
//   numerics  mma.sync with f32 accumulators in a fixed order; alpha and the rounding come once, at the store
#include "ptx.cuh"
#include "vec8.cuh"

constexpr int kThreads = 128;
constexpr int kWarp = 32;
constexpr int kLargeTile = 128;
constexpr int kLargeDepth = 32;
constexpr int kLargeStages = 4;
constexpr int kLargeShared = kLargeStages * 2 * kLargeTile * kLargeDepth * kValueBytes;
constexpr int kSmallTile = 64;
constexpr int kSmallDepth = 64;
constexpr int kSmallStages = 3;
constexpr int kSmallShared = kSmallStages * 2 * kSmallTile * kSmallDepth * kValueBytes;
constexpr int kReduceThreads = 256;
static_assert(kLargeShared >= kLargeTile * kLargeTile * kValueBytes && kSmallShared >= kSmallTile * kSmallTile * kValueBytes,
              "a rounded tile takes the place of the operands");

// Neighbouring blocks walk down this many tiles of m before the next tile of n: what they read stays in L2.
constexpr int kRasterRows = 8;

// Room of one launch: queries, keys and values, each a weight and a LoRA factor.
constexpr int kParts = 3;
constexpr int kTerms = 6;

// One product of a sum: `extent` is the length of its reduction. An operand is stored with the reduction index running along
// its rows (`AlongK`) or down its columns.
struct Term {
    const bf16* left;
    const bf16* right;
    int extent;
};

// One result: alpha times the sum of `count` terms from `first` on.
struct Part {
    bf16* c;
    int width;
    int first;
    int count;
    float alpha;
};

// The results of one launch, of m rows each, and the terms of all of them.
struct Products {
    Part parts[kParts];
    Term terms[kTerms];
    int m;
};

// Where a block's tile begins, and where the result ends.
struct Corner {
    int row, col;
    int rows, cols;
};

template <int Tile>
DEV int whole_tiles(int n) {
    return (n + Tile - 1) / Tile * Tile;
}

// The grid has a block for every tile of the result, or of all results side by side.
template <int Tile>
DEV Corner corner_of_block(int rows, int cols) {
    const uint32_t down = whole_tiles<Tile>(rows) / Tile, across = gridDim.x / down;
    const uint32_t band = blockIdx.x / (kRasterRows * across), in_band = blockIdx.x % (kRasterRows * across);
    const uint32_t height = min((int)(down - band * kRasterRows), kRasterRows);
    return {(int)(band * kRasterRows + in_band % height) * Tile, (int)(in_band / height) * Tile, rows, cols};
}

// Byte offset of a 16-byte chunk of a tile with `Chunks` of them per row. Eight rows of one column of chunks lie in eight
// different bank groups, and so do the eight chunks of a 128-byte line: neither ldmatrix nor the copies conflict.
template <int Chunks>
DEV uint32_t swizzled(int row, int chunk) {
    constexpr int rows_per_line = Chunks < 8 ? 8 / Chunks : 1;
    constexpr int mask = Chunks < 8 ? Chunks - 1 : 7;
    return (uint32_t)(row * Chunks + (chunk ^ (row / rows_per_line & mask))) * 16;
}

// Copies one operand's tiles into shared memory, one after the other along the reduction; what lies outside becomes zero.
// A thread copies chunks of one column, kRowStep rows apart, and knows the place of the first of them in the next tile.
template <bool AlongK, int Tile, int Depth>
struct Feed {
    static constexpr int kChunks = (AlongK ? Depth : Tile) / 8;
    static constexpr int kRowStep = kThreads / kChunks;
    static constexpr int kCopies = (AlongK ? Tile : Depth) / kRowStep;

    const bf16* from;
    int pitch;
    int row, rows, col, cols;

    DEV void open(const bf16* matrix, int side, int side_end, int extent) {
        row = (AlongK ? side : 0) + threadIdx.x / kChunks;
        col = (AlongK ? 0 : side) + threadIdx.x % kChunks * 8;
        rows = AlongK ? side_end : extent;
        cols = AlongK ? extent : side_end;
        pitch = padded(cols);
        from = matrix + (int64_t)row * pitch + col;
    }
    DEV void copy(uint32_t tile) {
        const uint32_t to = tile + swizzled<kChunks>(threadIdx.x / kChunks, threadIdx.x % kChunks);
        #pragma unroll
        for (int i = 0; i < kCopies; i++) {
            const bool inside = row + i * kRowStep < rows && col < cols;
            cp_async_16(to + i * kRowStep * kChunks * 16, from + (int64_t)i * kRowStep * pitch, inside ? 16 : 0);
        }
        if constexpr (AlongK) {
            col += Depth;
            from += Depth;
        } else {
            row += Depth;
            from += (int64_t)Depth * pitch;
        }
    }
    // The rows that a thread copies are swizzled alike.
    static_assert(kRowStep % 8 == 0, "the period of the swizzle is eight rows at most");
};

// 16 rows from `i` on of the left operand, at one step of 16 of the reduction.
template <bool AlongK, int Tile, int Depth>
DEV void left_fragment(uint32_t (&a)[4], uint32_t tile, int i, int step) {
    const int lane = threadIdx.x % kWarp;
    if constexpr (AlongK) {
        ldmatrix_x4(a, tile + swizzled<Depth / 8>(i + lane % 16, step * 2 + lane / 16));
    } else {
        ldmatrix_x4_trans(a, tile + swizzled<Tile / 8>(step * 16 + lane / 16 * 8 + lane % 8, i / 8 + lane / 8 % 2));
    }
}

// 16 columns from `j` on of the right operand: two n8 tiles, {b[0], b[1]} and {b[2], b[3]}.
template <bool AlongK, int Tile, int Depth>
DEV void right_fragment(uint32_t (&b)[4], uint32_t tile, int j, int step) {
    const int lane = threadIdx.x % kWarp;
    if constexpr (AlongK) {
        ldmatrix_x4(b, tile + swizzled<Depth / 8>(j + lane / 16 * 8 + lane % 8, step * 2 + lane / 8 % 2));
    } else {
        ldmatrix_x4_trans(b, tile + swizzled<Tile / 8>(step * 16 + lane % 16, j / 8 + lane / 16));
    }
}

template <int Tile>
struct Accumulator {
    static constexpr int kSide = Tile / 2;  // four warps, two by two
    float c[kSide / 16][kSide / 8][4] = {};
};

// acc = the block's tile of the sum of `count` terms. Copies run Stages - 1 tiles ahead; the fragments of a step are read while
// the step before it is multiplied, across the border of two tiles and of two terms as well.
template <int Tile, int Depth, int Stages, bool AAlongK, bool BAlongK>
DEV void multiply(Accumulator<Tile>& acc, uint32_t shared, const Term* terms, int count, Corner at) {
    constexpr int side = Accumulator<Tile>::kSide, steps = Depth / 16;
    constexpr uint32_t operand = Tile * Depth * kValueBytes;
    static_assert(steps % 2 == 0, "fragment buffers alternate across the border of two tiles");
    const int warp = threadIdx.x / kWarp;
    const int wi = warp / 2 * side, wj = warp % 2 * side;
    auto tiles_of = [&](int term) { return (terms[term].extent + Depth - 1) / Depth; };
    int tiles = 0;
    for (int term = 0; term < count; term++) {
        tiles += tiles_of(term);
    }

    Feed<AAlongK, Tile, Depth> left;
    Feed<BAlongK, Tile, Depth> right;
    int opened = 0, next = 0;  // terms opened, and the first tile after them
    auto open = [&](int term) {
        left.open(terms[term].left, at.row, at.rows, terms[term].extent);
        right.open(terms[term].right, at.col, at.cols, terms[term].extent);
        next += tiles_of(term);
    };
    auto stage = [&](int t) { return shared + (uint32_t)(t % Stages) * 2 * operand; };
    auto fetch = [&](int t) {
        if (t < tiles) {
            while (t == next) {
                open(opened++);
            }
            left.copy(stage(t));
            right.copy(stage(t) + operand);
        }
        cp_async_commit();
    };
    uint32_t a[2][side / 16][4], b[2][side / 16][4];
    auto read = [&](int buffer, uint32_t from, int step) {
        #pragma unroll
        for (int i = 0; i < side / 16; i++) {
            left_fragment<AAlongK, Tile, Depth>(a[buffer][i], from, wi + i * 16, step);
        }
        #pragma unroll
        for (int j = 0; j < side / 16; j++) {
            right_fragment<BAlongK, Tile, Depth>(b[buffer][j], from + operand, wj + j * 16, step);
        }
    };

    for (int t = 0; t < Stages - 1; t++) {
        fetch(t);
    }
    cp_async_wait<Stages - 2>();
    __syncthreads();
    read(0, stage(0), 0);
    for (int t = 0; t < tiles; t++) {
        #pragma unroll
        for (int step = 0; step < steps; step++) {
            if (step + 1 < steps) {
                read((step + 1) % 2, stage(t), step + 1);
            } else {
                cp_async_wait<Stages - 2>();
                __syncthreads();
                read(0, stage(t + 1), 0);
            }
            if (step == 0) {
                // Into the tile before this one: every warp has passed the barrier behind its last read of it.
                fetch(t + Stages - 1);
            }
            #pragma unroll
            for (int i = 0; i < side / 16; i++) {
                #pragma unroll
                for (int j = 0; j < side / 8; j++) {
                    const uint32_t(&pair)[4] = b[step % 2][j / 2];
                    mma_m16n8k16_bf16(acc.c[i][j], a[step % 2][i], pair[j % 2 * 2], pair[j % 2 * 2 + 1]);
                }
            }
        }
    }
}

// Rounds the tile and stores it in 16-byte pieces. A warp turns its fragments into rows in shared memory of its own, where the
// operands were.
template <int Tile>
DEV void store_rounded(bf16* c, const Accumulator<Tile>& acc, uint8_t* shared, Corner at, float alpha) {
    constexpr int side = Accumulator<Tile>::kSide, chunks = side / 8;
    const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
    const int row = at.row + warp / 2 * side, col = at.col + warp % 2 * side;
    const int pitch = padded(at.cols);
    uint8_t* mine = shared + warp * side * side * kValueBytes;
    cp_async_wait<0>();
    __syncthreads();
    #pragma unroll
    for (int i = 0; i < side / 16; i++) {
        #pragma unroll
        for (int j = 0; j < side / 8; j++) {
            #pragma unroll
            for (int h = 0; h < 2; h++) {
                const float* pair = &acc.c[i][j][h * 2];
                const uint32_t at_row = swizzled<chunks>(i * 16 + h * 8 + lane / 4, j);
                *(uint32_t*)(mine + at_row + lane % 4 * 4) = pack_bf16(alpha * pair[0], alpha * pair[1]);
            }
        }
    }
    __syncwarp();
    #pragma unroll
    for (int i = 0; i < side * chunks / kWarp; i++) {
        const int r = (i * kWarp + lane) / chunks, chunk = lane % chunks;
        if (row + r < at.rows && col + chunk * 8 < at.cols) {
            *(uint4*)(c + (int64_t)(row + r) * pitch + col + chunk * 8) = *(const uint4*)(mine + swizzled<chunks>(r, chunk));
        }
    }
}

// Stores the tile in f32, or adds it to what is there. Four lanes hold 32 contiguous bytes: whole sectors without a detour.
template <bool Add, int Tile>
DEV void store_float(float* c, const Accumulator<Tile>& acc, Corner at) {
    constexpr int side = Accumulator<Tile>::kSide;
    const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
    const int row0 = at.row + warp / 2 * side + lane / 4, col0 = at.col + warp % 2 * side + lane % 4 * 2;
    const int pitch = padded(at.cols);
    #pragma unroll
    for (int i = 0; i < side / 16; i++) {
        #pragma unroll
        for (int h = 0; h < 2; h++) {
            const int row = row0 + i * 16 + h * 8;
            float* to = c + (int64_t)row * pitch + col0;
            #pragma unroll
            for (int j = 0; j < side / 8; j++) {
                if (row < at.rows && col0 + j * 8 < pitch) {
                    float2 sum = make_float2(acc.c[i][j][h * 2], acc.c[i][j][h * 2 + 1]);
                    if constexpr (Add) {
                        const float2 old = *(const float2*)(to + j * 8);
                        sum = make_float2(old.x + sum.x, old.y + sum.y);
                    }
                    *(float2*)(to + j * 8) = sum;
                }
            }
        }
    }
}

// The block's tile of its part. The right operands are w[n,k] for nt, along k, and for nn, down n.
template <int Tile, int Depth, int Stages, bool BAlongK>
DEV void products(const Products& p, uint8_t* shared) {
    Corner at = corner_of_block<Tile>(p.m, 0);
    int n = 0;
    for (; at.col >= whole_tiles<Tile>(p.parts[n].width); n++) {
        at.col -= whole_tiles<Tile>(p.parts[n].width);
    }
    const Part& part = p.parts[n];
    at.cols = part.width;
    Accumulator<Tile> acc;
    multiply<Tile, Depth, Stages, true, BAlongK>(acc, smem_u32(shared), p.terms + part.first, part.count, at);
    store_rounded(part.c, acc, shared, at, part.alpha);
}

template <bool Add, int Tile, int Depth, int Stages>
DEV void tn(float* dw, const bf16* dy, const bf16* x, int m, int n, int k, uint8_t* shared) {
    const Corner at = corner_of_block<Tile>(n, k);
    const int slab = whole_tiles<Depth>((m + gridDim.z - 1) / gridDim.z);
    const int begin = min(blockIdx.z * slab, m), end = min(begin + slab, m);
    Accumulator<Tile> acc;
    const Term tokens = {dy + (int64_t)begin * padded(n), x + (int64_t)begin * padded(k), end - begin};
    multiply<Tile, Depth, Stages, false, false>(acc, smem_u32(shared), &tokens, 1, at);
    store_float<Add>(dw + (int64_t)blockIdx.z * n * padded(k), acc, at);
}

KERNEL(kThreads, kLargeShared) matmul_nt(const __grid_constant__ Products p) {
    SHARED_DYN(shared);
    products<kLargeTile, kLargeDepth, kLargeStages, true>(p, shared);
}
KERNEL(kThreads, kSmallShared) matmul_nt_small(const __grid_constant__ Products p) {
    SHARED_DYN(shared);
    products<kSmallTile, kSmallDepth, kSmallStages, true>(p, shared);
}

KERNEL(kThreads, kLargeShared) matmul_nn(const __grid_constant__ Products p) {
    SHARED_DYN(shared);
    products<kLargeTile, kLargeDepth, kLargeStages, false>(p, shared);
}
KERNEL(kThreads, kSmallShared) matmul_nn_small(const __grid_constant__ Products p) {
    SHARED_DYN(shared);
    products<kSmallTile, kSmallDepth, kSmallStages, false>(p, shared);
}

KERNEL(kThreads, kLargeShared) matmul_tn(float* dw, const bf16* dy, const bf16* x, int m, int n, int k) {
    SHARED_DYN(shared);
    tn<false, kLargeTile, kLargeDepth, kLargeStages>(dw, dy, x, m, n, k, shared);
}
KERNEL(kThreads, kSmallShared) matmul_tn_small(float* dw, const bf16* dy, const bf16* x, int m, int n, int k) {
    SHARED_DYN(shared);
    tn<false, kSmallTile, kSmallDepth, kSmallStages>(dw, dy, x, m, n, k, shared);
}
// dw += dy^T x, for a sum over several launches; one slab only.
KERNEL(kThreads, kLargeShared) matmul_tn_add(float* dw, const bf16* dy, const bf16* x, int m, int n, int k) {
    SHARED_DYN(shared);
    tn<true, kLargeTile, kLargeDepth, kLargeStages>(dw, dy, x, m, n, k, shared);
}

// Logits: z[m,n] in f32, rows padded.
KERNEL(kThreads, kLargeShared) matmul_nt_f32(float* z, const bf16* h, const bf16* w, int m, int n, int k) {
    SHARED_DYN(shared);
    const Corner at = corner_of_block<kLargeTile>(m, n);
    Accumulator<kLargeTile> acc;
    const Term logits = {h, w, k};
    multiply<kLargeTile, kLargeDepth, kLargeStages, true, true>(acc, smem_u32(shared), &logits, 1, at);
    store_float<false>(z, acc, at);
}

// dw[n,k], dense, is the sum of slabs[count,n,k] in their order. A thread has four columns; grid (n * padded(k) / 4 / threads).
KERNEL(kReduceThreads) matmul_reduce(float* dw, const float* slabs, int count, int n, int k) {
    const uint32_t quads = padded(k) / 4;
    const uint32_t i = blockIdx.x * kReduceThreads + threadIdx.x;
    const int64_t row = i / quads;
    const int col = i % quads * 4;
    if (row < n && col < k) {
        const float4* from = (const float4*)slabs + i;
        float4 sum = *from;
        for (int s = 1; s < count; s++) {
            const float4 more = from[(int64_t)s * n * quads];
            sum = make_float4(sum.x + more.x, sum.y + more.y, sum.z + more.z, sum.w + more.w);
        }
        float* to = dw + row * k + col;
        if (k % 4 == 0) {
            *(float4*)to = sum;
        } else {
            const float each[4] = {sum.x, sum.y, sum.z, sum.w};
            for (int c = 0; c < min(k - col, 4); c++) {
                to[c] = each[c];
            }
        }
    }
}

// Copies rows of src_width elements into rows of dst_width: dense to padded, with zeros, or padded to dense.
// A thread has one element; grid (rows * dst_width / threads, rounded up).
KERNEL(kReduceThreads) matmul_copy_rows(bf16* dst, const bf16* src, int rows, int dst_width, int src_width) {
    const int64_t i = (int64_t)blockIdx.x * kReduceThreads + threadIdx.x, row = i / dst_width;
    const int col = (int)(i % dst_width);
    if (row < rows) {
        dst[i] = col < src_width ? src[row * src_width + col] : bf16{0};
    }
}
