//! The binary: help, usage errors, exit codes, and what it prints.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use ltrain::config::{defaults, file};
use ltrain::data::synthetic::{Stage, vocabulary};

fn ltrain(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ltrain"));
    // On the CPU, also where a GPU is.
    command.args(args).current_dir(dir).env("NO_COLOR", "1").env("COLUMNS", "400").env("CUDA_VISIBLE_DEVICES", "");
    command.output().unwrap()
}

fn here(args: &[&str]) -> Output {
    ltrain(tempfile::tempdir().unwrap().path(), args)
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn help_shows_every_option_with_its_default() {
    let help = here(&["--help"]);
    assert!(help.status.success());
    let help: String = stdout(&help).split_whitespace().collect::<Vec<_>>().join(" ");
    for key in file::keys() {
        let flag = format!("--{}", key.replace('_', "-"));
        let after = help.split(&format!("{flag} <")).nth(1);
        match (after, defaults::shown(&key)) {
            (Some(text), Some(default)) => {
                let own = text.split("[default: ").nth(1).unwrap_or_default();
                assert!(own.starts_with(&format!("{default}]")), "{flag}: expected {default:?}, got {own:.60}");
            }
            (None, None) => assert!(help.contains(&flag), "{flag} is a switch"),
            (after, shown) => panic!("{flag}: takes a value {}, has a default {shown:?}", after.is_some()),
        }
    }
    assert!(help.contains("Examples:") && help.contains("Exit codes:"));
    assert!(stdout(&here(&["-h"])).contains("[default: 42]"));
}

#[test]
fn an_unknown_option_names_the_one_that_was_meant() {
    for (typed, meant) in [("--targt", "'--target'"), ("--learning-rate", "'--lr'"), ("--lora-r", "'--rank'")] {
        let output = here(&[typed, "3"]);
        assert_eq!(output.status.code(), Some(2), "{typed}");
        assert!(stderr(&output).contains(meant), "{typed}: {}", stderr(&output));
    }
    assert_eq!(here(&["--target", "12x"]).status.code(), Some(2));
    assert_eq!(here(&["--set", "target"]).status.code(), Some(2));
    assert_eq!(here(&["evaluate"]).status.code(), Some(2));
}

#[test]
fn every_command_refuses_numbers_that_make_no_sense() {
    let generate = "generate builtin:tiny -p x";
    let eval = "eval builtin:tiny";
    for (command, option) in [
        (generate, "--threads 0"),
        (generate, "--threads 200000"),
        (eval, "--threads 0"),
        (eval, "--threads 200000"),
        (eval, "--windows 0"),
        (eval, "--passkey-samples 0"),
        (eval, "--passkey-samples 18446744073709551615"),
        (eval, "--tasks none"),
        (eval, "--at none"),
        (eval, "--rope none"),
    ] {
        let args: Vec<_> = command.split(' ').chain(option.split(' ')).collect();
        let output = here(&args);
        assert_eq!(output.status.code(), Some(2), "{command} {option}: {}", stderr(&output));
        assert!(stderr(&output).contains("expected "), "{command} {option}: {}", stderr(&output));
    }
}

#[test]
fn an_explicit_gpu_never_falls_back_to_the_cpu() {
    let output = here(&["--gpus", "1"]);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(5), "{text}");
    assert!(text.starts_with("error[E501]: ") && text.contains("\n  help: "), "{text}");
    let output = here(&["--gpus", "2"]);
    assert_eq!(output.status.code(), Some(5));
    assert!(stderr(&output).contains("this version trains on one device"), "{}", stderr(&output));
}

#[test]
fn a_dumped_configuration_checks_and_dumps_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let first = ltrain(dir.path(), &["config", "dump", "--target", "4k", "--train", "lora", "--set", "rank=8"]);
    assert!(first.status.success(), "{}", stderr(&first));
    std::fs::write(dir.path().join("run.toml"), &first.stdout).unwrap();
    let check = ltrain(dir.path(), &["config", "check", "--config", "run.toml"]);
    assert!(check.status.success() && check.stdout.is_empty() && check.stderr.is_empty(), "{}", stderr(&check));
    let again = ltrain(dir.path(), &["config", "dump", "--config", "run.toml"]);
    assert_eq!(stdout(&again), stdout(&first));
    assert!(stdout(&first).contains("target = \"4k\"\n") && stdout(&first).contains("rank = 8\n"));
}

#[test]
fn an_unknown_key_is_reported_with_its_line_and_a_suggestion() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("run.toml"), "seed = 1\nouput_dir = \"x\"\nwarmup_ratio = 0.1\n").unwrap();
    let output = ltrain(dir.path(), &["--config", "run.toml"]);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(3));
    for part in ["error[E307]", "ouput_dir: unknown key (run.toml:2)", "warmup_ratio: did you mean warmup?"] {
        assert!(text.contains(part), "{part:?} is missing in:\n{text}");
    }
    std::fs::write(dir.path().join("run.toml"), "seed = 1\nout = runs/x\n").unwrap();
    let text = stderr(&ltrain(dir.path(), &["--config", "run.toml"]));
    assert!(text.starts_with("error[E310]") && text.contains("run.toml:2"), "{text}");
    assert_eq!(ltrain(dir.path(), &["--config", "absent.toml"]).status.code(), Some(3));
}

#[test]
fn all_problems_come_in_one_message() {
    let output = here(&["config", "check", "--steps", "0", "--lr", "-1", "--target", "100", "--keep", "0"]);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(3));
    for part in ["4 settings cannot be used", "steps: expected", "lr: expected", "keep: expected", "--target 100 is not longer"] {
        assert!(text.contains(part), "{part:?} is missing in:\n{text}");
    }
}

#[test]
fn completions_are_there_for_the_common_shells() {
    for shell in ["bash", "zsh", "fish"] {
        let script = here(&["completions", shell]);
        assert!(script.status.success() && stdout(&script).contains("seq-len"), "{shell}");
    }
}

#[test]
fn doctor_says_what_it_found() {
    let table = stdout(&here(&["doctor"]));
    for row in ["ltrain", "cpu", "memory", "disk", "device", "kernels", "models"] {
        assert!(table.lines().any(|line| line.starts_with(row)), "{row} is missing in:\n{table}");
    }
    let json: serde_json::Value = serde_json::from_slice(&here(&["doctor", "--json"]).stdout).unwrap();
    assert!(json["cpu"]["threads"].as_u64().unwrap() >= 1 && json["gpu_unused"].is_string());
    assert!(stdout(&here(&["doctor", "--architectures"])).contains("Qwen3ForCausalLM"));
}

/// `ltrain eval builtin:tiny` with these words; its records.
fn measured(dir: &Path, words: &str) -> serde_json::Value {
    let mut args = vec!["eval", "builtin:tiny", "--tasks", "ppl", "--json", "out.json"];
    args.extend(words.split_whitespace());
    let output = ltrain(dir, &args);
    assert!(output.status.success(), "{words}: {}", stderr(&output));
    serde_json::from_slice(&std::fs::read(dir.join("out.json")).unwrap()).unwrap()
}

#[test]
fn rows_of_a_jsonl_file_are_texts_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let stage: Stage = "synthetic:facts-64".parse().unwrap();
    // The tokenizer writes the first token itself.
    let texts = [0, 1].map(|i| vocabulary::text(&stage.document(1, i).unwrap().tokens[1..]));
    let rows = texts.clone().map(|text| serde_json::json!({"text": "x", "body": text}).to_string());
    std::fs::write(dir.path().join("rows.jsonl"), rows.join("\n")).unwrap();
    let loss = |words: &str| {
        let score = &measured(dir.path(), words)[0]["perplexity"][0];
        (score["nll"].as_f64().unwrap(), score["windows"].as_u64().unwrap())
    };
    let alone = texts.map(|text| {
        std::fs::write(dir.path().join("one.txt"), text).unwrap();
        loss("--data one.txt --at 64")
    });
    let (both, windows) = loss("--data rows.jsonl --columns text=body --at 64");
    assert_eq!((windows, alone[0].1, alone[1].1), (2, 1, 1));
    assert!((both - (alone[0].0 + alone[1].0) / 2.0).abs() < 1e-5, "{both}, apart {alone:?}");
    assert_eq!(loss("--data rows.jsonl --columns text=body --at 64 --windows 1"), alone[0]);
}

#[test]
fn short_context_is_the_compared_models() {
    let dir = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/tiny").join(file), dir.path().join(file)).unwrap();
    }
    let config = dir.path().join("config.json");
    let mut longer: serde_json::Value = serde_json::from_slice(&std::fs::read(&config).unwrap()).unwrap();
    longer["max_position_embeddings"] = 2048.into();
    longer["rope_scaling"] = serde_json::json!({"rope_type": "linear", "factor": 2.0});
    std::fs::write(&config, longer.to_string()).unwrap();
    let output = ltrain(dir.path(), &["eval", ".", "--against", "builtin:tiny", "--tasks", "ppl", "--json", "out.json"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let records: serde_json::Value = serde_json::from_slice(&std::fs::read(dir.path().join("out.json")).unwrap()).unwrap();
    let at = |record: usize| {
        let scores = records[record]["perplexity"].as_array().unwrap();
        let lengths: Vec<_> = scores.iter().map(|s| s["length"].as_u64().unwrap()).collect();
        assert_eq!(lengths, [256, 512, 1024, 2048], "the base's context is among the lengths");
        scores[0]["ppl"].as_f64().unwrap()
    };
    let change = ltrain::report::text::change(at(1) / at(0));
    assert!(stdout(&output).contains(&change), "{change} is missing in:\n{}", stdout(&output));
}

#[test]
fn a_closed_pipe_ends_quietly() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_ltrain"))
        .args(["completions", "zsh"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", stderr(&output));
}

#[test]
fn plan_counts_a_run_and_says_whether_it_fits() {
    let fits = here(&["plan", "--target", "2k", "--mem-limit", "1g"]);
    assert!(fits.status.success(), "{}", stderr(&fits));
    let table = stdout(&fits);
    for expected in ["weights (bf16)", "forward and backward", "evaluation at 2k", "peak ", "fits into 1.0 GiB"] {
        assert!(table.contains(expected), "{expected:?} is not in\n{table}");
    }
    let narrow = here(&["plan", "--target", "2k", "--mem-limit", "60m"]);
    assert_eq!(narrow.status.code(), Some(4));
    let said = stderr(&narrow);
    assert!(said.starts_with("error[E401]: this run needs ") && said.contains("60.0 MiB are there"), "{said}");
    assert!(said.contains("what would fit:\n") && said.contains("--micro-batch 1 --accum"), "{said}");
}
