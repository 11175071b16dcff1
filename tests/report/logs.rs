//! Do other programs read the logs, and do they survive a crash?

use std::fs;

use ltrain::report::clock;
use ltrain::report::log::{StepLine, TrainerLog, TrainerState, Truncated};
use ltrain::report::record::{StepRecord, ValidationRecord};
use ltrain::report::tensorboard::EventWriter;

/// Events of a file as (step, tag, value); panics on a wrong checksum or a byte too many.
fn read_events(bytes: &[u8]) -> Vec<(u64, String, f32)> {
    let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let mut events = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let length = u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
        assert_eq!(u32_at(at + 8), masked(&bytes[at..at + 8]), "checksum of a length");
        let body = &bytes[at + 12..at + 12 + length];
        assert_eq!(u32_at(at + 12 + length), masked(body), "checksum of an event");
        at += 16 + length;
        let event = fields(body);
        assert_eq!(event[0].0, 1, "every event begins with its wall time");
        let step = event.iter().find(|f| f.0 == 2).map_or(0, |f| f.1);
        for (_, _, summary) in event.iter().filter(|f| f.0 == 5) {
            let value = fields(&fields(summary)[0].2);
            let number = f32::from_bits(value[1].1 as u32);
            events.push((step, String::from_utf8(value[0].2.clone()).unwrap(), number));
        }
        if events.is_empty() {
            assert!(event.iter().any(|f| f.2 == b"brain.Event:2" || f.0 == 7), "the file version comes first");
        }
    }
    events
}

/// A protobuf message as (field, number, bytes).
fn fields(mut bytes: &[u8]) -> Vec<(u64, u64, Vec<u8>)> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = bytes[0];
            *bytes = &bytes[1..];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return value;
            }
        }
        panic!("a varint too long");
    }
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let take = |bytes: &mut &[u8], n: usize| {
            let (head, tail) = bytes.split_at(n);
            *bytes = tail;
            head.to_vec()
        };
        let (number, content) = match key & 7 {
            0 => (varint(&mut bytes), Vec::new()),
            1 => (u64::from_le_bytes(take(&mut bytes, 8).try_into().unwrap()), Vec::new()),
            2 => {
                let n = varint(&mut bytes) as usize;
                (0, take(&mut bytes, n))
            }
            5 => (u64::from(u32::from_le_bytes(take(&mut bytes, 4).try_into().unwrap())), Vec::new()),
            wire => panic!("wire type {wire}"),
        };
        found.push((key >> 3, number, content));
    }
    found
}

/// CRC-32C bit by bit, masked as TFRecord asks.
fn masked(bytes: &[u8]) -> u32 {
    let crc = !bytes
        .iter()
        .fold(!0u32, |crc, &b| (0..8).fold(crc ^ u32::from(b), |c, _| if c & 1 == 1 { c >> 1 ^ 0x82f6_3b78 } else { c >> 1 }));
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

#[test]
fn event_files_read_back() {
    // Known answer of CRC-32C, so that reader and writer cannot agree on a wrong one.
    assert_eq!(masked(b"123456789"), 0xe306_9283_u32.rotate_right(15).wrapping_add(0xa282_ead8));
    let dir = tempfile::tempdir().unwrap();
    let mut first = EventWriter::create(dir.path()).unwrap();
    first.scalar("train/loss", 1, 2.5).unwrap();
    first.scalar("eval/passkey@131072", 300, 0.75).unwrap();
    first.scalar("train/loss", u64::from(u32::MAX), f64::NAN).unwrap();
    let mut second = EventWriter::resume(dir.path(), 300).unwrap();
    second.scalar("train/loss", 301, 2.0).unwrap();
    assert_ne!(first.path(), second.path());
    let events = read_events(&fs::read(first.path()).unwrap());
    assert_eq!(events[..2], [(1, "train/loss".into(), 2.5), (300, "eval/passkey@131072".into(), 0.75)]);
    assert!(events[2].0 == u64::from(u32::MAX) && events[2].2.is_nan());
    assert_eq!(read_events(&fs::read(second.path()).unwrap()), [(301, "train/loss".into(), 2.0)]);
}

#[test]
fn log_lines_have_llama_factorys_keys() {
    let step = StepRecord { step: 10, loss: 2.013, lr: 2e-5, grad_norm: f64::NAN, seconds: 102.0, ..StepRecord::default() };
    let line = serde_json::to_value(StepLine::new(&step, 200, 1, 1_795_255_447.0)).unwrap();
    let keys: Vec<_> = line.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(
        keys.join(" "),
        "current_steps total_steps loss lr grad_norm epoch percentage elapsed_time remaining_time throughput total_tokens \
         vram_peak_gib skipped_steps time"
    );
    assert_eq!(line["percentage"], 5.0);
    assert_eq!(line["elapsed_time"], "0:01:42");
    assert_eq!(line["remaining_time"], "0:32:18");
    assert!(line["grad_norm"].is_null());
    assert_eq!(line["time"], "2026-11-21T10:04:07Z");
}

#[test]
fn resuming_drops_what_will_happen_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("trainer_log.jsonl");
    let write = |log: &mut TrainerLog, step: u64| {
        let record = StepRecord { step, loss: step as f64, ..StepRecord::default() };
        log.step(&StepLine::new(&record, 20, 0, clock::now())).unwrap();
    };
    let mut log = TrainerLog::create(&path).unwrap();
    (1..=12).for_each(|s| write(&mut log, s));
    log.validation(&ValidationRecord { step: 10, loss: 1.5, retrieval: None }, 20, 0.0).unwrap();
    drop(log);
    // The process died in the middle of a line.
    fs::write(&path, fs::read_to_string(&path).unwrap() + "{\"current_steps\":3,\"to").unwrap();
    let (mut log, truncated) = TrainerLog::resume(&path, 10).unwrap();
    assert_eq!(truncated, Truncated { kept: 11, dropped: 3 });
    write(&mut log, 11);
    let steps: Vec<u64> = fs::read_to_string(&path)
        .unwrap()
        .lines()
        .map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap()["current_steps"].as_u64().unwrap())
        .collect();
    assert_eq!(steps, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 10, 11]);
    let missing = dir.path().join("new.jsonl");
    assert_eq!(TrainerLog::resume(&missing, 5).unwrap().1, Truncated::default());
}

#[test]
fn trainer_state_reads_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("trainer_state.json");
    let mut state = TrainerState { max_steps: 20, ..TrainerState::default() };
    state.push_step(&StepRecord { step: 5, loss: 2.0, epoch: 0.25, total_tokens: 100, ..StepRecord::default() });
    assert!(state.push_validation(&ValidationRecord { step: 5, loss: 1.9, retrieval: None }));
    assert!(!state.push_validation(&ValidationRecord { step: 6, loss: f64::NAN, retrieval: None }));
    state.save(&path).unwrap();
    let back = TrainerState::load(&path).unwrap();
    assert_eq!((back.global_step, back.best_metric, back.log_history.len()), (5, Some(1.9), 3));
    assert_eq!(back.log_history[0]["learning_rate"], 0.0);
}
