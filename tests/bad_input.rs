//! Whatever is wrong with what a run is given, it says so with a code and the way out, and leaves nothing half-written.

mod common;

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Output};

use common::fixtures;
use common::runs::{FULL, LORA, Runs, entries, leftovers, stderr, tree};
use ltrain::io::ModelDir;
use serde_json::{Value, json};

/// A folder with a good model of 512 tokens in `model`, a tokenizer for it, and good text in `text.txt`.
fn good() -> Runs {
    let runs = Runs::new();
    copy(&fixtures().join("models/llama"), &runs.at("model"));
    write_tokenizer(&runs.at("model"), 128);
    fs::write(runs.at("text.txt"), text(4000)).unwrap();
    runs
}

const GOOD: &str =
    "--model model --data text.txt --target 1k --seq-len 32 --steps 3 --micro-batch 1 --accum 1 --eval none --val none --out out";

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for name in entries(from) {
        fs::copy(from.join(&name), to.join(&name)).unwrap();
    }
}

/// Words `w3` to `w127`, and three special tokens.
fn write_tokenizer(dir: &Path, vocab: usize) {
    let mut words: Vec<String> = ["[UNK]", "[BOS]", "[EOS]"].map(str::to_owned).to_vec();
    words.extend((3..vocab).map(|i| format!("w{i}")));
    let ids: serde_json::Map<_, _> = words.into_iter().enumerate().map(|(id, word)| (word, json!(id))).collect();
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": ids, "unk_token": "[UNK]"},
    });
    fs::write(dir.join("tokenizer.json"), tokenizer.to_string()).unwrap();
}

fn text(words: usize) -> String {
    let word = |i: usize| format!("w{}", 3 + (i * 7 + i / 5) % 125);
    (0..words).map(word).collect::<Vec<_>>().join(" ")
}

fn edit(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut value: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    change(&mut value);
    fs::write(path, value.to_string()).unwrap();
}

/// Code, exit status and shape of a refusal.
fn assert_refused(output: &Output, code: &str, case: &str) -> String {
    let text = stderr(output);
    let exit = i32::from(code.as_bytes()[1] - b'0');
    assert!(text.contains(&format!("error[{code}]: ")), "{case}: expected {code}, got\n{text}");
    assert_eq!(output.status.code(), Some(exit), "{case}: {text}");
    assert!(text.contains("\n  help: "), "{case}: no way out in\n{text}");
    let said = text.clone() + &String::from_utf8_lossy(&output.stdout);
    assert!(!said.contains("panicked") && !said.contains("RUST_BACKTRACE"), "{case}: {said}");
    text
}

/// The run is refused with `code`, and nobody can take what is left in its folder for a result.
fn refused(runs: &Runs, words: &str, code: &str) -> String {
    let text = assert_refused(&runs.run(words), code, words);
    let out = runs.at("out");
    assert_eq!(leftovers(&out), [] as [&Path; 0], "{words}");
    let allowed = [".lock", "run.json", "ltrain.toml", "command.txt"];
    let more: Vec<String> = entries(&out).into_iter().filter(|name| !allowed.contains(&name.as_str())).collect();
    assert_eq!(more, [] as [&str; 0], "{words}: left in the output folder");
    text
}

#[test]
fn the_good_case_is_good() {
    let runs = good();
    fs::create_dir(runs.at("words")).unwrap();
    fs::rename(runs.at("model/tokenizer.json"), runs.at("words/tokenizer.json")).unwrap();
    runs.succeed(&format!("{GOOD} --tokenizer words"));
    let tokenizer = |folder: &str| fs::read(runs.at(folder).join("tokenizer.json")).unwrap();
    assert_eq!(tokenizer("out/merged"), tokenizer("words"), "the tokenizer that was used goes with the model");
}

#[test]
fn damaged_weights_are_named() {
    type Damage = fn(&mut Vec<u8>);
    let damages: [(&str, &str, Damage); 7] = [
        ("cut in the tensors", "E601", |bytes| bytes.truncate(200_000)),
        ("cut in the header", "E601", |bytes| bytes.truncate(100)),
        ("empty", "E601", Vec::clear),
        ("bytes behind the end", "E601", |bytes| bytes.extend([0; 64])),
        ("flipped in the length", "E601", |bytes| bytes[5] ^= 1),
        ("flipped in the header", "E601", |bytes| bytes[8] ^= 1),
        ("a Git LFS pointer", "E601", |bytes| {
            *bytes = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 314712\n".to_vec();
        }),
    ];
    for (case, code, damage) in damages {
        let runs = good();
        let path = runs.at("model/model.safetensors");
        let mut bytes = fs::read(&path).unwrap();
        damage(&mut bytes);
        fs::write(&path, bytes).unwrap();
        let text = refused(&runs, GOOD, code);
        assert!(text.contains("model.safetensors\""), "{case}: {text}");
        assert_eq!(text.contains("git lfs pull"), case == "a Git LFS pointer", "{text}");
        assert!(!runs.at("out").exists(), "{case}");
    }
}

/// Every number of a model, as it is loaded.
fn numbers(model: &Path) -> ltrain::Result<Vec<f32>> {
    let mut numbers = Vec::new();
    for (_, tensor) in ModelDir::open(model)?.load()? {
        numbers.extend(tensor.as_f32()?);
    }
    Ok(numbers)
}

#[test]
fn every_flipped_bit_is_refused_or_changes_what_it_stands_for_alone() {
    let runs = good();
    let path = runs.at("model/model.safetensors");
    let whole = fs::read(&path).unwrap();
    let before = numbers(&runs.at("model")).unwrap();
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let flip = |at: usize, bit: u8| {
        let mut bytes = whole.clone();
        bytes[at] ^= bit;
        fs::write(&path, &bytes).unwrap();
    };
    for at in (0..header).step_by(header / 12) {
        flip(at, 4);
        let output = runs.run(&GOOD.replace("--out out", &format!("--out out-{at}")));
        match output.status.success() {
            // Names and metadata that nobody reads; no number is another one or in another place.
            true => assert_eq!(numbers(&runs.at("model")).unwrap(), before, "byte {at}"),
            false => {
                drop(assert_refused(&output, stderr(&output).split(['[', ']']).nth(1).unwrap_or_default(), &format!("byte {at}")))
            }
        }
    }
    for at in (header..whole.len()).step_by((whole.len() - header) / 97) {
        for bit in [1, 64] {
            flip(at, bit);
            let Ok(after) = numbers(&runs.at("model")) else { continue };
            let changed: Vec<u32> =
                before.iter().zip(&after).map(|(a, b)| a.to_bits() ^ b.to_bits()).filter(|bits| *bits != 0).collect();
            assert_eq!((changed, after.len()), (vec![u32::from(bit) << (8 * ((at - header) % 4))], before.len()), "byte {at}");
        }
    }
}

#[test]
fn weights_that_are_not_numbers_are_named() {
    let runs = good();
    let path = runs.at("model/model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&path, bytes).unwrap();
    assert!(refused(&runs, GOOD, "E603").contains("NaN"));
}

#[test]
fn renamed_tensors_are_named() {
    let runs = good();
    let path = runs.at("model/model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let (old, new) = (b"model.norm.weight", b"model.morn.weight");
    let at = bytes.windows(old.len()).position(|w| w == old).unwrap();
    let renamed = [&bytes[..at], new, &bytes[at + old.len()..]].concat();
    fs::write(&path, renamed).unwrap();
    let text = refused(&runs, GOOD, "E605");
    assert!(text.contains("\"model.norm.weight\" is missing") && text.contains("model.morn.weight"), "{text}");
    // Renamed as a file, it is no longer there.
    fs::write(runs.at("model/weights.safetensors"), bytes).unwrap();
    fs::remove_file(path).unwrap();
    assert!(refused(&runs, GOOD, "E309").contains("found instead: config.json, tokenizer.json, weights.safetensors"));
}

#[test]
fn incomplete_model_folders_are_described() {
    let runs = good();
    let model = runs.at("model");
    refused(&runs, &GOOD.replace("--model model", "--model absent"), "E305");
    refused(&runs, &GOOD.replace("--model model", "--model text.txt"), "E305");
    assert!(refused(&runs, &GOOD.replace("--model model", "--model meta-llama/Llama-3.2-1B"), "E305").contains("hf download"));
    fs::remove_file(model.join("tokenizer.json")).unwrap();
    assert!(refused(&runs, GOOD, "E301").contains("looked for: tokenizer.json"));
    fs::write(model.join("tokenizer.json"), "{\"version\": \"1.0\"").unwrap();
    refused(&runs, GOOD, "E301");
    write_tokenizer(&model, 200);
    assert!(refused(&runs, GOOD, "E306").contains("token ids up to 199, the model 128 embeddings"));
    fs::write(model.join("config.json"), "{").unwrap();
    refused(&runs, GOOD, "E307");
    fs::remove_file(model.join("config.json")).unwrap();
    refused(&runs, GOOD, "E305");
    assert!(!runs.at("out").exists());
}

#[test]
fn the_way_out_of_a_missing_tokenizer_is_one() {
    let runs = good();
    fs::create_dir(runs.at("words")).unwrap();
    fs::rename(runs.at("model/tokenizer.json"), runs.at("words/tokenizer.json")).unwrap();
    for command in ["generate model -p w3 -n 1", "eval model --data text.txt --tasks ppl --at 16"] {
        assert!(assert_refused(&runs.run(command), "E301", command).contains("--tokenizer DIR"));
        runs.succeed(&format!("{command} --tokenizer words"));
    }
}

#[test]
fn unsupported_models_are_refused_before_anything_is_read() {
    let runs = good();
    let config = runs.at("model/config.json");
    fs::remove_file(runs.at("model/model.safetensors")).unwrap();
    edit(&config, |c| c["architectures"] = json!(["Gemma3ForCausalLM"]));
    assert!(refused(&runs, GOOD, "E302").contains("Gemma3ForCausalLM"));
    edit(&config, |c| {
        c["architectures"] = json!(["MistralForCausalLM"]);
        c["model_type"] = json!("mistral");
        c["sliding_window"] = json!(4096);
    });
    assert!(refused(&runs, GOOD, "E302").contains("sliding window of 4096 tokens"));
    edit(&config, |c| {
        c["sliding_window"] = Value::Null;
        c["num_attention_heads"] = json!(0);
    });
    refused(&runs, GOOD, "E307");
}

#[test]
fn unusable_text_is_located() {
    let cases: [(&str, &[u8], &str, &str); 9] = [
        ("a.txt", b"", "E325", "no text"),
        ("a.txt", b"  \n\t ", "E325", "no text"),
        ("a.txt", b"w3 w4 \x00 w5", "E321", "byte 6"),
        ("a.txt", b"w3 w4 \xff\xfe w5", "E321", "not UTF-8 at byte 6"),
        ("a.txt", b"w3 w4 w5", "E304", "one training sequence"),
        ("a.jsonl", b"{\"text\": \"w3\"}\n{\"text\": \"w4\n", "E322", "line 2 of"),
        ("a.jsonl", b"{\"text\": \"w3\"}\n[1]\n", "E322", "row 2 of"),
        ("a.jsonl", b"{\"content\": \"w3\"}\n", "E323", "--columns text=content"),
        ("a.pdf", b"%PDF-1.7", "E320", "expected .txt, .md or .jsonl"),
    ];
    for (name, bytes, code, says) in cases {
        let runs = good();
        fs::write(runs.at(name), bytes).unwrap();
        let words = GOOD.replace("text.txt", name);
        let text = refused(&runs, &words, code);
        assert!(text.contains(says), "{name} {code}: {says:?} is missing in\n{text}");
        assert!(!runs.at("out").exists());
        assert!(!entries(&runs.at("cache")).iter().any(|name| name.ends_with(".tmp")), "{name} {code}");
    }
    let runs = good();
    fs::create_dir(runs.at("empty")).unwrap();
    refused(&runs, &GOOD.replace("text.txt", "empty"), "E320");
    refused(&runs, &GOOD.replace("text.txt", "absent.txt"), "E305");
    for (name, bytes, code) in [
        ("empty.txt", "", "E325"),
        ("blank.txt", " \n\t\n", "E325"),
        ("blank.jsonl", "{\"text\": \"\"}\n", "E325"),
        ("other.jsonl", "{\"content\": \"w3\"}\n", "E323"),
    ] {
        fs::write(runs.at(name), bytes).unwrap();
        refused(&runs, &GOOD.replace("--val none", &format!("--eval-data {name}")), code);
        assert_refused(&runs.run(&format!("eval model --at 16 --tasks ppl --data {name}")), code, name);
    }
    refused(&runs, &GOOD.replace("--val none", "--eval-data absent.txt"), "E305");
    refused(&runs, &GOOD.replace("--val none", "--eval-data empty"), "E305");
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let runs = good();
    let text = refused(&runs, &GOOD.replace("--data text.txt", ""), "E307");
    assert!(text.contains("add --data PATH: a file or folder of .txt, .md or .jsonl"), "{text}");
    refused(&runs, &GOOD.replace("--target 1k", "--target 512"), "E303");
    fs::write(runs.at("run.toml"), "targte = \"1k\"\n").unwrap();
    let text = refused(&runs, &format!("{GOOD} --config run.toml"), "E307");
    assert!(text.contains("targte") && text.contains("target"), "{text}");
    refused(&runs, &format!("{GOOD} --gpus 1"), "E501");
    for key in ["--seed", "--keep", "--save-every", "--threads"] {
        let text = refused(&runs, &format!("{GOOD} {key} 18446744073709551615"), "E307");
        assert!(text.contains("expected at most"), "{text}");
    }
    for (key, short) in [("--steps 3", "--steps"), ("--micro-batch 1", "--micro-batch"), ("--accum 1", "--accum")] {
        refused(&runs, &GOOD.replace(key, &format!("{short} 18446744073709551615")), "E307");
    }
    assert!(!runs.at("out").exists());
}

#[test]
fn folders_that_cannot_be_written_are_refused() {
    let runs = good();
    fs::write(runs.at("file"), "").unwrap();
    // Nobody can make a folder in /proc, whoever runs this.
    for out in ["file", "file/out", "/proc/ltrain"] {
        let text = refused(&runs, &GOOD.replace("--out out", &format!("--out {out}")), "E702");
        assert!(text.contains(out) && text.contains("--out DIR"), "{text}");
    }
    fs::write(runs.at("runs"), "").unwrap();
    refused(&runs, &GOOD.replace("--out out", ""), "E702");
    let text = refused(&runs, &format!("{GOOD} --cache /proc/ltrain"), "E702");
    assert!(text.contains("/proc/ltrain") && text.contains("--cache DIR") && !text.contains("--out"), "{text}");
    assert_eq!(fs::read(runs.at("file")).unwrap(), b"");
}

#[test]
fn a_run_that_cannot_fit_on_the_disk_is_refused_at_once() {
    let runs = good();
    let text = refused(&runs, &format!("{GOOD} --keep 4294967295"), "E701");
    assert!(text.contains("lower --keep"), "{text}");
    assert_eq!(entries(&runs.at("out")), [".lock"]);
}

#[test]
fn a_full_disk_keeps_the_last_checkpoint_and_the_run_continues() {
    let runs = Runs::new();
    let words = |out: &str| format!("{FULL} --steps 100000 --save-every 5 --keep 1 --out {out}");
    // A small disk of its own, which exists only for this script's processes; filled once the first checkpoint is there.
    let script = "
        mount -t tmpfs -o size=6m none disk || exit 200
        \"$@\" 2> said & pid=$!
        while ! ls disk/out | grep -q '^checkpoint-[0-9]*$'; do kill -0 $pid || break; done
        cat /dev/zero > disk/filler 2> /dev/null
        wait $pid; echo $? > code
        ls disk/out > after
        rm disk/filler
        \"$@\" 2> again & pid=$!
        while ! grep -q continuing again; do kill -0 $pid || break; done
        kill -TERM $pid; wait $pid; echo $? > code-again";
    fs::create_dir(runs.at("disk")).unwrap();
    let ltrain = runs.command(&words("disk/out"));
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", script, "sh"]).arg(ltrain.get_program()).args(ltrain.get_args()).current_dir(runs.at(""));
    let status = command.output().map(|o| o.status.code());
    let read = |name: &str| fs::read_to_string(runs.at(name)).unwrap_or_default();
    if !matches!(status, Ok(Some(0))) && read("code").is_empty() {
        println!("full disk: skipped (no right to mount one here)");
        return;
    }
    let (said, after) = (read("said"), read("after"));
    assert!(said.contains("error[E701]: ") && !said.contains("panicked"), "{said}");
    assert_eq!(read("code").trim(), "7", "{said}");
    assert!(after.lines().any(|n| n.starts_with("checkpoint-")) && !after.contains(".tmp-"), "{after}");
    let again = read("again");
    assert!(again.contains("continuing from disk/out/checkpoint-"), "{again}");
    assert_eq!(read("code-again").trim(), "75", "{again}");
}

#[test]
fn a_full_standard_output_is_not_a_panic() {
    let full = File::options().write(true).open("/dev/full");
    let Ok(full) = full else { return };
    let runs = Runs::new();
    let output = runs.command("config dump").stdout(full).output().unwrap();
    assert_refused(&output, "E701", "config dump > /dev/full");
}

#[test]
fn an_adapter_of_another_base_is_refused() {
    let runs = good();
    runs.succeed(&format!("{LORA} --steps 2 --out tiny"));
    let merge = "merge --model model --adapter tiny/adapter --out out";
    let text = refused(&runs, merge, "E308");
    assert!(text.contains("does not fit this base model"), "{text}");
    for command in ["eval model --adapter tiny/adapter --tasks passkey --at 64", "generate model --adapter tiny/adapter -p w3"] {
        assert_refused(&runs.run(command), "E308", command);
    }
    edit(&runs.at("tiny/adapter/adapter_config.json"), |c| c["use_dora"] = json!(true));
    refused(&runs, &merge.replace("--model model", "--model builtin:tiny"), "E308");
    fs::remove_file(runs.at("tiny/adapter/adapter_config.json")).unwrap();
    refused(&runs, merge, "E305");
    assert!(!runs.at("out").exists());
}

#[test]
fn a_checkpoint_that_is_none_is_not_continued() {
    let runs = good();
    refused(&runs, &format!("{GOOD} --resume model"), "E902");
    refused(&runs, &format!("{GOOD} --resume absent"), "E305");
    runs.succeed(&format!("{FULL} --steps 2 --out other"));
    let before = tree(&runs.at("other"));
    let text = refused(&runs, &format!("{GOOD} --resume other"), "E901");
    assert!(text.contains("small.json"), "{text}");
    assert_eq!(tree(&runs.at("other")), before);
    // Away from its run, a checkpoint says nothing of its settings; its tensors still do.
    let checkpoint = runs.at("moved");
    fs::rename(runs.at("other/checkpoint-2"), &checkpoint).unwrap();
    let text = refused(&runs, &format!("{GOOD} --resume moved"), "E903");
    assert!(text.contains("does not belong to this run"), "{text}");
    fs::remove_file(checkpoint.join("optimizer.safetensors")).unwrap();
    let text = refused(&runs, &format!("{GOOD} --resume moved"), "E902");
    assert!(text.contains("optimizer.safetensors is missing"), "{text}");
}
