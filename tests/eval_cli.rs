//! `ltrain eval` through the binary: tables, files, refusals.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// `ltrain eval` with these words in a folder, on the CPU.
fn eval(dir: &Path, words: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ltrain"));
    command.arg("eval").args(words.split_whitespace()).current_dir(dir);
    command.env("NO_COLOR", "1").env("CUDA_VISIBLE_DEVICES", "").output().unwrap()
}

fn stdout(output: &Output) -> String {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

fn json(path: PathBuf) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// A line of standard error that tells what was refused.
fn refused(dir: &Path, words: &str) -> String {
    let output = eval(dir, words);
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert!(!output.status.success() && !text.contains("panicked"), "{words}: {text}");
    text
}

/// Copies some files of the built-in model, whose folder is returned.
fn copy_of_tiny(to: &Path, files: &[&str]) -> PathBuf {
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/tiny");
    for file in files {
        std::fs::copy(tiny.join(file), to.join(file)).unwrap();
    }
    tiny
}

/// A small real model, if it is here.
fn stories() -> Option<String> {
    let shared = std::env::var_os("LTRAIN_SHARED")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from);
    let model = shared.join("models/stories260k");
    let found = model.join("config.json").exists();
    if !found {
        println!("skipped: ../shared is not here");
    }
    found.then(|| model.display().to_string())
}

#[test]
fn needles_of_the_built_in_language_are_a_matrix_of_lengths_and_rotations() {
    let dir = tempfile::tempdir().unwrap();
    let words = "builtin:tiny --tasks niah --at 128,256,300 --rope keep,yarn --samples 4 --distractors 2 --depths 0,100% --seed 7 \
                 --json out.json --csv tables";
    let text = stdout(&eval(dir.path(), words));
    assert!(!text.contains("perplexity"), "what was not asked for is not shown:\n{text}");
    assert!(text.contains("niah: 4 prompts at each of 2 depths per length") && text.contains("seed 7"), "{text}");
    assert!(text.lines().any(|line| line.starts_with("depth 100 %")), "{text}");
    let records = json(dir.path().join("out.json"));
    assert_eq!(records.as_array().unwrap().len(), 2, "a row per rotation");
    let grid = &records[0]["niah"];
    assert_eq!((grid["lengths"].as_array().unwrap().len(), grid["samples"].as_u64()), (3, Some(4)));
    assert_eq!((grid["depths"][1].as_f64(), records[1]["seed"].as_u64()), (Some(1.0), Some(7)));
    let found = grid["accuracy"].as_array().unwrap().iter().map(|row| row[0].as_f64().unwrap()).sum::<f64>();
    assert!(found > 1.0, "the built-in model finds keys within its context: {grid}");
    let table = std::fs::read_to_string(dir.path().join("tables/niah.csv")).unwrap();
    assert_eq!(table.lines().count(), 1 + 2 * 2 * 3, "{table}");
    assert!(!dir.path().join("tables/ruler.csv").exists());
}

#[test]
fn what_no_task_reads_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let here = |words: &str| refused(dir.path(), &format!("builtin:tiny --at 128 {words}"));
    let both = here("--tasks passkey --squad x.json --distractors 2");
    assert!(both.contains("squad: none of the tasks reads it") && both.contains("distractors"), "{both}");
    assert!(here("--tasks longbench").contains("add --longbench"));
    assert!(here("--tasks ruler").contains("E226"));
    assert!(here("--tasks niah --distractors 64").contains("E213"), "the language has 64 keys");
    assert!(here("--tasks nihah").contains("niah_single_1"), "the tasks are listed");
    assert!(here("--tasks niah --depths 120%").contains("0% to 100%"));
    assert!(here("--tasks longbench --longbench absent.jsonl").contains("E226"));
    let text = here("--tasks niah --data x.txt --stride 8 --windows 3 --columns text=body --passkey-samples 10");
    for key in ["data", "stride", "windows", "columns", "passkey_samples"] {
        assert!(text.contains(&format!("{key}: none of the tasks reads it")), "{key} is missing in {text}");
    }
    assert!(here("--tasks vt,cwe,fwe,qa_1,niah_single_1 --haystack x.txt").contains("haystack: none of the tasks"));
    assert!(here("--tasks niah --haystack x.txt").contains("stand in texts of its own"));
}

#[test]
fn models_with_other_tokenizers_are_not_compared() {
    let dir = tempfile::tempdir().unwrap();
    let tiny = copy_of_tiny(dir.path(), &["config.json", "model.safetensors", "tokenizer_config.json"]);
    let words = "builtin:tiny --at 64 --tasks ppl --windows 1";
    let compared = format!("{words} --against {}", dir.path().display());
    stdout(&eval(dir.path(), &compared));
    let changed = std::fs::read_to_string(tiny.join("tokenizer.json")).unwrap() + "\n";
    std::fs::write(dir.path().join("tokenizer.json"), changed).unwrap();
    let error = refused(dir.path(), &compared);
    assert!(error.contains("has another tokenizer than builtin:tiny") && error.contains("--tokenizer DIR"), "{error}");
    stdout(&eval(dir.path(), &format!("{compared} --tokenizer {}", tiny.display())));
}

#[test]
fn finished_records_outlive_a_later_error() {
    let dir = tempfile::tempdir().unwrap();
    let tiny = copy_of_tiny(dir.path(), &["config.json", "tokenizer.json", "tokenizer_config.json"]);
    // A weight that is no number fails in the compared model, which is loaded last.
    let mut weights = std::fs::read(tiny.join("model.safetensors")).unwrap();
    let end = weights.len();
    weights[end - 4..].copy_from_slice(&[0xff; 4]);
    std::fs::write(dir.path().join("model.safetensors"), weights).unwrap();
    let words = format!(
        "builtin:tiny --at 512 --tasks ppl --windows 1 --rope keep,yarn --against {} --json out.json",
        dir.path().display()
    );
    let output = eval(dir.path(), &words);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && text.contains("E603"), "{text}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("perplexity"), "the table is shown");
    assert_eq!(json(dir.path().join("out.json")).as_array().unwrap().len(), 2, "both rotations were finished");
}

#[test]
fn rulers_tasks_run_on_a_real_model() {
    let Some(model) = stories() else { return };
    let dir = tempfile::tempdir().unwrap();
    let text = stdout(&eval(dir.path(), &format!("{model} --tasks niah_single_1,fwe,vt --at 700 --samples 2 --json out.json")));
    for part in ["RULER", "average", "fwe", "RULER: 2 samples per task and length", "averages over 2 of 13 tasks", "seed 42"] {
        assert!(text.contains(part), "{part:?} is missing in:\n{text}");
    }
    let scores = json(dir.path().join("out.json"))[0]["ruler"].clone();
    let names: Vec<_> = scores.as_array().unwrap().iter().map(|s| s["task"].as_str().unwrap()).collect();
    assert_eq!(names, ["niah_single_1", "fwe"], "vt needs more than 700 tokens");
    assert!(scores[0]["tokens"].as_f64().unwrap() >= 699.0 && scores[0]["tokens"].as_f64().unwrap() <= 700.0, "{scores}");
    let output = eval(dir.path(), &format!("{model} --tasks niah,qa_1 --at 700"));
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        error.contains("E225") && error.contains("--squad") && !error.contains("evaluate "),
        "nothing is measured before: {error}"
    );
    assert!(!output.status.success() && output.stdout.is_empty());
    std::fs::write(dir.path().join("empty.txt"), " \n").unwrap();
    let essay = format!("{model} --tasks niah_single_2 --at 2k --haystack");
    assert!(refused(dir.path(), &format!("{essay} empty.txt")).contains("E607"));
    std::fs::write(dir.path().join("endless.txt"), "no end ".repeat(1000)).unwrap();
    assert!(refused(dir.path(), &format!("{essay} endless.txt")).contains("no line break"));
}

#[test]
fn longbench_files_run_on_a_real_model() {
    let Some(model) = stories() else { return };
    let dir = tempfile::tempdir().unwrap();
    let row = |dataset: &str| {
        let context = "Once upon a time there was a little cat. ".repeat(60);
        let row = serde_json::json!({"input": "Who?", "context": context, "answers": ["little cat was a time"], "length": 1,
            "dataset": dataset, "language": "en", "all_classes": null});
        row.to_string() + "\n"
    };
    std::fs::create_dir(dir.path().join("sets")).unwrap();
    std::fs::write(dir.path().join("sets/a.jsonl"), row("multifieldqa_en") + &row("multifieldqa_en")).unwrap();
    std::fs::write(dir.path().join("sets/b.jsonl"), row("ours")).unwrap();
    let words = format!("{model} --tasks longbench --longbench sets --at 256 --metric rouge-l --json out.json --csv tables");
    let output = eval(dir.path(), &words);
    let text = stdout(&output);
    for part in ["multifieldqa_en", "mean: single-doc QA", "average of means", "LongBench: 1 to 2 rows per dataset"] {
        assert!(text.contains(part), "{part:?} is missing in:\n{text}");
    }
    assert!(String::from_utf8_lossy(&output.stderr).contains("ours is none of LongBench's datasets"));
    let scores = json(dir.path().join("out.json"))[0]["longbench"].clone();
    assert_eq!((scores[0]["samples"].as_u64(), scores[0]["tokens"].as_f64()), (Some(2), Some(256.0)), "cut to the length");
    assert_eq!(std::fs::read_to_string(dir.path().join("tables/longbench.csv")).unwrap().lines().count(), 3);
    let output = eval(dir.path(), &words.replace("--at 256", "--at 96,256"));
    assert!(String::from_utf8_lossy(&output.stderr).contains("skipped ours at 96: a question takes about 128 tokens"));
    assert!(stdout(&output).contains("average of means"));
    let known = words.replace("--longbench sets ", "--longbench sets/a.jsonl ");
    assert!(refused(dir.path(), &known).contains("metric: every dataset"));
    std::fs::write(dir.path().join("sets/c.jsonl"), row("dureader")).unwrap();
    let error = refused(dir.path(), &words);
    assert!(error.contains("E335") && error.contains("dureader"), "{error}");
}
