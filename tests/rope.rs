//! Rotations against Transformers' tables and against their own algebra.

mod common;

use std::f64::consts::TAU;

use common::Golden;
use common::backends::backends;
use ltrain::backend::{Cpu, Kernels};
use ltrain::model::{RopeConfig, RopeError, RopeKind, RopeScaling};
use ltrain::ops::rope::{RopeFreqs, RopeKernels as _, RopeTable};
use ltrain::tensor::Tensor;
use serde_json::Value;

/// Panics on the first element further from `want` than `allowed(want)`; NaN is never close.
fn close(what: &str, got: &[f32], want: &[f32], allowed: impl Fn(f32) -> f32) {
    assert_eq!(got.len(), want.len(), "{what}: length");
    for (i, (&g, &w)) in got.iter().zip(want).enumerate() {
        let (off, allowed) = ((g - w).abs(), allowed(w));
        assert!(off <= allowed, "{what}[{i}]: {g} vs {w}, off {off:.2e}, allowed {allowed:.2e}");
    }
}

fn relative(tolerance: f32) -> impl Fn(f32) -> f32 {
    move |want| tolerance * want.abs()
}

fn absolute(tolerance: f32) -> impl Fn(f32) -> f32 {
    move |_| tolerance
}

fn plain(theta: f64) -> RopeConfig {
    RopeConfig { theta, scaling: RopeScaling::Default }
}

fn scaled(theta: f64, scaling: RopeScaling) -> RopeConfig {
    RopeConfig { theta, scaling }
}

/// A fixture's `rope_parameters`.
fn config(case: &Value) -> RopeConfig {
    let number = |key: &str| case[key].as_f64().unwrap_or_else(|| panic!("{key} in {case}"));
    let original = || number("original_max_position_embeddings") as usize;
    let scaling = match case["rope_type"].as_str().unwrap() {
        "default" => RopeScaling::Default,
        "linear" => RopeScaling::Linear { factor: number("factor") },
        "dynamic" => RopeScaling::Dynamic { factor: number("factor") },
        "yarn" => RopeScaling::yarn(number("factor"), original()),
        "llama3" => RopeScaling::Llama3 {
            factor: number("factor"),
            low_freq_factor: number("low_freq_factor"),
            high_freq_factor: number("high_freq_factor"),
            original: original(),
        },
        other => panic!("rope_type {other}"),
    };
    RopeConfig { theta: number("rope_theta"), scaling }
}

fn cases() -> serde_json::Map<String, Value> {
    Golden::open("rope").meta("cases").as_object().unwrap().clone()
}

#[test]
fn inverse_frequencies_are_those_of_transformers() {
    let golden = Golden::open("rope");
    assert_eq!(cases().len(), 7);
    for (name, case) in &cases() {
        let seq_len = case["seq_len"].as_u64().unwrap_or(1) as usize;
        // The fixture's declared context is 4096 for every case that looks at it.
        let freqs = config(case).freqs(128, 4096, seq_len);
        close(name, &freqs.inv_freq, &golden.f32(&format!("{name}.inv_freq")).0, relative(1e-6));
        let factor = case["attention_factor"].as_f64().unwrap() as f32;
        close(name, &[freqs.attention_factor], &[factor], relative(1e-6));
    }
}

/// Every variant at d = 16, theta 10000, original context 2048: nine digits printed by Transformers.
#[test]
fn small_heads_match_the_published_vectors() {
    let untruncated = match RopeScaling::yarn(4.0, 2048) {
        RopeScaling::Yarn { factor, original, attention_factor, beta_fast, beta_slow, mscale, mscale_all_dim, .. } => {
            RopeScaling::Yarn {
                factor,
                original,
                attention_factor,
                beta_fast,
                beta_slow,
                mscale,
                mscale_all_dim,
                truncate: false,
            }
        }
        other => other,
    };
    let base = || plain(10000.0);
    #[rustfmt::skip]
    let table: [(_, _, f64, [f64; 8]); 7] = [
        ("default", base(), 1.0,
            [1., 0.316227764, 0.1, 0.0316227786, 0.01, 0.00316227786, 0.001, 3.16227786e-4]),
        ("linear", scaled(1e4, RopeScaling::Linear { factor: 4.0 }), 1.0,
            [0.25, 0.079056941, 0.025, 0.00790569466, 0.0025, 7.90569466e-4, 2.5e-4, 7.90569466e-5]),
        ("ntk", base().extended(RopeKind::Ntk, 2048, 8192, 16).unwrap(), 1.0,
            [1., 0.259412817, 0.0672950096, 0.017457188, 0.00452861832, 0.00117478164, 3.04753414e-4, 7.90569415e-5]),
        ("dynamic", scaled(1e4, RopeScaling::Dynamic { factor: 4.0 }), 1.0,
            [1., 0.219212443, 0.0480541028, 0.0105340583, 0.00230919663, 5.06204669e-4, 1.10966372e-4, 2.43252125e-5]),
        ("yarn", scaled(1e4, RopeScaling::yarn(4.0, 2048)), 1.13862944,
            [1., 0.316227764, 0.1, 0.025693506, 0.00625, 0.00138349656, 2.5e-4, 7.90569466e-5]),
        ("yarn, truncate false", scaled(1e4, untruncated), 1.13862944,
            [1., 0.316227764, 0.1, 0.0238701962, 0.00505697168, 8.11290462e-4, 2.5e-4, 7.90569466e-5]),
        ("llama3", scaled(1e4, RopeScaling::llama3(8.0, 2048)), 1.0,
            [1., 0.316227764, 0.1, 0.0316227786, 0.00784018822, 4.23639314e-4, 1.25e-4, 3.95284733e-5]),
    ];
    for (name, config, attention_factor, want) in table {
        let freqs = config.freqs(16, 2048, 8192);
        close(name, &freqs.inv_freq, &want.map(|w| w as f32), relative(1e-6));
        close(name, &[freqs.attention_factor], &[attention_factor as f32], relative(1e-6));
    }
    let ntk = base().extended(RopeKind::Ntk, 2048, 8192, 16).unwrap();
    assert!((ntk.theta - 48760.546).abs() < 1e-3, "{}", ntk.theta);
}

#[test]
fn dynamic_scaling_starts_where_the_context_ends() {
    let dynamic = scaled(1e4, RopeScaling::Dynamic { factor: 4.0 });
    assert_eq!(dynamic.freqs(16, 2048, 2048), plain(1e4).freqs(16, 2048, 1));
    assert_ne!(dynamic.freqs(16, 2048, 2049), dynamic.freqs(16, 2048, 2048));
}

#[test]
fn yarns_attention_factor_is_stated_or_derived() {
    let with = |given, top, bottom| {
        match RopeScaling::yarn(40.0, 4096) {
            RopeScaling::Yarn { factor, original, beta_fast, beta_slow, truncate, .. } => RopeScaling::Yarn {
                factor,
                original,
                beta_fast,
                beta_slow,
                truncate,
                attention_factor: given,
                mscale: top,
                mscale_all_dim: bottom,
            },
            other => other,
        }
        .attention_factor()
    };
    let m = |k: f64| 0.1 * k * 40f64.ln() + 1.0;
    assert_eq!(with(Some(1.25), Some(1.0), Some(0.7)), 1.25);
    assert_eq!(with(None, Some(1.0), Some(0.7)), m(1.0) / m(0.7));
    assert_eq!(with(None, Some(0.7), Some(0.0)), m(1.0));
    assert_eq!(with(None, None, None), m(1.0));
}

/// Positions up to 8,388,607, where an f32 angle is off by half a radian.
#[test]
fn tables_stay_exact_at_far_positions() {
    let golden = Golden::open("rope");
    let (positions, _) = golden.f32("positions");
    let t = positions.len();
    let positions = Tensor::u32(positions.iter().map(|&p| p as u32).collect(), [1, t]);
    for (name, case) in &cases() {
        let freqs = RopeFreqs {
            inv_freq: golden.f32(&format!("{name}.inv_freq")).0,
            attention_factor: case["attention_factor"].as_f64().unwrap() as f32,
        };
        let table = Cpu.rope_table(&positions, &[1.0], &freqs).unwrap();
        let RopeTable::Angles { cos, sin } = table else { panic!("the CPU reads angles") };
        for (part, tensor) in [("cos", cos), ("sin", sin)] {
            tensor.expect("table", [1, t, 64]).unwrap();
            let name = format!("{name}.{part}");
            close(&name, tensor.as_f32().unwrap(), &golden.f32(&name).0, absolute(1e-6));
        }
    }
}

/// Scale and offset, each token of each case in its own place of a batch whose rows differ in scale.
#[test]
fn rotation_matches_transformers_for_every_scale_and_offset() {
    let golden = Golden::open("rope");
    let (x, shape) = golden.f32("rotate.x");
    let (positions, _) = golden.f32("rotate.positions");
    let [t, h, d] = shape[..] else { panic!("{shape:?}") };
    let cases = golden.meta("rotate");
    let cases = cases.as_object().unwrap();
    let (mut ids, mut scales, mut xs, mut want) = (vec![], vec![], vec![], vec![]);
    for (name, case) in cases {
        let offset = case[1].as_u64().unwrap() as u32;
        ids.extend(positions.iter().map(|&p| p as u32 + offset));
        scales.push(case[0].as_f64().unwrap() as f32);
        xs.extend_from_slice(&x);
        want.extend(golden.f32(&format!("rotate.{name}")).0);
    }
    let b = cases.len();
    let freqs = RopeFreqs { inv_freq: golden.f32("default.inv_freq").0, attention_factor: 1.0 };
    let x = Tensor::f32(xs, [b, t, h, d]);
    let rotate = |kernels: &dyn Kernels| {
        let table = kernels.rope_table(&Tensor::u32(ids.clone(), [b, t]), &scales, &freqs).unwrap();
        let mut y = [kernels.place(&x).unwrap()];
        kernels.rope_fwd(&mut y, &table).unwrap();
        y[0].to_host_f32().unwrap()
    };
    // Two products and a sum of values up to 4 in f32: 4 · 3 · 2^-24 = 7e-7, and the table's own 1e-7 on each.
    close("rotate", rotate(&Cpu).as_f32().unwrap(), &want, absolute(2e-6));
    for (name, device) in backends(x.shape().len()) {
        // Such values are off by up to 2^-8 of 4 once they are rounded to bf16: two that a result is made of, and itself.
        close(&format!("rotate on {name}"), rotate(&*device).as_f32().unwrap(), &want, absolute(4.0 * 3.0 / 256.0));
    }
}

fn rotated(x: &Tensor, table: &RopeTable) -> Tensor {
    let mut y = [x.clone()];
    Cpu.rope_fwd(&mut y, table).unwrap();
    let [y] = y;
    y
}

fn ramp(n: usize, phase: f32) -> Vec<f32> {
    (0..n).map(|i| (0.37 * i as f32 + phase).sin()).collect()
}

/// `⟨rope(x), dy⟩ = ⟨x, ropeᵀ(dy)⟩` for unlovely shapes, with YaRN's factor in the table.
#[test]
fn backward_is_the_transpose_of_forward() {
    for [b, t, h, d] in [[1, 1, 1, 2], [2, 7, 3, 10], [3, 33, 5, 64], [2, 17, 1, 34]] {
        let freqs = scaled(1e4, RopeScaling::yarn(8.0, 16)).freqs(d, 128, 128);
        let ids = (0..b * t).map(|i| (i * i % 1013) as u32).collect();
        let scales: Vec<f32> = (1..=b).map(|g| g as f32).collect();
        let table = Cpu.rope_table(&Tensor::u32(ids, [b, t]), &scales, &freqs).unwrap();
        let n = b * t * h * d;
        let x = Tensor::f32(ramp(n, 0.1), [b, t, h, d]);
        let dy = Tensor::f32(ramp(n, 1.7), [b, t, h, d]);
        let y = rotated(&x, &table);
        let mut dx = [dy.clone()];
        Cpu.rope_bwd(&mut dx, &table).unwrap();
        let [dx] = dx;
        let dot = |a: &Tensor, b: &Tensor| -> f64 {
            let products = a.as_f32().unwrap().iter().zip(b.as_f32().unwrap());
            products.map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
        };
        let off = (dot(&y, &dy) - dot(&x, &dx)).abs();
        let allowed = f64::from(f32::EPSILON) * (n as f64).sqrt() * 8.0;
        assert!(off <= allowed, "{b} {t} {h} {d}: off {off:.2e}, allowed {allowed:.2e}");
    }
}

#[test]
fn a_rotation_keeps_dot_products_of_equal_distances() {
    let d = 64;
    let freqs = plain(1e4).freqs(d, 1, 1);
    let ids = vec![3, 10, 1_000_003, 1_000_010];
    let table = Cpu.rope_table(&Tensor::u32(ids, [1, 4]), &[1.0], &freqs).unwrap();
    let (q, k) = (ramp(d, 0.3), ramp(d, 2.1));
    let x = Tensor::f32([&q[..], &k, &q, &k].concat(), [1, 4, 1, d]);
    let y = rotated(&x, &table);
    let y = y.as_f32().unwrap();
    let dot = |a: usize, b: usize| (0..d).map(|i| y[a * d + i] * y[b * d + i]).sum::<f32>();
    close("relative", &[dot(2, 3)], &[dot(0, 1)], absolute(f32::EPSILON * 8.0 * 8.0));
}

#[test]
fn shapes_that_do_not_fit_are_errors() {
    let freqs = plain(1e4).freqs(8, 1, 1);
    let positions = Tensor::u32(vec![0, 1, 2], [1, 3]);
    assert!(Cpu.rope_table(&positions, &[1.0, 2.0], &freqs).is_err());
    let table = Cpu.rope_table(&positions, &[1.0], &freqs).unwrap();
    for shape in [[1, 4, 2, 8], [1, 3, 2, 6], [1, 3, 2, 9]] {
        assert!(Cpu.rope_fwd(&mut [Tensor::zeros(shape)], &table).is_err(), "{shape:?}");
    }
}

#[test]
fn kinds_are_read_as_they_are_printed() {
    let kinds = ["keep", "linear", "ntk", "yarn", "llama3", "longrecipe", "theta:500000", "theta:48900000.5"];
    let factors = ["linear:4", "ntk:2.5", "yarn:8", "llama3:1", "longrecipe:10"];
    for text in kinds.into_iter().chain(factors) {
        assert_eq!(text.parse::<RopeKind>().unwrap().to_string(), text);
    }
    assert_eq!("theta:5e5".parse::<RopeKind>().unwrap(), RopeKind::Theta(5e5));
    for text in ["theta:", "theta:one", "theta:1", "theta:-5", "theta:inf", "theta:NaN"] {
        assert!(matches!(text.parse::<RopeKind>(), Err(RopeError::Theta { .. })), "{text}");
    }
    for text in ["linear:", "linear:x", "ntk:0.5", "yarn:-8", "llama3:inf", "longrecipe:NaN", "linear:1e7"] {
        assert!(matches!(text.parse::<RopeKind>(), Err(RopeError::Factor { .. })), "{text}");
    }
    for text in ["yarm", "yarm:4", "keep:2", "", ":4"] {
        let error = text.parse::<RopeKind>().unwrap_err().to_string();
        let choices =
            "--rope: expected one of keep, linear, ntk, yarn, llama3, longrecipe, theta:VALUE; a total factor, as in linear:4";
        assert!(error.starts_with(choices) && error.ends_with(&format!("got {text:?}")), "{error}");
    }
}

#[test]
fn each_kind_extends_the_bases_it_fits() {
    use RopeKind::*;
    let llama31 = || scaled(5e5, RopeScaling::llama3(8.0, 8192));
    let linear = |factor| scaled(1e4, RopeScaling::Linear { factor });
    #[rustfmt::skip]
    let cases = [
        (plain(1e4), Keep, 512, 4096, plain(1e4), "theta 10000"),
        (plain(1e4), Linear, 512, 4096, linear(8.0), "linear ×8"),
        (linear(2.0), Linear, 8192, 16384, linear(4.0), "linear ×4"),
        (plain(1e4), Yarn, 512, 4096, scaled(1e4, RopeScaling::yarn(8.0, 512)), "yarn ×8 (original 512)"),
        (scaled(1e6, RopeScaling::yarn(4.0, 32768)), Yarn, 131072, 262144, scaled(1e6, RopeScaling::yarn(8.0, 32768)), "yarn ×8 (original 32768)"),
        (llama31(), Yarn, 131072, 524288, scaled(5e5, RopeScaling::yarn(64.0, 8192)), "yarn ×64 (original 8192)"),
        (llama31(), Llama3, 131072, 524288, scaled(5e5, RopeScaling::llama3(32.0, 8192)), "llama3 ×32 (original 8192)"),
        (plain(5e5), Llama3, 8192, 12288, scaled(5e5, RopeScaling::llama3(1.5, 8192)), "llama3 ×1.5 (original 8192)"),
        (plain(1e4), Theta(80000.0), 512, 4096, plain(80000.0), "theta 80000"),
        (scaled(1e4, RopeScaling::Dynamic { factor: 4.0 }), Linear, 4096, 8192, linear(2.0), "linear ×2"),
        (llama31(), Keep, 131072, 131072, llama31(), "llama3 ×8 (original 8192)"),
    ];
    for (base, kind, context, target, want, shown) in cases {
        let got = base.extended(kind, context, target, 128).unwrap();
        assert_eq!(got, want, "{kind} over {base}");
        assert_eq!(got.to_string(), shown);
    }
}

/// The paper's bases, and the formula's (arXiv 2409.00509, appendix A): Llama 3 from 8k to 80k and 128k, Qwen2 from 32k to 128k.
#[test]
fn longrecipes_bases_are_the_papers() {
    let theta = |theta, kind, context, target| {
        let extended = plain(theta).extended(kind, context, target, 128).unwrap();
        assert_eq!(extended.scaling, RopeScaling::Default);
        extended.theta
    };
    let usual = RopeKind::LongRecipe(None);
    for (got, millions) in [
        (theta(5e5, usual, 8000, 80_000), 48.88),
        (theta(5e5, usual, 8000, 128_000), 131.46),
        (theta(1e6, usual, 32768, 131_072), 13.54),
        (theta(5e5, RopeKind::LongRecipe(Some(10.0)), 8000, 80_000), 48.88),
        // 5e5·(4·10 − 3)^(128/126), by numpy.
        (theta(5e5, RopeKind::LongRecipe(Some(4.0)), 8000, 80_000), 19.59),
    ] {
        assert!((got / 1e6 - millions).abs() < 5e-3, "{got} is not {millions} M");
    }
    let short = plain(5e5).extended(usual, 8000, 8000, 128).unwrap_err();
    assert!(matches!(short, RopeError::NotLonger { .. }), "{short}");
    let linear = scaled(5e5, RopeScaling::Linear { factor: 2.0 });
    assert!(matches!(linear.extended(usual, 8000, 80_000, 128), Err(RopeError::Incompatible { .. })));
}

/// A factor counts from the model's original rotation, whatever the target and whatever it was extended by.
#[test]
fn a_factor_replaces_the_scaling_that_is_there() {
    let linear = |factor| scaled(1e4, RopeScaling::Linear { factor });
    let yarn = |factor| scaled(1e4, RopeScaling::yarn(factor, 256));
    let llama3 = |factor| scaled(1e4, RopeScaling::llama3(factor, 256));
    #[rustfmt::skip]
    let cases = [
        (plain(1e4), 256, "linear:4", linear(4.0), 1024),
        (plain(1e4), 256, "yarn:8", yarn(8.0), 2048),
        (plain(1e4), 256, "llama3:2", llama3(2.0), 512),
        (scaled(1e4, RopeScaling::Dynamic { factor: 4.0 }), 256, "linear:1", linear(1.0), 256),
        // What E2-LLM leaves behind.
        (linear(8.0), 2048, "linear:4", linear(4.0), 1024),
        (linear(8.0), 2048, "linear:16", linear(16.0), 4096),
        (linear(8.0), 2048, "yarn:4", yarn(4.0), 1024),
        (linear(8.0), 2048, "llama3:4", llama3(4.0), 1024),
        (linear(0.7 / 0.1), 1792, "linear:1.5", linear(1.5), 384),
        (yarn(8.0), 2048, "yarn:4", yarn(4.0), 1024),
        (llama3(8.0), 2048, "llama3:4", llama3(4.0), 1024),
        (llama3(8.0), 2048, "yarn:16", yarn(16.0), 4096),
    ];
    for (base, context, text, want, reached) in cases {
        let kind: RopeKind = text.parse().unwrap();
        let RopeKind::Factor(_, factor) = kind else { panic!("{text} has a factor") };
        for target in [1, context, 100_000] {
            assert_eq!(base.extended(kind, context, target, 128).unwrap(), want, "{text} over {base}");
        }
        assert_eq!(base.context_at(factor, context).unwrap(), reached, "{text} over {base}");
    }
    let ntk = linear(8.0).extended("ntk:4".parse().unwrap(), 2048, 1, 16).unwrap();
    assert_eq!((ntk.scaling, (ntk.theta - 48760.546).abs() < 1e-3), (RopeScaling::Default, true));
    for (base, text) in [
        (yarn(8.0), "linear:4"),
        (yarn(8.0), "ntk:4"),
        (yarn(8.0), "llama3:4"),
        (llama3(8.0), "linear:4"),
        (llama3(8.0), "ntk:4"),
    ] {
        let error = base.extended(text.parse().unwrap(), 2048, 4096, 128).unwrap_err();
        assert!(matches!(error, RopeError::Incompatible { .. }), "{text} over {base}: {error}");
    }
    let odd = linear(3.0);
    assert_eq!(odd.extended("linear:4".parse().unwrap(), 2048, 1, 128).unwrap(), linear(4.0));
    assert_eq!(odd.context_at(4.0, 2048), Err(RopeError::Original { base: odd.clone(), context: 2048 }));
    assert!(matches!(odd.extended("yarn:4".parse().unwrap(), 2048, 1, 128), Err(RopeError::Original { .. })));
    assert_eq!(plain(1e4).context_at(1.3, 256), Err(RopeError::Context { factor: 1.3, original: 256 }));
    assert!(matches!(plain(1e4).context_at(1e6, 1 << 20), Err(RopeError::Context { .. })));
}

/// Silently replacing Llama 3.1's scaling by a linear one costs three orders of magnitude in perplexity.
#[test]
fn a_kind_that_would_discard_the_bases_scaling_is_refused() {
    use RopeKind::*;
    use ltrain::error::Explain;
    let bases = [
        (scaled(5e5, RopeScaling::llama3(8.0, 8192)), vec![Linear, Ntk, Theta(1e6)], "llama3"),
        (scaled(1e4, RopeScaling::yarn(4.0, 4096)), vec![Linear, Ntk, Llama3, Theta(1e6)], "yarn"),
        (scaled(1e4, RopeScaling::Linear { factor: 4.0 }), vec![Ntk, Yarn, Llama3, Theta(1e6)], "linear"),
    ];
    for (base, kinds, works) in bases {
        for kind in kinds {
            let error = base.extended(kind, 16384, 65536, 128).unwrap_err();
            assert_eq!(error, RopeError::Incompatible { kind, base: base.clone() });
            let help = error.explain().help.unwrap();
            assert!(help.contains(&format!("--rope {works}")), "{help}");
            assert!(help.contains("--rope keep"), "{help}");
        }
    }
    let error = plain(1e4).extended(Yarn, 4096, 4096, 128).unwrap_err();
    assert_eq!(error, RopeError::NotLonger { kind: Yarn, context: 4096, target: 4096 });
}

#[test]
fn a_redundant_attention_factor_follows_the_new_factor_and_a_chosen_one_stays() {
    let base = |given| match RopeScaling::yarn(4.0, 4096) {
        RopeScaling::Yarn { factor, original, beta_fast, beta_slow, truncate, mscale, mscale_all_dim, .. } => {
            let attention_factor = Some(given);
            scaled(
                1e4,
                RopeScaling::Yarn { factor, original, attention_factor, beta_fast, beta_slow, mscale, mscale_all_dim, truncate },
            )
        }
        other => scaled(1e4, other),
    };
    let factor_of = |given| {
        let config = base(given).extended(RopeKind::Yarn, 16384, 65536, 128).unwrap();
        config.scaling.attention_factor()
    };
    assert_eq!(factor_of(1.1386294), 0.1 * 16f64.ln() + 1.0);
    assert_eq!(factor_of(1.0), 1.0);
}

#[test]
fn llama3_keeps_fast_pairs_and_divides_slow_ones() {
    let (d, original) = (128, 8192.0);
    let base = plain(5e5).freqs(d, 1, 1).inv_freq;
    let ours = scaled(5e5, RopeScaling::llama3(8.0, 8192)).freqs(d, 1, 1).inv_freq;
    for (f, g) in base.iter().zip(&ours) {
        let turns = original * f64::from(*f) / TAU;
        let ratio = f / g;
        assert!(turns < 4.001 || ratio == 1.0, "{turns} turns divided by {ratio}");
        assert!(turns > 0.999 || (ratio - 8.0).abs() < 1e-5, "{turns} turns divided by {ratio}");
    }
}
