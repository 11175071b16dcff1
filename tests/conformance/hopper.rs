//! Hopper's barriers, registers and products; TMA is in `tma.rs`.

use crate::target::{Arg, bf16_pairs, bits, noise, targets, whole};

const GRID: [u32; 3] = [1, 1, 1];
const WARP: usize = 32;
const GROUP: usize = 128;

#[test]
fn one_lane_of_a_warp_is_elected() {
    for target in targets("conform_elect") {
        let [y] = target.run(GRID, &[Arg::Out(GROUP)]);
        for (warp, lanes) in y.chunks_exact(WARP).enumerate() {
            assert!(lanes.iter().all(|&word| word <= 1), "{target}: {lanes:?}");
            assert_eq!(lanes.iter().sum::<u32>(), 1, "{target}: warp {warp} elects {lanes:?}");
        }
    }
}

#[test]
fn mbarriers_take_turns() {
    for rounds in [1, 2, 9] {
        let x = noise(rounds * WARP, 13);
        let want: Vec<u32> = x.chunks_exact(WARP).flat_map(|row| row.iter().rev()).copied().collect();
        for target in targets("conform_mbarrier") {
            let [y] = target.run(GRID, &[Arg::Out(x.len()), Arg::In(&x), Arg::Number(rounds as u32)]);
            target.same("rows reversed", &y, &want);
        }
    }
}

#[test]
fn registers_change_hands() {
    let x = noise(3 * GROUP, 14);
    let want: Vec<u32> = x.iter().map(|word| word.wrapping_add(1)).collect();
    for target in targets("conform_setmaxnreg") {
        let [y] = target.run(GRID, &[Arg::Out(x.len()), Arg::In(&x)]);
        target.same("setmaxnreg_dec, setmaxnreg_inc", &y, &want);
    }
}

/// Rows and columns of an operand and of the product.
const TILE: usize = 64;
/// Columns of a that one product takes.
const DEPTH: usize = 16;
/// Accumulators of a thread.
const REGISTERS: usize = 32;

/// A tile of bf16 as it lies in shared memory: the eight chunks of 16 bytes of row r trade places, chunk c with chunk c ^ (r % 8).
fn swizzled_tile(rows: &[f32]) -> Vec<u32> {
    let mut image = vec![0; TILE * TILE / 2];
    for (n, chunk) in bf16_pairs(rows).chunks_exact(4).enumerate() {
        let (row, place) = (n / 8, n % 8);
        image[(row * 8 + (place ^ (row % 8))) * 4..][..4].copy_from_slice(chunk);
    }
    image
}

/// The accumulators of all threads: register i of a thread holds of the product, 16 rows per warp, row lane / 4, plus 8 where i
/// has the second bit, and column 8 (i / 4) + 2 (lane % 4), plus 1 where i is odd.
fn accumulators(of: impl Fn(usize, usize) -> f32) -> Vec<u32> {
    let place = |thread: usize, i: usize| {
        let (warp, lane) = (thread / WARP, thread % WARP);
        (16 * warp + lane / 4 + 8 * (i / 2 % 2), 8 * (i / 4) + 2 * (lane % 4) + i % 2)
    };
    let places = (0..GROUP).flat_map(|thread| (0..REGISTERS).map(move |i| place(thread, i)));
    bits(&places.map(|(row, column)| of(row, column)).collect::<Vec<_>>())
}

/// Two operands of whole numbers, so that sums are exact in any order.
fn operands() -> [Vec<f32>; 2] {
    [whole(TILE * TILE, 100, 15), whole(TILE * TILE, 100, 16)]
}

/// The sum over one step's depth; `transposed`: b is stored by rows of k.
fn product([a, b]: &[Vec<f32>; 2], step: usize, transposed: bool, row: usize, column: usize) -> f32 {
    let b_at = |k: usize| if transposed { b[k * TILE + column] } else { b[column * TILE + k] };
    (step * DEPTH..(step + 1) * DEPTH).map(|k| a[row * TILE + k] * b_at(k)).sum()
}

#[test]
fn wgmma_multiplies_swizzled_tiles() {
    let operands = operands();
    let [a, b] = operands.each_ref().map(|rows| swizzled_tile(rows));
    let c = whole(TILE * TILE, 1000, 17);
    for (kernel, transposed) in [("conform_wgmma", false), ("conform_wgmma_tb", true)] {
        for target in targets(kernel) {
            for (step, adds) in (0..TILE / DEPTH).flat_map(|step| [(step, false), (step, true)]) {
                // What is forgotten may be anything.
                let before = |row, column| if adds { c[row * TILE + column] } else { f32::NAN };
                let after = |row, column| {
                    product(&operands, step, transposed, row, column) + if adds { c[row * TILE + column] } else { 0.0 }
                };
                let held = accumulators(before);
                let numbers = [Arg::Number(step as u32), Arg::Number(u32::from(adds))];
                let args = [Arg::Out(TILE * TILE), Arg::In(&a), Arg::In(&b), Arg::In(&held)];
                let [d] = target.run(GRID, &args.into_iter().chain(numbers).collect::<Vec<_>>());
                target.same(&format!("step {step}, accumulate {adds}"), &d, &accumulators(after));
            }
        }
    }
}

#[test]
fn groups_of_wgmma_are_waited_for_in_order() {
    let operands = operands();
    let [a, b] = operands.each_ref().map(|rows| swizzled_tile(rows));
    let steps = |count: usize| {
        accumulators(|row, column| (0..count).map(|step| product(&operands, step, false, row, column)).sum::<f32>())
    };
    let want = [steps(2), steps(4)].concat();
    for target in targets("conform_wgmma_groups") {
        let [d] = target.run(GRID, &[Arg::Out(want.len()), Arg::In(&a), Arg::In(&b)]);
        target.same("the first group, then both", &d, &want);
    }
}
