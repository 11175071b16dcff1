//! Hostile headers and configurations: a typed error or a model, never a panic, never memory that the file does not hold.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::panic::catch_unwind;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use ltrain::error::Shown;
use ltrain::io::hf_config::{check_roundtrip, extended_config, parse_config};
use ltrain::io::safetensors::SafetensorsFile;
use ltrain::model::llama::expected_tensors;
use ltrain::rng::{Rng, Stream};
use serde_json::{Value, json};

const ROUNDS: u64 = 10_000;
/// No input here is larger than a few KiB.
const MEMORY_LIMIT: usize = 4 << 20;

/// Counts what is allocated, so that a lying length cannot hide.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on to the system allocator unchanged; counting has no effect on memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(live, Relaxed);
        // SAFETY: the caller keeps GlobalAlloc's contract for `layout`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: `ptr` came from `alloc` above with this layout.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// One at a time, so that the peak belongs to one input.
static TURN: Mutex<()> = Mutex::new(());

/// Runs `read` on every mutation of `seeds`.
fn throw(seeds: &[Vec<u8>], stream: u64, read: impl Fn(&[u8]) -> bool + std::panic::RefUnwindSafe) -> [u64; 2] {
    let _turn = TURN.lock().unwrap();
    let mut verdicts = [0, 0];
    for round in 0..ROUNDS {
        let mut rng = Rng::at(stream, Stream::Positions, round);
        let mut input = seeds[rng.below(seeds.len() as u64) as usize].clone();
        for _ in 0..rng.between(1, 4) {
            mutate(&mut input, &mut rng);
        }
        let before = LIVE.load(Relaxed);
        PEAK.store(before, Relaxed);
        let outcome = catch_unwind(|| read(&input));
        let used = PEAK.load(Relaxed) - before;
        let shown = || String::from_utf8_lossy(&input).into_owned();
        match outcome {
            Ok(accepted) => verdicts[usize::from(accepted)] += 1,
            Err(_) => panic!("round {round} panicked on {}", shown()),
        }
        assert!(used < MEMORY_LIMIT, "round {round} used {used} bytes on {}", shown());
    }
    verdicts
}

fn mutate(input: &mut Vec<u8>, rng: &mut Rng) {
    if input.is_empty() {
        return;
    }
    let at = rng.below(input.len() as u64) as usize;
    match rng.below(8) {
        0 => input[at] ^= 1 << rng.below(8),
        1 => input[at] = rng.bits() as u8,
        2 => input.truncate(at),
        3 => drop(input.splice(at..at, b"9".repeat(rng.between(1, 20)))),
        4 => drop(input.remove(at)),
        5 => {
            let end = (at + rng.between(1, 64)).min(input.len());
            let copied = input[at..end].to_vec();
            drop(input.splice(at..at, copied));
        }
        _ => replace_number(input, at, rng),
    }
}

/// Swaps the first number after `at` for a worse one.
fn replace_number(input: &mut Vec<u8>, at: usize, rng: &mut Rng) {
    const WORSE: [&str; 16] = [
        "0",
        "-1",
        "1",
        "2",
        "3",
        "7",
        "64",
        "1e308",
        "1e-320",
        "0.5",
        "null",
        "4294967296",
        "18446744073709551615",
        "18446744073709551616",
        "[]",
        "{\"a\":[1]}",
    ];
    let is_digit = |b: &u8| b.is_ascii_digit();
    let Some(start) = input[at..].iter().position(is_digit).map(|n| at + n) else {
        return;
    };
    let length = input[start..].iter().take_while(|b| is_digit(b)).count();
    let worse = WORSE[rng.below(WORSE.len() as u64) as usize];
    drop(input.splice(start..start + length, worse.bytes()));
}

fn weights_file() -> Vec<u8> {
    let mut header = json!({"__metadata__": {"format": "pt"}});
    let mut start = 0;
    for (i, (dtype, shape, bytes)) in [
        ("F32", json!([3, 5]), 60),
        ("BF16", json!([7]), 14),
        ("F16", json!([2, 1, 4]), 16),
        ("I64", json!([]), 8),
        ("F32", json!([0, 9]), 0),
    ]
    .into_iter()
    .enumerate()
    {
        header[format!("layers.{i}.weight")] = json!({"dtype": dtype, "shape": shape, "data_offsets": [start, start + bytes]});
        start += bytes;
    }
    let header = header.to_string();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.resize(file.len() + start, 0);
    file
}

/// Opens and reads everything; true when all of it was readable.
fn read_weights(bytes: &[u8]) -> bool {
    match SafetensorsFile::from_bytes("w.safetensors".into(), bytes.to_vec()) {
        Err(error) => {
            assert!(!Shown(&error).to_string().is_empty());
            false
        }
        Ok(file) => file.views().filter(|view| view.as_ref().is_ok_and(|v| v.to_f32().is_ok())).count() > 0,
    }
}

#[test]
fn mutated_weights_files_never_panic_and_never_take_memory_they_do_not_hold() {
    let file = weights_file();
    assert!(read_weights(&file));
    // Mutations that keep the header's length true reach further than those that do not.
    let [refused, accepted] = throw(std::slice::from_ref(&file), 1, read_weights);
    let header = file[8..].to_vec();
    let [refused_inside, accepted_inside] = throw(&[header], 2, |body| {
        let end = body.iter().rposition(|&b| b == b'}').map_or(0, |n| n + 1);
        let mut file = (end as u64).to_le_bytes().to_vec();
        file.extend(body);
        read_weights(&file)
    });
    let verdicts = [refused, accepted, refused_inside, accepted_inside];
    assert!(verdicts.iter().all(|&n| n > 100), "{verdicts:?}: one kind of outcome was hardly tried");
}

#[test]
fn mutated_configurations_never_panic_and_what_is_accepted_round_trips() {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models");
    let seeds: Vec<Vec<u8>> = ["llama", "llama_yarn", "llama_llama3", "mistral", "qwen2", "qwen3"]
        .iter()
        .map(|name| std::fs::read(models.join(name).join("config.json")).unwrap())
        .collect();
    let verdicts = throw(&seeds, 3, |bytes| {
        let Ok(raw) = serde_json::from_slice::<Value>(bytes) else {
            return false;
        };
        match parse_config(Path::new("config.json"), &raw) {
            Err(error) => {
                assert!(!Shown(&error).to_string().is_empty());
                false
            }
            Ok(config) => {
                check_roundtrip(&extended_config(&raw, &config), &config).unwrap();
                let elements: u64 = expected_tensors(&config).iter().map(|(_, s)| s.iter().product::<usize>() as u64).sum();
                assert_eq!(elements, config.parameters());
                true
            }
        }
    });
    assert!(verdicts.iter().all(|&n| n > 500), "{verdicts:?}: one kind of outcome was hardly tried");
}
