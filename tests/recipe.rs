//! Merging two models, exporting one under several rotations, and finding impactful tokens, against numpy and transformers.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use common::fixtures;
use common::runs::{Runs, entries, leftovers, stderr};
use ltrain::data::selection::Selection;
use ltrain::io::atomic::Existing;
use ltrain::io::export::{Export, SHARD_LIMIT, write_model_dir};
use ltrain::io::model_dir::{EMBEDDING, LM_HEAD};
use ltrain::io::{ModelDir, Storage};
use ltrain::model::RopeScaling;
use ltrain::model::llama::expected_tensors;
use ltrain::tensor::Tensor;
use serde_json::{Value, json};

fn golden(part: &str) -> Value {
    let text = fs::read(fixtures().join("recipe.json")).unwrap();
    serde_json::from_slice::<Value>(&text).unwrap()[part].take()
}

fn model(name: &str) -> PathBuf {
    fixtures().join("models").join(name)
}

fn open(path: &Path) -> ModelDir {
    ModelDir::open(path).unwrap()
}

fn edit(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut value: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    change(&mut value);
    fs::write(path, value.to_string()).unwrap();
}

/// A fixture model written again at `to`, with `change` done to its tensors.
fn rewritten(name: &str, to: &Path, storage: Storage, shard_limit: u64, change: impl Fn(&str, &mut [f32])) {
    let base = open(&model(name));
    let export = Export { base: &base, config: base.config(), storage, existing: Existing::Refuse, shard_limit };
    let tensors = base.load().unwrap().into_iter().map(|(name, mut tensor)| {
        change(&name, tensor.as_f32_mut()?);
        Ok((name, tensor))
    });
    write_model_dir(to, &export, tensors).unwrap();
}

/// A fixture model with a tokenizer of which word `wN` is token `N`.
fn with_words(name: &str, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in entries(&model(name)) {
        fs::copy(model(name).join(&file), to.join(&file)).unwrap();
    }
    let words = ["[UNK]", "[BOS]", "[EOS]"].map(str::to_owned).into_iter().chain((3..128).map(|i| format!("w{i}")));
    let ids: serde_json::Map<_, _> = words.enumerate().map(|(id, word)| (word, json!(id))).collect();
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": ids, "unk_token": "[UNK]"},
    });
    fs::write(to.join("tokenizer.json"), tokenizer.to_string()).unwrap();
}

/// `ltrain merge` of two models.
fn merge(runs: &Runs, base: &Path, with: &Path, rest: &str) -> Output {
    runs.run(&format!("merge --model {} --with {} {rest}", base.display(), with.display()))
}

#[track_caller]
fn assert_same_bits(a: &ModelDir, b: &ModelDir) {
    assert_eq!(a.config().tied, b.config().tied);
    for (name, _) in expected_tensors(a.config()) {
        let [a, b] = [a, b].map(|dir| dir.view(&name).unwrap());
        assert_eq!((a.storage, a.bytes), (b.storage, b.bytes), "{name}");
    }
}

#[track_caller]
fn assert_refused(output: &Output, exit: i32, parts: &[&str]) {
    let text = stderr(output);
    assert_eq!(output.status.code(), Some(exit), "{text}");
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
}

#[test]
fn a_mixture_has_numpys_bits() {
    let (runs, golden) = (Runs::new(), golden("merge"));
    let weight = golden["weight"].as_f64().unwrap();
    let output = merge(&runs, &model("llama"), &model("llama_linear"), &format!("--weight {weight} --out out"));
    assert!(output.status.success(), "{}", stderr(&output));
    let out = open(&runs.at("out"));
    assert_eq!(out.config(), open(&model("llama_linear")).config(), "the rotation is that of the model mixed in");
    let tensors = out.load().unwrap();
    assert_eq!(tensors.len(), golden["tensors"].as_object().unwrap().len());
    for (name, tensor) in tensors {
        let bits = tensor.as_f32().unwrap().iter().map(|v| v.to_bits());
        let (xor, sum) = bits.fold((0, 0u64), |(xor, sum), b| (xor ^ b, sum + u64::from(b)));
        assert_eq!(json!([xor, sum]), golden["tensors"][&name], "{name}");
    }
}

#[test]
fn a_model_that_is_taken_whole_keeps_its_bits() {
    let runs = Runs::new();
    let minus_zero = |_: &str, values: &mut [f32]| values[0] = -0.0;
    let cases = [
        ("f32", Storage::F32, "llama", "llama_linear", SHARD_LIMIT),
        ("bf16", Storage::Bf16, "llama", "llama_linear", SHARD_LIMIT),
        ("sharded", Storage::F16, "llama_linear", "llama", 50_000),
        ("tied", Storage::Bf16, "llama_tied", "llama_tied", 50_000),
        ("tied into untied", Storage::F32, "llama", "llama_tied", SHARD_LIMIT),
        ("untied into tied", Storage::F32, "llama_tied", "llama", SHARD_LIMIT),
    ];
    for (case, storage, base, with, shard_limit) in cases {
        let [base_dir, with_dir] = ["base", "with"].map(|name| runs.at(format!("{case}/{name}").replace(' ', "-")));
        rewritten(base, &base_dir, storage, shard_limit, minus_zero);
        rewritten(with, &with_dir, storage, shard_limit, |name, values| {
            minus_zero(name, values);
            values[1] *= 0.5;
        });
        for (weight, whole) in [("0", &base_dir), ("1", &with_dir), ("0.0", &base_dir), ("1e0", &with_dir)] {
            let out = runs.at(format!("{case}/{weight}").replace(' ', "-"));
            let output = merge(&runs, &base_dir, &with_dir, &format!("--weight {weight} --out {}", out.display()));
            assert!(output.status.success(), "{case} {weight}: {}", stderr(&output));
            assert_same_bits(&open(&out), &open(whole));
            assert_eq!(open(&out).config().rope, open(&with_dir).config().rope);
        }
    }
}

#[test]
fn number_types_that_differ_become_f32_unless_one_is_asked_for() {
    let runs = Runs::new();
    rewritten("llama", &runs.at("half"), Storage::Bf16, SHARD_LIMIT, |_, _| {});
    let half = runs.at("half");
    assert!(merge(&runs, &half, &model("llama_linear"), "--weight 1 --out whole").status.success());
    assert_same_bits(&open(&runs.at("whole")), &open(&model("llama_linear")));
    assert!(merge(&runs, &half, &model("llama_linear"), "--dtype bf16 --out bf16").status.success());
    assert_eq!(open(&runs.at("bf16")).storage().unwrap(), Storage::Bf16);
    assert!(merge(&runs, &half, &half, "--weight 0.3 --out same").status.success());
    assert_same_bits(&open(&runs.at("same")), &open(&half));
}

#[test]
fn a_tied_and_an_untied_model_make_an_untied_one() {
    let runs = Runs::new();
    let tensor = |dir: &ModelDir, name: &str| dir.view(name).unwrap().to_f32().unwrap();
    for (out, base, with) in [("a", "llama", "llama_tied"), ("b", "llama_tied", "llama")] {
        let output = merge(&runs, &model(base), &model(with), &format!("--out {out}"));
        assert!(output.status.success(), "{}", stderr(&output));
        let (mixed, tied, untied) = (open(&runs.at(out)), open(&model("llama_tied")), open(&model("llama")));
        assert!(!mixed.config().tied);
        let halves = tensor(&tied, EMBEDDING).into_iter().zip(tensor(&untied, LM_HEAD));
        let want: Vec<f32> = halves.map(|(a, b)| 0.5 * a + 0.5 * b).collect();
        assert_eq!(tensor(&mixed, LM_HEAD), want);
    }
}

#[test]
fn models_that_cannot_be_mixed_are_refused() {
    let runs = Runs::new();
    let base = model("llama");
    assert_refused(&merge(&runs, &base, &model("qwen2"), "--out out"), 3, &["E313", "architectures is LlamaForCausalLM"]);
    assert_refused(
        &merge(&runs, &base, &model("llama_d64"), "--out out"),
        3,
        &["error[E313]", "models of one shape and vocabulary"],
    );
    // Another program's way to write the same tokenizer changes no token; another word does.
    let [words, other] = ["words", "other"].map(|name| runs.at(name));
    with_words("llama", &words);
    with_words("llama_linear", &other);
    let tokenizer = other.join("tokenizer.json");
    let value: Value = serde_json::from_slice(&fs::read(&tokenizer).unwrap()).unwrap();
    fs::write(&tokenizer, serde_json::to_string_pretty(&value).unwrap()).unwrap();
    let output = merge(&runs, &words, &other, "--out alike");
    assert!(output.status.success(), "{}", stderr(&output));
    let text = fs::read_to_string(&tokenizer).unwrap().replace("\"w9\"", "\"word\"");
    fs::write(&tokenizer, text).unwrap();
    assert_refused(&merge(&runs, &words, &other, "--out out"), 3, &["E313", "tokenizer.json is \"w9\" for the id 9"]);
    let three = format!(
        "longrecipe --model {} --tokenizer {} --data x --replay-data x --target 512 --out out",
        words.display(),
        other.display()
    );
    assert_refused(&runs.run(&three), 3, &["E313", "\"word\" for the id 9 in the second"]);
    for value in [f32::INFINITY, f32::NAN] {
        let broken = runs.at(format!("broken-{value}"));
        rewritten("llama_linear", &broken, Storage::F32, SHARD_LIMIT, |_, _| {});
        let file = broken.join("model.safetensors");
        let mut bytes = fs::read(&file).unwrap();
        let end = bytes.len();
        bytes[end - 4..].copy_from_slice(&value.to_le_bytes());
        fs::write(&file, bytes).unwrap();
        for weight in ["0.5", "1"] {
            let output = merge(&runs, &base, &broken, &format!("--weight {weight} --out out"));
            assert_refused(&output, 6, &["error[E603]", &format!("holds {value}")]);
        }
    }
    assert_refused(&merge(&runs, &base, &base, "--adapter x --out out"), 2, &["--adapter"]);
    assert_refused(&merge(&runs, &base, &base, "--weight 1.5 --out out"), 2, &["from 0 to 1 or search"]);
    assert_refused(&merge(&runs, &base, &base, "--weight nan --out out"), 2, &["from 0 to 1 or search"]);
    assert_refused(
        &merge(&runs, &base, &base, "--at 64 --out out"),
        3,
        &["at: has an effect only with --with MODEL --weight search"],
    );
    assert_refused(&runs.run("merge --model builtin:tiny --out out"), 2, &["--adapter"]);
    let weighed = runs.run("merge --model builtin:tiny --adapter a --weight search --out out");
    assert_refused(&weighed, 3, &["weight: has an effect only with --with MODEL"]);
    assert!(!runs.at("out").exists() && leftovers(&runs.at(".")).is_empty());
}

/// The built-in model under another rotation.
fn longer(runs: &Runs, name: &str, scaling: &Value) -> PathBuf {
    let dir = runs.at(name);
    fs::create_dir_all(&dir).unwrap();
    for file in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        fs::copy(common::builtin().join(file), dir.join(file)).unwrap();
    }
    edit(&dir.join("config.json"), |config| {
        config["max_position_embeddings"] = 1024.into();
        config["rope_scaling"] = scaling.clone();
    });
    dir
}

#[test]
fn a_search_measures_all_weights_under_one_rotation_and_writes_the_best() {
    let runs = Runs::new();
    let dir = longer(&runs, "with", &json!({"rope_type": "linear", "factor": 4.0}));
    // A good model with noise added and with it taken away: half of each is the good one.
    let good = open(&dir);
    let export = Export {
        base: &good,
        config: good.config(),
        storage: Storage::F32,
        existing: Existing::Refuse,
        shard_limit: SHARD_LIMIT,
    };
    let noise = |i: usize| ((i * 2_654_435_761) % 1000) as f32 / 1e4 - 0.05;
    for (name, sign) in [("plus", 1.0), ("minus", -1.0)] {
        let tensors = good.load().unwrap().into_iter().map(|(name, tensor)| {
            let values = tensor.as_f32()?.iter().enumerate().map(|(i, v)| v + sign * noise(i)).collect();
            Ok((name, Tensor::f32(values, tensor.shape().clone())))
        });
        write_model_dir(&runs.at(name), &export, tensors).unwrap();
    }
    let output = runs.run("merge --model minus --with plus --weight search --at 64,128 --gpus 0 --out best");
    assert!(output.status.success(), "{}", stderr(&output));
    let table = String::from_utf8(output.stdout).unwrap();
    let words = |line: &'_ str| line.split_whitespace().filter(|word| !word.starts_with('±')).map(str::to_owned).collect();
    let rows: Vec<Vec<String>> = table.lines().map(words).collect();
    assert_eq!((rows.len(), table.matches(" ±0.").count()), (8, 10), "{table}");
    assert_eq!(rows[0], ["weight", "nll", "at", "64", "nll", "at", "128", "sum"]);
    let number = |row: usize, column: usize| rows[row][column].parse::<f64>().unwrap();
    for row in 1..=5 {
        assert!((number(row, 1) + number(row, 2) - number(row, 3)).abs() < 2e-4, "{table}");
    }
    let taken: Vec<usize> = (1..6).filter(|&row| rows[row].len() > 4).collect();
    assert_eq!((taken.as_slice(), rows[3][0].as_str()), (&[3][..], "0.5"), "{table}");
    let best = open(&runs.at("best"));
    assert_eq!(best.config().rope.scaling, RopeScaling::Linear { factor: 4.0 });
    // What the table says of it is what an evaluation says.
    runs.succeed("eval best --tasks ppl --at 64,128 --gpus 0 --json best.json");
    let measured: Value = serde_json::from_slice(&fs::read(runs.at("best.json")).unwrap()).unwrap();
    for column in [1, 2] {
        let nll = measured[0]["perplexity"][column - 1]["nll"].as_f64().unwrap();
        assert!((nll - number(3, column)).abs() < 1e-4, "{nll}\n{table}");
    }

    let again = runs.run("merge --model builtin:tiny --with with --weight search --gpus 0 --out best");
    assert_refused(&again, 7, &["error[E703]"]);
    fs::write(runs.at("short.txt"), "key 1 key 2").unwrap();
    let short = runs.run("merge --model builtin:tiny --with with --weight search --data short.txt --gpus 0 --out no");
    assert_refused(&short, 3, &["data: expected a text of at least 1024 tokens", "--at"]);
}

#[cfg(unix)]
#[test]
fn an_export_has_a_folder_per_rotation_and_one_file_of_weights() {
    use std::os::unix::fs::MetadataExt;
    let runs = Runs::new();
    longer(&runs, "m", &json!({"rope_type": "linear", "factor": 4.0}));
    let output = runs.run("export m --rope linear:2,linear:8,ntk:4,yarn:16 --out out");
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(!stderr(&output).contains("copies"), "{}", stderr(&output));
    let mut names = entries(&runs.at("out"));
    names.sort();
    assert_eq!(names, ["linear-2", "linear-8", "ntk-4", "yarn-16"]);
    let inode = |name: &str| fs::metadata(runs.at("out").join(name).join("model.safetensors")).unwrap().ino();
    let base = open(&common::builtin());
    #[rustfmt::skip]
    let want = [
        ("linear-2", 512, 1e4, RopeScaling::Linear { factor: 2.0 }),
        ("linear-8", 2048, 1e4, RopeScaling::Linear { factor: 8.0 }),
        ("ntk-4", 1024, 43872.996, RopeScaling::Default),
        ("yarn-16", 4096, 1e4, RopeScaling::yarn(16.0, 256)),
    ];
    for (name, context, theta, scaling) in want {
        let dir = open(&runs.at("out").join(name));
        assert_eq!((dir.config().context, &dir.config().rope.scaling), (context, &scaling), "{name}");
        assert!((dir.config().rope.theta - theta).abs() < 1e-2, "{name}: {}", dir.config().rope.theta);
        let settings = dir.tokenizer_files().json("tokenizer_config.json").unwrap().unwrap();
        assert_eq!(settings["model_max_length"], json!(context), "{name}");
        assert_eq!(inode(name), inode("linear-2"), "{name}");
        assert_same_bits(&dir, &base);
    }
    // The folder gives the losses of the rotation that it is for.
    runs.succeed("eval m --rope linear:8 --tasks ppl --at 512 --gpus 0 --json m.json");
    runs.succeed("eval out/linear-8 --tasks ppl --at 512 --gpus 0 --json out.json");
    let nll = |file: &str| {
        let records: Value = serde_json::from_slice(&fs::read(runs.at(file)).unwrap()).unwrap();
        records[0]["perplexity"][0]["nll"].clone()
    };
    assert!(nll("m.json").is_f64() && nll("m.json") == nll("out.json"));
}

#[test]
fn rotations_that_cannot_be_exported_are_refused() {
    let runs = Runs::new();
    for (rope, parts) in [
        ("linear", ["E307", "expected a rotation with its factor, got linear"]),
        ("theta:50000", ["E307", "expected a rotation with its factor"]),
        ("longrecipe:4", ["E307", "expected a rotation with its factor"]),
        ("linear:4,ntk:2,linear:4.0", ["E307", "linear-4 is given twice"]),
        ("linear:1.3", ["E307", "original context of 256 tokens is no possible context"]),
    ] {
        assert_refused(&runs.run(&format!("export builtin:tiny --rope {rope} --out out")), 3, &parts);
    }
    assert_refused(&runs.run("export builtin:tiny --rope linear:0.5 --out out"), 2, &["a number from 1 to 1000000"]);
    assert_refused(&runs.run("export builtin:tiny --out out"), 2, &["--rope"]);
    longer(&runs, "odd", &json!({"rope_type": "linear", "factor": 3.0}));
    assert_refused(&runs.run("export odd --rope linear:4 --out out"), 3, &["original context cannot be told", "1024 tokens"]);
    longer(&runs, "yarn", &json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256}));
    assert_refused(&runs.run("export yarn --rope linear:4 --out out"), 3, &["trained with yarn ×4"]);
    assert!(!runs.at("out").exists() && leftovers(&runs.at(".")).is_empty());
}

#[test]
fn an_exported_adapter_is_multiplied_in() {
    let runs = Runs::new();
    runs.succeed(&format!("{} --steps 2 --export both --out run --gpus 0", common::runs::LORA));
    runs.succeed("export builtin:tiny --adapter run/adapter --rope yarn:2,yarn:4 --out out");
    for name in ["yarn-2", "yarn-4"] {
        assert_same_bits(&open(&runs.at("out").join(name)), &open(&runs.at("run/merged")));
    }
    assert_eq!(open(&runs.at("out/yarn-2")).config().rope, open(&runs.at("run/merged")).config().rope);
}

#[test]
fn significance_is_that_of_transformers_and_numpy() {
    let (runs, golden) = (Runs::new(), golden("impact"));
    with_words("llama", &runs.at("base"));
    with_words("llama_linear", &runs.at("extended"));
    fs::write(runs.at("text.txt"), golden["text"].as_str().unwrap()).unwrap();
    let (seq_len, share) = (&golden["seq_len"], &golden["share"]);
    let command = "analyze --model base --against extended --data text.txt --gpus 0";
    let output = runs.run(&format!("{command} --seq-len {seq_len} --share {share} --out s.json"));
    assert!(output.status.success(), "{}", stderr(&output));
    let tokenizer = open(&runs.at("base")).tokenizer().unwrap().hash().to_hex().to_string();
    let selection = Selection::read(&runs.at("s.json"), &tokenizer).unwrap();
    let want = golden["ids"].as_object().unwrap();
    assert_eq!(selection.ids.len(), want.len());
    for row in &selection.ids {
        let want = &want[&row.id.to_string()];
        assert_eq!(json!([row.impact.count, row.impact.impactful]), json!([want[0], want[1]]), "token {}", row.id);
        // Logits of these models are at most 1; f32 sums over 64 and 96 products are off by about 1e-6.
        for (got, want) in [(row.impact.logit, &want[2]), (row.impact.log_prob, &want[3])] {
            assert!((got - want.as_f64().unwrap()).abs() < 2e-5, "token {}: {got}, numpy has {want}", row.id);
        }
        assert_eq!(row.text, format!("w{}", row.id));
    }
    let all: u64 = selection.ids.iter().map(|row| row.impact.count).sum();
    let chosen = |row: &&ltrain::data::selection::TokenImpact| selection.tokens.contains(&row.id);
    let covered = selection.ids.iter().filter(chosen).map(|row| row.impact.count).sum::<u64>() as f64 / all as f64;
    assert!(covered >= selection.share && (covered - selection.covered).abs() < 1e-12, "{covered}");
    assert_eq!(all, selection.source.tokens);
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(shown.contains("digit") && shown.contains(&format!("{:?}", selection.ids[0].text)), "{shown}");
    // Every row at once or one by one, it is the same.
    runs.succeed(&format!("{command} --seq-len {seq_len} --share {share} --threads 1 --out again.json"));
    assert_eq!(fs::read(runs.at("again.json")).unwrap(), fs::read(runs.at("s.json")).unwrap());
}

#[test]
fn models_that_cannot_be_compared_are_refused() {
    let runs = Runs::new();
    with_words("llama", &runs.at("base"));
    with_words("llama_linear", &runs.at("extended"));
    let text: Vec<String> = (0..200).map(|i| format!("w{}", 3 + i * i % 120)).collect();
    fs::write(runs.at("text.txt"), text.join(" ")).unwrap();
    let analyze = |rest: &str| runs.run(&format!("analyze --model base --gpus 0 --out s.json {rest}"));
    assert_refused(&analyze("--against extended"), 3, &["data: perplexity needs text"]);
    assert_refused(&analyze("--against extended --data absent.txt"), 3, &["absent.txt"]);
    assert_refused(&analyze("--against extended --data text.txt --seq-len 1"), 3, &["at least 2 tokens", "--seq-len"]);
    assert_refused(&analyze("--against extended --data text.txt --share 0"), 2, &["a number above 0, at most 1"]);
    let other = fs::read_to_string(runs.at("extended/tokenizer.json")).unwrap();
    // The same words in another layout are the same tokenizer; other ids are not.
    fs::write(runs.at("extended/tokenizer.json"), other.replace(',', ", ")).unwrap();
    assert!(analyze("--against extended --data text.txt --seq-len 64").status.success());
    fs::remove_file(runs.at("s.json")).unwrap();
    fs::write(runs.at("extended/tokenizer.json"), other.replace("\"w3\"", "\"x\"").replace("\"w4\"", "\"w3\"")).unwrap();
    assert_refused(&analyze("--against extended --data text.txt --seq-len 64"), 3, &["against: extended splits the text"]);
    assert!(!runs.at("s.json").exists());
}
