//! Every op at real sizes, the same as `ltrain bench`: `cargo bench --bench kernels -- [--only OP,…] [--shapes 8b,1b] …`.
//!
//! Peers: `benches/peers/torch_gpu.py`; both in one table: `scripts/compare_peers.py`.

use std::process::ExitCode;

use clap::Parser;
use ltrain::cli::BenchArgs;
use ltrain::error::Shown;
use ltrain::run;

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    ours: BenchArgs,
    /// What `cargo bench` passes.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let args = Args::parse().ours;
    let measure = |(place, kernels): run::Started| run::on_threads(args.device.threads, || run::bench(&args, &place, &*kernels));
    let done = run::start_for(&args.device).and_then(measure);
    done.map_or_else(|error| (eprintln!("{}", Shown(&error)), ExitCode::FAILURE).1, |_| ExitCode::SUCCESS)
}
