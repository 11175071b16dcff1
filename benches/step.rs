//! A full fine-tuning step on the CPU: forward, backward, clip, AdamW, in f32.
//!
//! The first case holds attention to memory linear in the sequence: one layer at 32k tokens, whose scores alone would take
//! 32 GiB, must stay below 2 GiB. `cargo bench --bench step -- [--only NAME] [--seconds S] [--threads N] [--json FILE]`; compared with PyTorch by
//! `scripts/bench_cpu.sh`. CPU time stands beside wall time because it says more on a busy machine.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use clap::Parser;
use ltrain::Result;
use ltrain::backend::Cpu;
use ltrain::data::Batch;
use ltrain::model::{Arch, Llama, ModelConfig, Recompute, RopeConfig, RopeScaling};
use ltrain::optim::{AdamW, AdamWConfig};
use ltrain::train::gradients;

/// One row of the table. `benches/peers/torch_cpu.py` has the same list.
struct Case {
    name: &'static str,
    hidden: usize,
    layers: usize,
    heads: usize,
    kv_heads: usize,
    ffn: usize,
    vocab: usize,
    tied: bool,
    batch: usize,
    seq_len: usize,
    recompute: Recompute,
    /// Peak memory that must not be passed, in MiB.
    limit_mib: f64,
}

#[rustfmt::skip]
const CASES: [Case; 4] = [
    Case { name: "32k-tokens", hidden: 64, layers: 1, heads: 8, kv_heads: 4, ffn: 172, vocab: 512, tied: true, batch: 1, seq_len: 32768, recompute: Recompute::Nothing, limit_mib: 2048.0 },
    Case { name: "260k", hidden: 64, layers: 5, heads: 8, kv_heads: 4, ffn: 172, vocab: 512, tied: true, batch: 8, seq_len: 512, recompute: Recompute::Nothing, limit_mib: f64::INFINITY },
    Case { name: "10m", hidden: 288, layers: 6, heads: 6, kv_heads: 6, ffn: 768, vocab: 4096, tied: true, batch: 8, seq_len: 256, recompute: Recompute::Nothing, limit_mib: f64::INFINITY },
    Case { name: "134m", hidden: 768, layers: 12, heads: 12, kv_heads: 12, ffn: 2048, vocab: 32000, tied: false, batch: 1, seq_len: 512, recompute: Recompute::Nothing, limit_mib: f64::INFINITY },
];

#[derive(Parser)]
struct Args {
    /// Runs only the cases with these names.
    #[arg(long)]
    only: Vec<String>,
    /// Times each case for about this long, and at least three steps.
    #[arg(long, default_value_t = 6.0)]
    seconds: f64,
    /// Threads of the pool.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Appends one JSON line per case to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// What `cargo bench` passes.
    #[arg(long, hide = true)]
    bench: bool,
}

fn config(case: &Case) -> ModelConfig {
    ModelConfig {
        arch: Arch::Llama,
        vocab: case.vocab,
        hidden: case.hidden,
        ffn: case.ffn,
        layers: case.layers,
        heads: case.heads,
        kv_heads: case.kv_heads,
        head_dim: case.hidden / case.heads,
        rms_eps: 1e-5,
        tied: case.tied,
        qkv_bias: false,
        o_bias: false,
        mlp_bias: false,
        qk_norm: false,
        context: case.seq_len,
        rope: RopeConfig { theta: 10_000.0, scaling: RopeScaling::Default },
        bos: None,
        eos: Vec::new(),
        initializer_range: 0.02,
    }
}

/// User and system seconds of this process, all threads.
fn cpu_seconds() -> (f64, f64) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks = |n: usize| fields.get(n).and_then(|f| f.parse::<f64>().ok()).unwrap_or(f64::NAN) / 100.0;
    (ticks(11), ticks(12))
}

/// Peak resident memory since [`reset_peak`], in MiB.
fn peak_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = status.lines().find_map(|l| l.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.trim().parse::<f64>().ok());
    kib.unwrap_or(f64::NAN) / 1024.0
}

fn reset_peak() {
    // Where the kernel refuses, the peak is that of all cases so far.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

struct Measured {
    steps: usize,
    median: f64,
    p90: f64,
    best: f64,
    user: f64,
    sys: f64,
    peak_mib: f64,
    loss: f64,
}

fn measure(case: &Case, seconds: f64) -> Result<Measured> {
    reset_peak();
    let mut model = Llama::init(config(case), 1)?;
    model.params.iter_mut().for_each(|p| p.trainable = true);
    let mut optimizer = AdamW::new(AdamWConfig::default(), &model.params, &Cpu).unwrap();
    let ids: Vec<u32> =
        (0..case.batch * case.seq_len).map(|n| (n as u32).wrapping_mul(2_654_435_761) % case.vocab as u32).collect();
    let rows: Vec<&[u32]> = ids.chunks_exact(case.seq_len).collect();
    let batch = [Batch::contiguous(&rows)];
    let stop = AtomicBool::new(false);
    let mut step = || -> Result<f64> {
        let (grads, loss) = gradients(&Cpu, &model, &batch, case.recompute, &stop)?.expect("bench: nothing raises the stop flag");
        optimizer.apply(&Cpu, &mut model.params, &grads, |_| 1e-4)?;
        Ok(loss)
    };
    step()?;
    let mut loss = step()?;
    let mut times = Vec::new();
    let (user, sys) = cpu_seconds();
    while times.len() < 3 || times.iter().sum::<f64>() < seconds {
        let started = Instant::now();
        loss = step()?;
        times.push(started.elapsed().as_secs_f64());
    }
    let (user, sys) = (cpu_seconds().0 - user, cpu_seconds().1 - sys);
    times.sort_by(f64::total_cmp);
    let steps = times.len();
    let at = |share: f64| times[((steps - 1) as f64 * share).round() as usize];
    Ok(Measured {
        steps,
        median: at(0.5),
        p90: at(0.9),
        best: times[0],
        user: user / steps as f64,
        sys: sys / steps as f64,
        peak_mib: peak_mib(),
        loss,
    })
}

fn main() -> Result<()> {
    let args = Args::parse();
    rayon::ThreadPoolBuilder::new().num_threads(args.threads).build_global().expect("bench: the pool is built once");
    println!("case          tokens   steps   median ms   p90 ms   best ms   cpu ms (user+sys)   tokens/s   peak MiB");
    for case in CASES.iter().filter(|c| args.only.is_empty() || args.only.iter().any(|o| o == c.name)) {
        let m = rayon::scope(|_| measure(case, args.seconds))?;
        assert!(m.peak_mib <= case.limit_mib, "{}: peak {:.0} MiB, allowed {}", case.name, m.peak_mib, case.limit_mib);
        assert!(m.loss.is_finite(), "{}: loss {}", case.name, m.loss);
        let tokens = case.batch * case.seq_len;
        let ms = |s: f64| s * 1e3;
        println!(
            "{:<12} {tokens:>7} {:>7} {:>11.1} {:>8.1} {:>9.1} {:>9.1} + {:<7.1} {:>10.0} {:>10.0}",
            case.name,
            m.steps,
            ms(m.median),
            ms(m.p90),
            ms(m.best),
            ms(m.user),
            ms(m.sys),
            tokens as f64 / m.median,
            m.peak_mib,
        );
        if let Some(path) = &args.json {
            let line = serde_json::json!({
                "who": "ltrain", "case": case.name, "tokens": tokens, "steps": m.steps, "median_s": m.median, "p90_s": m.p90,
                "best_s": m.best, "cpu_s": m.user + m.sys, "sys_s": m.sys, "peak_mib": m.peak_mib, "loss": m.loss,
            });
            let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).expect("bench: --json file opens");
            std::io::Write::write_all(&mut file, format!("{line}\n").as_bytes()).expect("bench: --json file is writable");
        }
    }
    Ok(())
}
