//! `ltrain bench`.

use super::Ending;
use super::commands::print;
use crate::backend::Kernels;
use crate::backend::gpu::Place;
use crate::bench::{self, Plan};
use crate::cli::BenchArgs;
use crate::config::choices::Shapes;
use crate::config::text::{Length, List};
use crate::config::{ConfigError, Problem};
use crate::doctor;
use crate::error::Result;

/// Row lengths on a GPU and on the CPU.
const LENGTHS: [&[usize]; 2] = [&[4 << 10, 16 << 10, 32 << 10, 128 << 10], &[256]];
const MODELS: [&[Shapes]; 2] = [&[Shapes::Llama8b, Shapes::Llama1b], &[Shapes::Tiny]];

/// Measures and prints a table.
///
/// # Errors
/// [`Unmeasured`](bench::Unmeasured) when a kernel is wrong, after all others were measured, or when the device stopped.
pub fn bench(args: &BenchArgs, place: &Place, kernels: &dyn Kernels) -> Result<Ending> {
    if let Some(word) = args.only.iter().find(|word| bench::names(&[(*word).clone()]).is_empty()) {
        let problem = Problem::new("only", format!("expected the beginning of an op's name, got {word:?}"));
        return Err(ConfigError::Problems(vec![problem.help(bench::names(&[]).join(", "))]).into());
    }
    let kind = usize::from(matches!(place, Place::Cpu { .. }));
    let free = match kernels.usage() {
        Some(usage) => usage.limit - usage.used.iter().sum::<u64>(),
        None => doctor::memory().map_or(u64::MAX, |memory| memory.free),
    };
    let lengths = |List(lengths): &List<Length>| lengths.iter().map(|l| l.0).collect();
    let plan = Plan {
        only: args.only.clone(),
        shapes: args.shapes.as_ref().map_or_else(|| MODELS[kind].to_vec(), |List(shapes)| shapes.clone()),
        tokens: args.tokens.as_ref().map_or_else(|| LENGTHS[kind].to_vec(), lengths),
        seconds: args.seconds,
        limit: free,
        json: args.json.clone(),
    };
    let rows = bench::run(kernels, &place.to_string(), &plan, &mut |line| print(line))?;
    bench::verdict(&rows)?;
    Ok(Ending::Finished)
}
