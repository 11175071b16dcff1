//! What the lanes of a warp do together.

use crate::target::{Arg, bf16_pairs, bits, noise, targets, whole};

const GRID: [u32; 3] = [1, 1, 1];
const WARP: usize = 32;

/// ldmatrix: register j of lane l is row l / 4 of matrix j, elements 2 (l % 4) and the next; transposed, the elements of that
/// column in rows 2 (l % 4) and the next. Lanes 8 j to 8 j + 7 name the rows of matrix j.
#[test]
fn ldmatrix_deals_out_rows() {
    // Element e of row r is 8 r + e; the rows are named in no order, and one twice.
    let x: Vec<u32> = (0..WARP as u32 * 4).map(|word| (2 * word) | ((2 * word + 1) << 16)).collect();
    let rows: Vec<u32> = (0..WARP as u32).map(|lane| if lane == 9 { 4 } else { (13 * lane + 5) % 32 }).collect();
    let element = |matrix: usize, row: usize, column: usize| 8 * rows[8 * matrix + row] + column as u32;
    let straight = |lane: usize, j: usize| [0, 1].map(|half| element(j, lane / 4, 2 * (lane % 4) + half));
    let transposed = |lane: usize, j: usize| [0, 1].map(|half| element(j, 2 * (lane % 4) + half, lane / 4));
    let of_lane = |lane: usize| {
        let registers = (0..4).map(move |j| straight(lane, j)).chain((0..4).map(move |j| transposed(lane, j)));
        registers.map(|[lo, hi]| lo | hi << 16).collect::<Vec<u32>>()
    };
    let want: Vec<u32> = (0..WARP).flat_map(of_lane).collect();
    for target in targets("conform_ldmatrix") {
        let [y] = target.run(GRID, &[Arg::Out(8 * WARP), Arg::In(&x), Arg::In(&rows)]);
        target.same("ldmatrix_x4, ldmatrix_x4_trans", &y, &want);
    }
}

/// mma.m16n8k16: where the elements of the fragments lie, as row and column, by lane and number.
#[test]
fn mma_multiplies_its_fragments() {
    let group = |lane: usize| lane / 4;
    let within = |lane: usize| lane % 4;
    let in_a = |lane: usize, i: usize| {
        let lower = (2..4).contains(&i) || i >= 6;
        (group(lane) + if lower { 8 } else { 0 }, within(lane) * 2 + i % 2 + if i >= 4 { 8 } else { 0 })
    };
    let in_b = |lane: usize, i: usize| (within(lane) * 2 + i % 2 + if i >= 2 { 8 } else { 0 }, group(lane));
    let in_c = |lane: usize, i: usize| (group(lane) + if i >= 2 { 8 } else { 0 }, within(lane) * 2 + i % 2);

    // Whole numbers, so that the sum is exact in any order.
    let (a, b, c) = (whole(16 * 16, 200, 4), whole(16 * 8, 200, 5), whole(16 * 8, 100_000, 6));
    let fragment = |held: usize, at: &dyn Fn(usize, usize) -> f32| -> Vec<f32> {
        (0..WARP).flat_map(|lane| (0..held).map(move |i| (lane, i))).map(|(lane, i)| at(lane, i)).collect()
    };
    let place = |(row, column): (usize, usize), columns: usize| row * columns + column;
    let a_held = bf16_pairs(&fragment(8, &|lane, i| a[place(in_a(lane, i), 16)]));
    let b_held = bf16_pairs(&fragment(4, &|lane, i| b[place(in_b(lane, i), 8)]));
    let c_held = fragment(4, &|lane, i| c[place(in_c(lane, i), 8)]);
    let want = fragment(4, &|lane, i| {
        let (row, column) = in_c(lane, i);
        c[row * 8 + column] + (0..16).map(|k| a[row * 16 + k] * b[k * 8 + column]).sum::<f32>()
    });
    for target in targets("conform_mma") {
        let [d] = target.run(GRID, &[Arg::Out(4 * WARP), Arg::In(&a_held), Arg::In(&b_held), Arg::In(&bits(&c_held))]);
        target.same("mma_m16n8k16_bf16", &d, &bits(&want));
    }
}

#[derive(Clone, Copy)]
enum Shuffle {
    Up,
    Down,
    Xor,
    Index,
}

/// The lane that shfl reads, by the pseudo-code of the PTX ISA; `b` is the operand, and CUDA makes `c` of the width.
fn source(shuffle: Shuffle, lane: u32, b: u32, width: u32) -> usize {
    let b = b & 31;
    let (segment, bound) = (32 - width, if matches!(shuffle, Shuffle::Up) { 0 } else { 31 });
    let most = (lane & segment) | (bound & !segment);
    let least = lane & segment;
    let (from, inside) = match shuffle {
        Shuffle::Up => (lane as i64 - i64::from(b), lane as i64 - i64::from(b) >= i64::from(most)),
        Shuffle::Down => (i64::from(lane + b), lane + b <= most),
        Shuffle::Xor => (i64::from(lane ^ b), lane ^ b <= most),
        Shuffle::Index => (i64::from(least | (b & !segment)), least | (b & !segment) <= most),
    };
    if inside { from as usize } else { lane as usize }
}

#[test]
fn shuffles_stay_inside_their_segments() {
    let x = noise(WARP, 7);
    for width in [1, 2, 4, 8, 16, 32] {
        let lanes = 0..WARP as u32;
        let from = |shuffle, b: &dyn Fn(u32) -> u32| lanes.clone().map(|lane| source(shuffle, lane, b(lane), width)).collect();
        let own: Vec<usize> = (0..WARP).collect();
        let even = own.iter().map(|&lane| if lane % 2 == 0 { lane ^ 2 } else { lane }).collect();
        let mut ends = own.clone();
        ends.swap(0, WARP - 1);
        let sources: [Vec<usize>; 6] = [
            from(Shuffle::Index, &|lane| 5 * lane + 3),
            from(Shuffle::Xor, &|_| 5),
            from(Shuffle::Up, &|_| 3),
            from(Shuffle::Down, &|_| 3),
            even,
            ends,
        ];
        let want: Vec<u32> = sources.iter().flatten().map(|&lane| x[lane]).collect();
        for target in targets("conform_shuffles") {
            let [y] = target.run(GRID, &[Arg::Out(6 * WARP), Arg::In(&x), Arg::Number(width)]);
            target.same(&format!("shuffles of width {width}"), &y, &want);
        }
    }
}

#[test]
fn votes_are_counted() {
    let only = |lanes: &[usize]| (0..WARP).map(|lane| u32::from(lanes.contains(&lane)) << 20).collect::<Vec<_>>();
    let mixed = noise(WARP, 8).into_iter().map(|word| word & 1).collect();
    for x in [vec![0; WARP], vec![3; WARP], only(&[0]), only(&[31]), only(&[16, 5]), mixed] {
        let ballot = (0..WARP).fold(0u32, |votes, lane| votes | u32::from(x[lane] != 0) << lane);
        let low = (0..WARP).map(|lane| if lane < 16 { ballot & 0xffff } else { 0 });
        let all_lanes = |value: u32| std::iter::repeat_n(value, WARP);
        let votes = all_lanes(ballot).chain(all_lanes(u32::from(ballot != 0))).chain(all_lanes(u32::from(ballot == u32::MAX)));
        let want: Vec<u32> = votes.chain(low).collect();
        for target in targets("conform_votes") {
            let [y] = target.run(GRID, &[Arg::Out(4 * WARP), Arg::In(&x)]);
            // What any and all return is zero or not.
            let truth = |(i, word): (usize, &u32)| if (WARP..3 * WARP).contains(&i) { u32::from(*word != 0) } else { *word };
            target.same("ballot, any, all, ballot of half", &y.iter().enumerate().map(truth).collect::<Vec<_>>(), &want);
        }
    }
}
