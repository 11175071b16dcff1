//! The ops, in the order of a forward pass's cost.

mod attention;
mod limits;
mod linear;
mod rows;
mod tokens;

use super::op::Op;

/// What the device can do at most, as far as two simple calls show it: `[copy, product]`.
pub fn limits() -> [Op; 2] {
    [limits::copy(), limits::gemm()]
}

/// Every op.
pub fn all() -> Vec<Op> {
    let mut ops = attention::ops();
    ops.extend(linear::ops());
    ops.extend(rows::ops());
    ops.extend(tokens::ops());
    ops
}
