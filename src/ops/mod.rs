//! The ops. Each file holds one op: the trait its backends implement, the tape function, and what is saved for backward.
//! Copy the shape of [`rms_norm`] to add one.

pub mod attention;
pub mod bias;
pub mod cross_entropy;
pub mod elementwise;
pub mod embedding;
pub mod linear;
pub mod optim;
pub mod place;
pub mod rms_norm;
pub mod rope;
pub mod swiglu;
