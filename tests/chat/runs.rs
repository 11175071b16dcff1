//! Whole runs of the binary on conversations of every format.

use std::fs;
use std::path::Path;

use ltrain::io::Storage;
use ltrain::io::safetensors::write_safetensors;
use ltrain::model::Llama;
use safetensors::SafeTensors;
use serde_json::{Value, json};

use super::common::runs::{Runs, entries, leftovers, stderr};
use super::{chat_folder, template};

/// A model of 40 thousand parameters for the tokenizer of bytes.
const CONFIG: &str = r#"{
  "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 512, "hidden_size": 32, "intermediate_size": 64,
  "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "hidden_act": "silu",
  "max_position_embeddings": 64, "initializer_range": 0.05, "rms_norm_eps": 1e-05, "rope_theta": 10000.0,
  "tie_word_embeddings": false, "torch_dtype": "float32"
}"#;

/// A folder with `model`, which has no chat template, and our templates.
pub fn folder() -> Runs {
    let runs = Runs::new();
    let model = runs.at("model");
    fs::create_dir(&model).unwrap();
    fs::write(model.join("config.json"), CONFIG).unwrap();
    let config = ltrain::io::hf_config::read_config(&model.join("config.json")).unwrap();
    let init = Llama::init(config, 5).unwrap();
    let tensors = init.params.iter().map(|p| (p.name.as_str(), &p.value));
    write_safetensors(&model.join("model.safetensors"), Storage::F32, tensors).unwrap();
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        fs::copy(chat_folder().join("bytes").join(name), model.join(name)).unwrap();
    }
    for name in ["llama3", "chatml", "mistral"] {
        fs::write(runs.at(format!("{name}.jinja")), template(name, name == "chatml")).unwrap();
    }
    runs
}

/// `n` rows of a format; every question has the same answer.
pub fn rows_of(format: &str, n: usize) -> String {
    let row = |i: usize| {
        let (question, answer) = (format!("Question {i}?"), "A town.");
        match format {
            "messages" => json!({"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}),
            "sharegpt" => json!({"conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]}),
            "alpaca" => json!({"instruction": question, "input": "", "output": answer}),
            "text" => json!({"text": format!("{question} {answer}")}),
            _ => unreachable!("{format}"),
        }
    };
    (0..n).map(|i| row(i).to_string() + "\n").collect()
}

const TRAIN: &str = "--model model --target 256 --seq-len 64 --micro-batch 2 --accum 2 --warmup 0 --schedule constant --lr 0.01 \
                     --eval none --log-every 1 --progress plain";

/// Losses of the run's log.
fn losses(run: &Path) -> Vec<f64> {
    let log = fs::read_to_string(run.join("trainer_log.jsonl")).unwrap();
    log.lines().filter_map(|line| serde_json::from_str::<Value>(line).unwrap()["loss"].as_f64()).collect()
}

#[test]
fn every_format_trains_and_learns_its_answers() {
    let runs = folder();
    for format in ["messages", "sharegpt", "alpaca", "text"] {
        fs::write(runs.at(format!("{format}.jsonl")), rows_of(format, 24)).unwrap();
        let chat = if format == "text" { "" } else { "--chat-template llama3.jinja" };
        let said = runs.succeed(&format!("{TRAIN} --data {format}.jsonl {chat} --train full --steps 30 --out {format}"));
        match format {
            "text" => assert!(said.contains("24 documents, "), "{said}"),
            _ => {
                assert!(said.contains(&format!("24 conversations ({format}), ")) && said.contains("% of them learned"), "{said}")
            }
        }
        let losses = losses(&runs.at(format));
        let (first, last) = (losses[0], losses[losses.len() - 1]);
        assert!(first > 5.0 && last < first - 3.0, "{format}: {losses:?}");
        assert!(runs.at(format).join("merged/tokenizer.json").exists());
        let exported = fs::read_to_string(runs.at(format).join("merged/chat_template.jinja")).ok();
        assert_eq!(exported, (format != "text").then(|| template("llama3", false)), "{format}");
    }
}

#[test]
fn lora_plus_exports_an_adapter_with_its_embeddings() {
    let runs = folder();
    fs::write(runs.at("chat.jsonl"), rows_of("messages", 12)).unwrap();
    let words = format!(
        "{TRAIN} --data chat.jsonl --chat-template mistral.jinja --train lora+ --rank 2 --steps 2 --export both --out out"
    );
    runs.succeed(&words);
    let config: Value = serde_json::from_slice(&fs::read(runs.at("out/adapter/adapter_config.json")).unwrap()).unwrap();
    let saved = config["modules_to_save"].as_array().unwrap();
    assert!(saved.contains(&json!("embed_tokens")), "{saved:?}");
    let weights = fs::read(runs.at("out/adapter/adapter_model.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&weights).unwrap();
    assert!(tensors.names().iter().any(|name| name.ends_with("embed_tokens.weight")), "{:?}", tensors.names());
    let said = runs.run("generate model --adapter out/adapter -p Question -n 3 --gpus 0");
    assert!(said.status.success(), "{}", stderr(&said));
    // The same command again has nothing left to do; another loss is another run.
    assert!(runs.succeed(&words).contains("is finished"));
    let other = runs.run(&format!("{words} --loss all"));
    assert_eq!(other.status.code(), Some(9), "{}", stderr(&other));
    assert!(stderr(&other).contains("loss"), "{}", stderr(&other));
}

#[test]
fn an_alpaca_row_needs_no_template() {
    let runs = folder();
    fs::write(runs.at("a.jsonl"), rows_of("alpaca", 8)).unwrap();
    let output = runs.run("data inspect --model model --data a.jsonl --val none --seq-len 256 --target 256 --rope keep --rows 1");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(text.contains("8 conversations (alpaca)"), "{text}");
    assert!(
        text.lines().any(|l| l.trim_start().starts_with("learned") && l.ends_with("|<|eot_id|>|")),
        "the end is learned:\n{text}"
    );
}

#[test]
fn held_back_conversations_are_measured() {
    let runs = folder();
    fs::write(runs.at("chat.jsonl"), rows_of("sharegpt", 40)).unwrap();
    let words = TRAIN.replace("--eval none", "--eval ppl --eval-at 64 --val 10%");
    let said = runs.succeed(&format!(
        "{words} --data chat.jsonl --chat-template chatml.jinja --train full --steps 2 --no-control --out out"
    ));
    assert!(said.contains("report"), "{said}");
    let report: Value = serde_json::from_slice(&fs::read(runs.at("out/report.json")).unwrap()).unwrap();
    let records = report["evaluations"].as_array().unwrap();
    assert_eq!(records.len(), 3, "base, base under the new rotation, after");
    for record in records {
        let lengths = record["perplexity"].as_array().unwrap();
        assert!(!lengths.is_empty(), "{record}");
        for at in lengths {
            assert!(at["windows"].as_u64().unwrap() > 0 && at["ppl"].as_f64().unwrap().is_finite(), "{record}");
        }
    }
}

#[test]
fn settings_that_do_nothing_are_refused() {
    let runs = folder();
    fs::write(runs.at("text.jsonl"), rows_of("text", 24)).unwrap();
    fs::write(runs.at("text.txt"), "a small town by the sea ".repeat(200)).unwrap();
    fs::write(runs.at("chat.jsonl"), rows_of("messages", 24)).unwrap();
    for (words, key) in [
        ("--data text.jsonl --loss answers", "loss: has an effect only with conversations"),
        ("--data text.jsonl --long cut", "long: has an effect only with conversations"),
        ("--data text.txt --format messages", "format: has an effect only with rows of .jsonl files"),
        ("--data text.jsonl --chat-template llama3.jinja", "chat_template: has an effect only with conversations"),
        ("--data chat.jsonl --chat-template llama3.jinja --no-pack", "no_pack: has an effect only with text"),
        ("--data synthetic:facts-64 --loss answers", "loss: has an effect only with files as --data"),
        ("--data chat.jsonl", "the tokenizer has no chat template"),
    ] {
        let output = runs.run(&format!("{TRAIN} --steps 1 {words} --out out"));
        assert_eq!(output.status.code(), Some(3), "{words}: {}", stderr(&output));
        assert!(stderr(&output).contains(key), "{words}: {}", stderr(&output));
        assert!(leftovers(&runs.at("out")).is_empty() && !entries(&runs.at("out")).contains(&"run.json".into()), "{words}");
    }
    for words in ["--loss prompts", "--format csv", "--long wrap"] {
        let output = runs.run(&format!("{TRAIN} --data chat.jsonl {words}"));
        assert_eq!(output.status.code(), Some(2), "{words}");
    }
}

/// A trained model of 260 thousand parameters, where the checkout has it.
#[test]
fn a_real_model_learns_conversations() {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/models/stories260k");
    if !model.exists() {
        return eprintln!("skipped: there is no {}", model.display());
    }
    let runs = folder();
    let row = |i: usize| {
        let name = ["Tom", "Lily", "Ben", "Sue"][i % 4];
        let user = format!("Tell a story about {name}.");
        json!({"messages": [{"role": "user", "content": user}, {"role": "assistant", "content": format!("Once upon a time there was {name}. The end.")}]})
    };
    let rows: Vec<_> = (0..60).map(|i| row(i).to_string()).collect();
    fs::write(runs.at("chat.jsonl"), rows.join("\n")).unwrap();
    let words = format!(
        "--model {} --data chat.jsonl --chat-template mistral.jinja --target 1k --seq-len 256 --train lora+ --rank 4 --steps 25 \
         --micro-batch 2 --accum 1 --warmup 2 --lr 0.003 --lr-embed 0.003 --eval none --log-every 1 --progress plain --out out",
        model.display()
    );
    let said = runs.succeed(&words);
    assert!(said.contains("60 conversations (messages)"), "{said}");
    let losses = losses(&runs.at("out"));
    assert!(losses[losses.len() - 1] < 0.5 * losses[0], "{losses:?}");
    let config: Value = serde_json::from_slice(&fs::read(runs.at("out/adapter/adapter_config.json")).unwrap()).unwrap();
    assert!(!config["modules_to_save"].as_array().unwrap().is_empty());
}
