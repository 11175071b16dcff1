//! Copies of boxes by the tensor memory accelerator.

use ltrain::backend::Swizzle;

use crate::target::{Arg, Matrix, noise, targets_with_maps};

const GRID: [u32; 3] = [1, 1, 1];
const ROWS: usize = 37;
const COLUMNS: usize = 72;

/// A box size, a swizzle, and row and column of a box.
type Case = ([usize; 2], Swizzle, [i32; 2]);

/// Inside, across every edge and every corner, and wholly outside.
const CASES: [Case; 13] = [
    ([5, 8], Swizzle::None, [2, 3]),
    ([16, 40], Swizzle::None, [-3, -5]),
    ([16, 40], Swizzle::None, [30, 60]),
    ([3, 24], Swizzle::None, [36, -23]),
    ([256, 128], Swizzle::None, [-100, -20]),
    ([64, 64], Swizzle::Bytes128, [0, 0]),
    ([64, 64], Swizzle::Bytes128, [16, 8]),
    ([64, 64], Swizzle::Bytes128, [-20, -9]),
    ([64, 64], Swizzle::Bytes128, [33, 51]),
    ([11, 64], Swizzle::Bytes128, [7, 8]),
    ([8, 64], Swizzle::Bytes128, [37, 0]),
    ([8, 64], Swizzle::Bytes128, [0, 72]),
    ([8, 64], Swizzle::Bytes128, [-8, -64]),
];

fn matrix(boxes: [usize; 2], swizzle: Swizzle) -> Matrix {
    Matrix { words: noise(ROWS * COLUMNS / 2, 18), size: [ROWS, COLUMNS], boxes, swizzle }
}

/// The elements of words.
fn elements(words: &[u32]) -> Vec<u16> {
    words.iter().flat_map(|word| [*word as u16, (word >> 16) as u16]).collect()
}

/// Elements as words.
fn words(elements: &[u16]) -> Vec<u32> {
    elements.chunks_exact(2).map(|pair| u32::from(pair[0]) | u32::from(pair[1]) << 16).collect()
}

/// Where an element of a box lies in shared memory. Swizzled, the eight chunks of 16 bytes of row r trade places, chunk c with
/// chunk c ^ (r % 8).
fn place([_, columns]: [usize; 2], swizzle: Swizzle, row: usize, column: usize) -> usize {
    const CHUNK: usize = 8;
    let chunk = match swizzle {
        Swizzle::None => column / CHUNK,
        Swizzle::Bytes128 => (column / CHUNK) ^ (row % 8),
    };
    row * columns + chunk * CHUNK + column % CHUNK
}

/// For every element of a box: its place in the box's image, and its place in the matrix if it is inside.
fn pairs((boxes, swizzle, [first_row, first_column]): Case) -> impl Iterator<Item = (usize, Option<usize>)> {
    let inside = |at: i64, size: usize| usize::try_from(at).ok().filter(|at| *at < size);
    let pair = move |row: usize, column: usize| {
        let in_matrix = inside(i64::from(first_row) + row as i64, ROWS)
            .zip(inside(i64::from(first_column) + column as i64, COLUMNS))
            .map(|(row, column)| row * COLUMNS + column);
        (place(boxes, swizzle, row, column), in_matrix)
    };
    (0..boxes[0]).flat_map(move |row| (0..boxes[1]).map(move |column| pair(row, column)))
}

/// The last three parameters of both kernels.
fn numbers<'a>((boxes, _, [row, column]): Case) -> [Arg<'a>; 3] {
    let count = boxes[0] * boxes[1] / 2;
    [Arg::Number(column.cast_unsigned()), Arg::Number(row.cast_unsigned()), Arg::Number(count as u32)]
}

#[test]
fn a_loaded_box_is_zero_outside_the_tensor() {
    let targets = targets_with_maps("conform_tma_load");
    for case @ (boxes, swizzle, at) in CASES {
        let m = matrix(boxes, swizzle);
        let source = elements(&m.words);
        let mut image = vec![0u16; boxes[0] * boxes[1]];
        pairs(case).for_each(|(to, from)| image[to] = from.map_or(0, |from| source[from]));
        for target in &targets {
            let args = [Arg::Out(image.len() / 2), Arg::Map(&m)];
            let [y, unchanged] = target.run(GRID, &args.into_iter().chain(numbers(case)).collect::<Vec<_>>());
            target.same(&format!("a box of {boxes:?}, {swizzle:?}, at {at:?}"), &y, &words(&image));
            target.same("the tensor", &unchanged, &m.words);
        }
    }
}

#[test]
fn a_stored_box_leaves_out_what_is_outside_the_tensor() {
    let targets = targets_with_maps("conform_tma_store");
    for case @ (boxes, swizzle, at) in CASES {
        let m = matrix(boxes, swizzle);
        let image = noise(boxes[0] * boxes[1] / 2, 19);
        // The second store finds the first 16 bytes inverted.
        let last: Vec<u32> = image.iter().enumerate().map(|(i, word)| if i < 4 { !word } else { *word }).collect();
        let stored = elements(&last);
        let mut want = elements(&m.words);
        pairs(case).for_each(|(from, to)| to.into_iter().for_each(|to| want[to] = stored[from]));
        for target in &targets {
            let args = [Arg::In(&image), Arg::Map(&m)];
            let [y] = target.run(GRID, &args.into_iter().chain(numbers(case)).collect::<Vec<_>>());
            target.same(&format!("a box of {boxes:?}, {swizzle:?}, at {at:?}"), &y, &words(&want));
        }
    }
}
