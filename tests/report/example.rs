//! An invented run, shaped like a real one. Its numbers prove nothing about ltrain.

use ltrain::report::record::*;

/// A model and a method, nothing measured.
pub fn bare() -> RunRecord {
    RunRecord {
        model: ModelRecord {
            name: "example/toy-llama-512".into(),
            parameters: 4_212_992,
            trainable: 4_212_992,
            context: 512,
            rope: "theta 10000".into(),
        },
        method: MethodRecord {
            positions: "pose".into(),
            rope: "yarn ×16, theta 10000".into(),
            mode: "full".into(),
            data: "an invented corpus, 12.4 M tokens".into(),
            target: 8192,
            seq_len: 512,
            steps: 300,
            tokens: 9_830_400,
        },
        origin: Origin {
            command: "ltrain train --model example/toy-llama-512 --target 8k --positions pose --rope yarn".into(),
            version: "ltrain 0.1.0 (example)".into(),
            device: "cpu, 2 threads".into(),
            date: "2026-11-21T10:04:07Z".into(),
            seed: 7,
        },
        export: Export {
            base: "example/toy-llama-512".into(),
            merged: Some("runs/example/merged".into()),
            adapter: Some("runs/example".into()),
            patched_config: Some("runs/example/base_config".into()),
            rank: Some(12),
            overrides: Some(
                r#"{"rope_scaling":{"rope_type":"yarn","factor":16.0,"original_max_position_embeddings":512}}"#.into(),
            ),
        },
        ..RunRecord::default()
    }
}

/// The same with everything a run can measure.
pub fn example() -> RunRecord {
    let settings = [
        ("model.path", "example/toy-llama-512"),
        ("positions.method", "pose"),
        ("positions.target", "8192"),
        ("positions.chunks", "2"),
        ("rope.type", "yarn"),
        ("train.seq_len", "512"),
        ("train.steps", "300"),
        ("optim.lr", "2e-4"),
        ("optim.schedule", "cosine, 10 warm-up steps"),
    ];
    RunRecord {
        settings: settings.map(|(k, v)| Setting { key: k.into(), value: v.into() }).into(),
        steps: (1..=300).map(step).collect(),
        validation: (0..=6)
            .map(|i| ValidationRecord { step: i * 50, loss: 2.05 + 2.4 * (-(i as f64) / 1.2).exp(), retrieval: None })
            .collect(),
        evaluations: vec![
            eval("base", Role::Before, "theta 10000", [5.08, 14.9, 52.3, 98.0, 156.0], [0.95, 0.04, 0.0, 0.0], 1.2),
            eval("base + yarn ×16", Role::RopeOnly, "yarn ×16", [7.94, 8.41, 10.2, 14.6, 22.7], [0.7, 0.5, 0.22, 0.05], 0.4),
            eval("after pose", Role::After, "yarn ×16", [5.31, 5.28, 5.44, 6.02, 6.9], [1.0, 1.0, 0.98, 0.93], 0.03),
            eval(
                "after contiguous (control)",
                Role::Control,
                "yarn ×16",
                [5.12, 7.7, 12.8, 20.1, 31.4],
                [0.99, 0.62, 0.2, 0.06],
                0.6,
            ),
        ],
        coverage: Some((0..64).map(coverage).collect()),
        covered_share: Some(0.97),
        notes: vec!["Example data for the tests of the report: invented numbers, shaped like a run.".into()],
        ..bare()
    }
}

/// Deterministic noise in -1..1.
fn noise(i: u64) -> f64 {
    (i as f64 * 12.9898).sin() * 0.6 + (i as f64 * 78.233).cos() * 0.4
}

fn step(i: u64) -> StepRecord {
    let t = i as f64;
    let warm = (t / 10.0).min(1.0);
    StepRecord {
        step: i,
        loss: 2.0 + 2.6 * (-t / 45.0).exp() + 0.13 * noise(i),
        grad_norm: 0.6 + 2.4 * (-t / 25.0).exp() + 0.2 * noise(i + 999).abs() + if i == 181 { 3.9 } else { 0.0 },
        lr: 2e-4 * warm * 0.5 * (1.0 + (std::f64::consts::PI * t / 300.0).cos()),
        tokens_per_second: 11_800.0 + 420.0 * noise(i + 5) - if i.is_multiple_of(50) { 3000.0 } else { 0.0 },
        memory_bytes: 612 << 20,
        seconds: t * 2.78,
        epoch: t / 380.0,
        total_tokens: i * 32_768,
    }
}

/// Some windows are harder than others for every model, and a little more so for some.
fn window(name: &str, length: usize, nll: f64, w: u64) -> WindowLoss {
    WindowLoss { nll: nll + 0.1 * noise(w) + 0.02 * noise(w + 1000 * name.len() as u64), tokens: length as u64 - 1 }
}

fn eval(name: &str, role: Role, rope: &str, ppl: [f64; 5], found: [f64; 4], slope: f64) -> EvalRecord {
    let lengths = [512, 1024, 2048, 4096, 8192];
    let perplexity = lengths.iter().zip(ppl).map(|(&length, ppl)| LengthScore {
        length,
        ppl,
        nll: ppl.ln(),
        error: 0.01,
        tokens: 65_536,
        windows: 65_536 / length as u64,
        by_window: (0..65_536 / length as u64).map(|w| window(name, length, ppl.ln(), w)).collect(),
    });
    let bucket = |i: usize| Bucket {
        lo: i * 512,
        hi: (i + 1) * 512,
        nll: ppl[0].ln() + 0.1 + slope * (i as f64).sqrt() + 0.03 * noise(i as u64 + name.len() as u64),
        tokens: 4096,
    };
    // The middle of a text is the hardest place to find something; the mean over depths stays what was asked for.
    let dip = [0.04, 0.02, -0.12, 0.02, 0.04];
    let cell = |d: usize, a: f64| if a <= 0.05 || a >= 0.98 { a } else { (a + dip[d] * a.min(1.0 - a) * 2.0).clamp(0.0, 1.0) };
    EvalRecord {
        name: name.into(),
        role,
        rope: rope.into(),
        device: "NVIDIA Imaginary".into(),
        perplexity: perplexity.collect(),
        buckets: (0..16).map(bucket).collect(),
        passkey: Some(Grid {
            lengths: lengths[..4].to_vec(),
            depths: vec![0.0, 0.25, 0.5, 0.75, 1.0],
            accuracy: (0..5).map(|d| found.iter().map(|&a| cell(d, a)).collect()).collect(),
            samples: 20,
        }),
        ruler: found
            .iter()
            .zip(lengths)
            .flat_map(|(&score, length)| ["niah_single_2", "vt"].map(|task| scored(task, "", length, score)))
            .collect(),
        longbench: vec![scored("qasper", "single-doc QA", 4096, found[3]), scored("lcc", "code", 4096, 0.5)],
        niah: Some(Grid {
            lengths: lengths[..2].to_vec(),
            depths: vec![0.0, 1.0],
            accuracy: vec![vec![found[0], found[1]]; 2],
            samples: 10,
        }),
        seed: 42,
    }
}

fn scored(task: &str, group: &str, length: usize, score: f64) -> TaskScore {
    let (task, group) = (task.into(), group.into());
    TaskScore { task, group, length, score, error: 0.02, samples: 20, tokens: length as f64 - 1.0 }
}

fn coverage(bin: u64) -> CoverageRecord {
    let (lo, hi) = (bin * 128, (bin + 1) * 128);
    let near = if lo < 512 { (512 - lo) * 900_000 } else { 0 };
    let far = (8192 - lo) * 2_300;
    let pairs = if bin == 63 { 0 } else { near + far + (40_000.0 * noise(bin)) as u64 };
    CoverageRecord { distance_lo: lo, distance_hi: hi, pairs, covered_rows: pairs.min(19_200) }
}
