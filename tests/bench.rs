//! `ltrain bench`: what it measures is right, and what is wrong is not measured.
#![allow(unsafe_code, reason = "plays a device")]

use std::collections::BTreeSet;
use std::ffi::c_void;
use std::process::{Command, Output};

use ltrain::backend::device::{Fault, Kernel, Launcher, Memory, Purpose};
use ltrain::backend::{Cpu, Device, Emu, EmuMode, Kernels};
use ltrain::bench::{self, Outcome, Plan, Row};
use ltrain::config::choices::Shapes;
use ltrain::error::{Explain as _, Result, Shown};

/// A moment's measurement of these ops.
fn rows(kernels: &dyn Kernels, only: &[&str], limit: u64) -> Vec<Row> {
    let only = only.iter().map(|&word| word.to_owned()).collect();
    let plan = Plan { only, shapes: vec![Shapes::Tiny], tokens: vec![48], seconds: 0.0, limit, json: None };
    bench::run(kernels, "test", &plan, &mut |_| Ok(())).unwrap()
}

#[test]
fn every_op_is_right_and_timed_on_the_emulation() {
    let rows = rows(&Device::new(Emu::new(EmuMode::Eager), u64::MAX), &[], u64::MAX);
    let wrong: Vec<String> = rows.iter().filter(|row| !matches!(row.outcome, Outcome::Timed(_))).map(Row::to_string).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(rows.len(), 2 + bench::names(&[]).len());
    let (limits, ops) = rows.split_at(2);
    assert_eq!([limits[0].op.as_str(), limits[1].op.as_str()], ["copy", "gemm"]);
    assert!(ops.iter().all(|row| row.rate().is_some_and(|r| r > 0.0) && row.share.is_some_and(|s| s > 0.0)));
    assert!(bench::verdict(&rows).is_ok());
}

#[test]
fn every_op_is_timed_on_the_cpu() {
    assert!(rows(&Cpu, &[], u64::MAX).iter().all(|row| matches!(row.outcome, Outcome::Timed(_))));
}

#[test]
fn names_are_unique_and_the_same_whatever_is_chosen() {
    let names = bench::names(&[]);
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
    assert_eq!(bench::names(&["linear fwd".into()]), ["linear fwd qkv", "linear fwd o", "linear fwd gate_up", "linear fwd down"]);
}

/// A device one of whose kernels does something else.
#[derive(Debug)]
struct Lazy(Emu, &'static str, Instead);

type Instead = fn() -> Result<()>;

impl Memory for Lazy {
    fn alloc(&self, bytes: usize, purpose: Purpose) -> Result<u64> {
        self.0.alloc(bytes, purpose)
    }
    unsafe fn free(&self, address: u64, bytes: usize, purpose: Purpose) {
        // SAFETY: the caller\'s promise, passed on.
        unsafe { self.0.free(address, bytes, purpose) }
    }
    unsafe fn upload(&self, address: u64, bytes: &[u8]) -> Result<()> {
        // SAFETY: the caller\'s promise, passed on.
        unsafe { self.0.upload(address, bytes) }
    }
    unsafe fn download(&self, address: u64, bytes: &mut [u8]) -> Result<()> {
        // SAFETY: the caller\'s promise, passed on.
        unsafe { self.0.download(address, bytes) }
    }
    unsafe fn zero(&self, address: u64, bytes: usize) -> Result<()> {
        // SAFETY: the caller\'s promise, passed on.
        unsafe { self.0.zero(address, bytes) }
    }
    unsafe fn copy(&self, to: u64, from: u64, bytes: usize) -> Result<()> {
        // SAFETY: the caller\'s promise, passed on.
        unsafe { self.0.copy(to, from, bytes) }
    }
}

impl Launcher for Lazy {
    unsafe fn launch(&self, kernel: &'static Kernel, grid: [u32; 3], args: &mut [*mut c_void]) -> Result<()> {
        if kernel.name == self.1 {
            return (self.2)();
        }
        // SAFETY: the caller's promise, passed on.
        unsafe { self.0.launch(kernel, grid, args) }
    }
}

#[test]
fn a_wrong_op_is_not_timed_and_the_others_are() {
    let device = Device::new(Lazy(Emu::new(EmuMode::Eager), "swiglu_fwd", || Ok(())), u64::MAX);
    let rows = rows(&device, &["swiglu"], u64::MAX);
    let [.., forward, backward] = rows.as_slice() else { panic!("{rows:?}") };
    // Memory that nobody wrote is NaN on the emulation.
    assert!(matches!(forward.outcome, Outcome::Wrong { output: 0, error: f64::INFINITY, .. }), "{forward}");
    assert!(forward.to_string().contains("WRONG") && forward.rate().is_none());
    assert!(matches!(backward.outcome, Outcome::Timed(_)), "{backward}");
    let error = bench::verdict(&rows).unwrap_err();
    assert_eq!(error.explain().exit_code(), 5);
    assert!(error.explain().facts[0].contains("swiglu fwd"), "{error:?}");
}

#[test]
fn a_device_that_stops_ends_the_table_and_a_refusal_says_nothing_against_it() {
    let stops = || Err(Fault::Launch { kernel: "swiglu_fwd", grid: [1, 1, 1], reason: "CUDA_ERROR_TEST (words)".into() }.into());
    let unfit = || Err(Fault::Unfit { kernel: "swiglu_fwd", reason: "swiglu.cu is not compiled for sm_00".into() }.into());
    let cases: [(Instead, _, _, _); 2] = [
        (
            stops,
            "error[E504]: 1 of 3 ",
            "FAILED: the GPU kernel swiglu_fwd failed on a grid of 1×1×1; driver: CUDA_ERROR_TEST (words)",
            "measure the other ops with --only",
        ),
        (
            unfit,
            "error[E503]: 1 of 4 ",
            "refused: the GPU kernel swiglu_fwd does not run on this GPU; swiglu.cu is not compiled for sm_00",
            "choose others with --shapes",
        ),
    ];
    for (launch, head, row, help) in cases {
        let device = Device::new(Lazy(Emu::new(EmuMode::Eager), "swiglu_fwd", launch), u64::MAX);
        let error = bench::verdict(&rows(&device, &["swiglu"], u64::MAX)).unwrap_err();
        let text = Shown(&error).to_string();
        assert!(text.starts_with(head) && text.contains(row) && text.contains(help), "{text}");
    }
}

#[test]
fn limits_have_the_first_models_sizes_and_nothing_else_is_one() {
    let shapes = vec![Shapes::Llama8b, Shapes::Llama1b];
    // Nothing has room, so nothing of these sizes is made.
    let plan = Plan { only: vec!["add".into()], shapes, tokens: vec![48], seconds: 0.0, limit: 0, json: None };
    let rows = bench::run(&Cpu, "test", &plan, &mut |_| Ok(())).unwrap();
    assert_eq!(rows[..2].iter().map(|row| row.shapes).collect::<Vec<_>>(), [Shapes::Llama8b; 2]);
    // Room for an op, but not for the copy: the op before it is no limit.
    let rows = self::rows(&Cpu, &["add"], 3 << 20);
    assert!(rows.len() > 3 && rows[0].rate().is_none(), "{rows:?}");
    assert!(rows[2..].iter().all(|row| row.rate().is_some() && row.share.is_none()), "{rows:?}");
}

#[test]
fn what_has_no_room_is_skipped_with_both_sizes() {
    let rows = rows(&Cpu, &["add", "adamw"], 3 << 20);
    let outcome = |op: &str| &rows.iter().find(|row| row.op == op).unwrap().outcome;
    assert!(matches!(outcome("add"), Outcome::Timed(_)));
    // Two layers and the embedding: 1.5 million parameters of 18 bytes on a device, at most twice that here.
    assert!(
        matches!(outcome("adamw full"), Outcome::TooLarge { needs: 20_000_000.., free: 3_145_728 }),
        "{:?}",
        outcome("adamw full")
    );
    assert!(bench::verdict(&rows).is_ok());
}

fn ltrain(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ltrain")).args(args).env("NO_COLOR", "1").output().unwrap()
}

#[test]
fn the_command_prints_a_table_appends_json_and_joins_with_peers() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let ours = at("ours.jsonl");
    let output =
        ltrain(&["bench", "--gpus", "0", "--only", "rms_norm", "--tokens", "64,96", "--seconds", "0.01", "--json", &ours]);
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{table}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(table.contains("device cpu") && table.contains("rms_norm bwd trained") && table.contains("GB/s"), "{table}");
    let text = std::fs::read_to_string(&ours).unwrap();
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 1 + 2 + 3 * 2, "{text}");
    let fwd = lines.iter().find(|l| l["op"] == "rms_norm fwd" && l["tokens"] == 96).unwrap();
    // Two tensors of 96 rows of 256 floats.
    assert_eq!(fwd["bytes"].as_f64(), Some(2.0 * 96.0 * 256.0 * 4.0));
    assert!(fwd["median_s"].as_f64() <= fwd["p90_s"].as_f64() && fwd["share"].is_number() && fwd["model"] == "tiny");

    let time = fwd["median_s"].as_f64().unwrap();
    let peer = |name: &str, factor: f64| {
        let row = serde_json::json!({
            "who": "torch", "peer": name, "op": "rms_norm fwd", "model": "tiny", "tokens": 96, "bytes": 1.0,
            "median_s": time * factor,
        });
        format!("{row}\n")
    };
    let unknown = r#"{"who": "torch", "peer": "x", "op": "rms_norm sideways", "model": "tiny", "tokens": 96, "median_s": 1}"#;
    std::fs::write(at("theirs.jsonl"), peer("slow", 3.0) + &peer("fast", 2.0) + unknown).unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/compare_peers.py");
    let output = match Command::new("python3").args([script, &ours, &at("theirs.jsonl")]).output() {
        Err(missing) if missing.kind() == std::io::ErrorKind::NotFound => {
            return eprintln!("compare_peers.py: skipped (no python3)");
        }
        output => output.unwrap(),
    };
    let joined = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let row = joined.lines().find(|line| line.contains("| rms_norm fwd |") && line.contains("96")).unwrap();
    assert!(row.contains("fast") && row.contains("2.00"), "{joined}");
    assert!(joined.contains("geometric mean 2.00") && joined.contains("rms_norm sideways"), "{joined}");

    std::fs::write(at("theirs.jsonl"), unknown).unwrap();
    let output = Command::new("python3").args([script, &ours, &at("theirs.jsonl")]).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && told.contains("no row is timed on both sides"), "{told}");
}

#[test]
fn an_unknown_op_is_refused_with_those_that_are_known() {
    let output = ltrain(&["bench", "--gpus", "0", "--only", "rms_norm,softmax"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(text.contains("softmax") && text.contains("attention fwd full"), "{text}");
}
