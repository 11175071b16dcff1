//! Shared and global memory: places, copies, barriers, atomics.

use crate::target::{Arg, noise, targets};

const GRID: [u32; 3] = [1, 1, 1];
const WARP: usize = 32;
const BLOCK: usize = 128;

#[test]
fn shared_memory_is_aligned_and_contiguous() {
    let lanes = 0..WARP as u32;
    let want: Vec<u32> = [0].into_iter().chain(lanes.clone().map(|lane| 8 * lane)).chain(lanes).collect();
    for target in targets("conform_shared") {
        let [y] = target.run(GRID, &[Arg::Out(1 + 2 * WARP)]);
        target.same("SHARED, SHARED_DYN, smem_u32", &y, &want);
    }
}

#[test]
fn cp_async_copies_some_bytes_and_zeros_after_them() {
    const COPIES: usize = 3 * WARP;
    let x = noise(4 * COPIES, 9);
    // Every length from 0 to 16, several times.
    let bytes: Vec<u32> = (0..COPIES as u32).map(|copy| copy * 5 % 17).collect();
    let copied = |copy: usize| {
        let mut all: Vec<u8> = x[4 * copy..][..4].iter().flat_map(|word| word.to_le_bytes()).collect();
        all[bytes[copy] as usize..].fill(0);
        all.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect::<Vec<_>>()
    };
    let want: Vec<u32> = (0..COPIES).flat_map(|copy| copied(copy ^ 1)).collect();
    for target in targets("conform_cp_async") {
        let [y] = target.run(GRID, &[Arg::Out(4 * COPIES), Arg::In(&x), Arg::In(&bytes)]);
        target.same("cp_async_16", &y, &want);
    }
}

#[test]
fn named_barriers_hold_back_who_waits() {
    const HALF: usize = BLOCK / 2;
    let x = noise(HALF, 10);
    let want: Vec<u32> = (0..HALF).map(|j| x[(j + 2 * 7) % HALF]).collect();
    for target in targets("conform_named_barriers") {
        let [y] = target.run(GRID, &[Arg::Out(HALF), Arg::In(&x)]);
        target.same("named_bar_arrive, named_bar_sync", &y, &want);
    }
}

#[test]
fn atomics_lose_nothing() {
    const BLOCKS: u32 = 8;
    const WRAP: u32 = 100;
    // All words have the lowest bit and lack the highest but one, so that and, or and xor have something to show.
    let x: Vec<u32> = noise(BLOCKS as usize * WARP, 11).into_iter().map(|word| (word | 1) & !(1 << 30)).collect();
    let before = [10, 20, u32::MAX, 0, u32::MAX, 0, 0x1234_5678, 150, 0, 0, 250];
    let sum = x.iter().fold(0u32, |sum, v| sum.wrapping_add(*v));
    let increased = |old: u32| if old >= WRAP { 0 } else { old + 1 };
    let decreased = |old: u32| if old == 0 || old > WRAP { WRAP } else { old - 1 };
    let mut after = before;
    after[0] = after[0].wrapping_add(sum);
    after[1] = after[1].wrapping_sub(sum);
    after[8] = 1;
    after[9] = 1;
    for v in &x {
        after[2] = after[2].min(*v);
        after[3] = after[3].max(*v);
        after[4] &= v;
        after[5] |= v;
        after[6] ^= v;
        after[7] = increased(after[7]);
        after[10] = decreased(after[10]);
    }
    let floats = x.iter().fold(0.5, |sum, v| sum + (v % 16) as f32);
    let long = x.iter().fold(7u64, |sum, v| sum.wrapping_add(u64::from(*v) << 20));
    let split = |word: u64| [word as u32, (word >> 32) as u32];
    for target in targets("conform_atomics") {
        let memory = [Arg::InOut(&before), Arg::InOut(&[0.5f32.to_bits()]), Arg::InOut(&split(7))];
        let [y, f, u] =
            target.run([BLOCKS, 1, 1], &memory.into_iter().chain([Arg::In(&x), Arg::Number(WRAP)]).collect::<Vec<_>>());
        target.same("add, sub, min, max, and, or, xor, inc, cas, exch, dec", &y, &after);
        target.same("the sum of floats", &f, &[floats.to_bits()]);
        target.same("the sum of 64 bits", &u, &split(long));
    }
}

#[test]
fn every_thread_knows_its_place() {
    let [x, y, z] = [3, 2, 4];
    let mut want = Vec::new();
    for block in 0..x * y * z {
        let place = (block % x) << 8 | (block / x % y) << 16 | (block / (x * y)) << 24;
        want.extend((0..BLOCK as u32).map(|thread| thread | place));
    }
    for target in targets("conform_indices") {
        let [got] = target.run([x, y, z], &[Arg::Out(want.len())]);
        target.same("threadIdx, blockIdx, blockDim, gridDim", &got, &want);
    }
}

#[test]
fn hints_change_no_value() {
    let x = noise(4 * 50, 12);
    for target in targets("conform_hints") {
        let [y] = target.run(GRID, &[Arg::Out(x.len()), Arg::In(&x), Arg::Number(x.len() as u32)]);
        target.same("loads and stores with a hint", &y, &x);
    }
}
