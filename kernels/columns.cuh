// columns: a thread owns eight columns of a range of rows
//   launch    a team of threads, a power of two, spans the columns: team = cols / 8 rounded up, at most kThreads; short rows
//             leave a block several teams, which take its rows in turn. Grid (parts, ceil(cols / (8 team))); part p has the
//             rows [p n, (p + 1) n) with n = ceil(rows / parts).
//   sums      a team adds its rows in order; the block adds its teams in order
#pragma once
#include "ptx.cuh"
#include "vec8.cuh"

template <int kThreads> struct Columns {
    int team, teams, lane, col, cols;
    int64_t first, last;  // rows of this team: first, first + teams, ... below last

    DEV Columns(int rows, int cols, int team) : team(team), teams(kThreads / team), cols(cols) {
        lane = threadIdx.x & (team - 1);
        col = ((int)blockIdx.y * team + lane) * kVec;
        const int64_t span = (rows + (int64_t)gridDim.x - 1) / gridDim.x, begin = blockIdx.x * span;
        first = begin + (int)threadIdx.x / team;
        last = begin + span < rows ? begin + span : rows;
        if (col >= cols) last = first;
    }

    // Writes the block's sums to its row of `partial` (parts, cols). Holds a barrier.
    DEV void store_sums(float* partial, float (&sum)[8]) const {
        SHARED(float, sums, kThreads * kVec);
        #pragma unroll
        for (int i = 0; i < kVec; i++) sums[i * kThreads + threadIdx.x] = sum[i];
        __syncthreads();
        if ((int)threadIdx.x < team && col < cols) {
            #pragma unroll
            for (int i = 0; i < kVec; i++) {
                for (int t = 1; t < teams; t++) sum[i] += sums[i * kThreads + t * team + lane];
                partial[(int64_t)blockIdx.x * cols + col + i] = sum[i];
            }
        }
    }
};
