//! Every method through the binary, on the built-in model, and what its run leaves behind.

mod common;

use std::fs;

use common::runs::{Runs, entries};
use serde_json::Value;

/// Small steps.
const SMALL: &str = "--warmup 0 --micro-batch 2 --accum 1 --no-control --progress quiet";

fn json(runs: &Runs, file: &str) -> Value {
    serde_json::from_slice(&fs::read(runs.at(file)).unwrap()).unwrap()
}

#[test]
fn every_preset_trains_and_exports() {
    let runs = Runs::new();
    let presets = ["pose", "e2-llm", "longrecipe", "longlora", "endprompt", "uniform", "random", "full-length"];
    for preset in presets {
        runs.succeed(&format!("--method {preset} {SMALL} --target 512 --steps 2 --eval none --out {preset}"));
        let config = json(&runs, &format!("{preset}/merged/config.json"));
        assert_eq!(config["max_position_embeddings"], 512, "{preset}");
    }
    let cost = |run: &str| json(&runs, &format!("{run}/report.json"))["notes"][1].as_str().unwrap().to_owned();
    assert!(cost("pose").contains("256 tokens, 50 % of the target. Attention visited 50.1 %"), "{}", cost("pose"));
    assert!(cost("pose").ends_with("Rows of this length cost the same at any target."), "{}", cost("pose"));
    assert!(["longrecipe", "longlora"].iter().all(|run| !cost(run).contains("any target")), "their rows follow the target");
    assert!(cost("longrecipe").contains("153 tokens, 30 % of the target"), "{}", cost("longrecipe"));
    assert!(cost("longlora").contains("512 tokens, 100 % of the target. Attention visited 23.6 %"), "{}", cost("longlora"));
    let trained: std::collections::HashSet<_> = presets.iter().map(|preset| runs.weights(preset)).collect();
    assert_eq!(trained.len(), presets.len(), "two methods trained the same");
    let theta = |run: &str| json(&runs, &format!("{run}/merged/config.json"))["rope_parameters"]["rope_theta"].as_f64().unwrap();
    assert!(theta("longrecipe") > 2.0 * theta("pose"), "LongRecipe enlarges the base");
    runs.succeed(&format!(
        "--positions mix:pose=2,e2-llm=1 --e2-scale-per step --contiguous 10% --retrieval 10% {SMALL} --target 512 --steps 2 --eval none --out mix"
    ));
}

#[test]
fn e2_llm_reports_every_window_of_its_one_model() {
    let runs = Runs::new();
    runs.succeed(&format!("--method e2-llm {SMALL} --steps 2 --target 1024 --eval ppl --eval-at 256,1024 --out run"));
    let report = json(&runs, "run/report.json");
    let ropes: Vec<(&str, &str)> = report["evaluations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| (e["name"].as_str().unwrap(), e["rope"].as_str().unwrap()))
        .collect();
    assert_eq!(
        ropes[2..],
        [("after e2-llm", "linear ×4"), ("after e2-llm · ×1", "theta 10000"), ("after e2-llm · ×2", "linear ×2"),]
    );
    for window in ["after", "windows/1", "windows/2"] {
        assert!(runs.at(format!("run/eval/{window}.json")).exists(), "{window}");
    }
}

/// A rate at which every step makes it worse: the first state that was measured is the best.
#[test]
fn the_best_state_is_the_result() {
    let runs = Runs::new();
    let words = |steps: u32, out: &str| {
        format!(
            "{SMALL} --target 512 --steps {steps} --lr 0.3 --schedule constant --eval ppl,passkey --eval-at 256,512 --passkey-samples 2 \
             --eval-every 2 --best loss --out {out}"
        )
    };
    let said = runs.succeed(&words(6, "run"));
    let log = fs::read_to_string(runs.at("run/trainer_log.jsonl")).unwrap();
    let measured: Vec<(u64, f64)> = log
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter_map(|line| Some((line["current_steps"].as_u64()?, line["eval_loss"].as_f64()?)))
        .collect();
    assert_eq!(measured.iter().map(|m| m.0).collect::<Vec<_>>(), [2, 4, 6]);
    let best = measured.iter().min_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
    assert_eq!(best.0, 2, "the rate is too small for this test: {measured:?}");
    assert!(said.contains("taking step 2, the best by loss") || said.is_empty(), "{said}");
    assert_eq!(json(&runs, "run/best/best.json")["measured"]["step"], 2);
    assert_eq!(entries(&runs.at("run/best")).iter().filter(|name| name.starts_with("checkpoint-")).count(), 1);
    // Two steps alone end in the same state.
    runs.succeed(&words(2, "short"));
    assert!(runs.weights("run") == runs.weights("short"), "the result is not the best state");
    let notes = json(&runs, "run/report.json")["notes"].to_string();
    assert!(notes.contains("The result is step 2, the best by loss of 3 that were measured"), "{notes}");

    runs.succeed(&words(4, "asked").replace("--best loss", "--best retrieval"));
    let log = fs::read_to_string(runs.at("asked/trainer_log.jsonl")).unwrap();
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    // Retrieval, then loss; the first of equals.
    let better = |a: &(f64, f64, u64), b: &(f64, f64, u64)| (a.0, -a.1, b.2).partial_cmp(&(b.0, -b.1, a.2)).unwrap();
    let of = |line: Value| Some((line["eval_retrieval"].as_f64()?, line["eval_loss"].as_f64()?, line["current_steps"].as_u64()?));
    let measured: Vec<_> = lines.filter_map(of).collect();
    assert_eq!(measured.iter().map(|m| m.2).collect::<Vec<_>>(), [2, 4], "{log}");
    let best = measured.iter().copied().max_by(better).unwrap().2;
    assert_eq!(json(&runs, "asked/best/best.json")["measured"]["step"], best);
    runs.succeed(&words(best as u32, "as-long").replace("--best loss", "--best last").replace("--eval-every 2", ""));
    assert!(runs.weights("asked") == runs.weights("as-long"), "the result is not the state that found most");
    let refused = runs.run(&words(2, "no").replace("--eval-every 2", ""));
    assert_eq!(refused.status.code(), Some(3));
}

#[test]
fn longrecipe_runs_its_three_stages_and_skips_those_that_are_done() {
    let runs = Runs::new();
    let words = format!(
        "longrecipe {SMALL} --target 512 --steps 2 --eval none --replay-data synthetic:mixed-2048 --replay-steps 1 --out run"
    );
    runs.succeed(&words);
    for made in ["extend/merged", "replay/merged", "merged"] {
        assert!(runs.at("run").join(made).join("model.safetensors").exists(), "{made}");
    }
    // The third stage is the merge of the base and the second's model.
    runs.succeed("merge --model builtin:tiny --with run/replay/merged --weight 0.5 --out by-hand");
    let bytes = |file: &str| fs::read(runs.at(file).join("model.safetensors")).unwrap();
    assert!(bytes("run/merged") == bytes("by-hand"));
    let settings = fs::read_to_string(runs.at("run/replay/ltrain.toml")).unwrap();
    for line in ["positions = \"natural\"", "rope = \"keep\"", "steps = 1", "lr = 0.00005", "loss = \"all\""] {
        assert!(settings.contains(line), "{line}: {settings}");
    }
    let again = runs.run(&words);
    assert!(again.status.success());
    assert!(String::from_utf8_lossy(&again.stdout).contains("merged is there already"));

    // Another weight merges anew; more steps of the first stage begin the second anew.
    let before = bytes("run/merged");
    runs.succeed(&format!("{words} --weight 1"));
    assert!(bytes("run/merged") == bytes("run/replay/merged") && bytes("run/merged") != before);
    let replayed = bytes("run/replay/merged");
    runs.succeed(&format!("{words} --weight 1").replace("--steps 2", "--steps 3"));
    assert!(bytes("run/replay/merged") != replayed && bytes("run/merged") == bytes("run/replay/merged"));
    // Measuring the first stage anew changes no model, so nothing is trained again.
    let words = format!("{words} --weight 1").replace("--steps 2", "--steps 3");
    let log = || fs::read_to_string(runs.at("run/replay/trainer_log.jsonl")).unwrap();
    let (before, replayed) = (log(), bytes("run/replay/merged"));
    runs.succeed(&words.replace("--eval none", "--eval ppl --eval-at 64"));
    assert_eq!(json(&runs, "run/extend/report.json")["evaluations"][0]["perplexity"][0]["length"], 64);
    assert_eq!(log(), before, "the log has the time of every step");
    // A replay of another model is never merged, not even a complete one that a killed process left.
    let mut stages = json(&runs, "run/stages.json");
    stages["replay_of"] = "another model".into();
    fs::write(runs.at("run/stages.json"), stages.to_string()).unwrap();
    fs::copy(runs.at("run/extend/merged/model.safetensors"), runs.at("run/replay/merged/model.safetensors")).unwrap();
    runs.succeed(&words);
    assert!(bytes("run/replay/merged") == replayed && bytes("run/merged") == replayed && log() != before);
    let other = runs.run("longrecipe --replay-data synthetic:mixed-2048 --out run --weight search --model somewhere --data x");
    assert_eq!(other.status.code(), Some(3), "a search needs a text, and says so first");
}

/// A selection is known by its content: moving the file changes nothing, another content is another run.
#[test]
fn a_run_knows_its_selection() {
    let runs = Runs::new();
    let text: String = (0..400).map(|i| format!("the old river follows the road {} . ", i % 10)).collect();
    fs::write(runs.at("book.txt"), text).unwrap();
    runs.succeed("analyze --model builtin:tiny --against builtin:tiny --data book.txt --seq-len 64 --out a.json");
    let words = |file: &str, steps: u32| {
        format!("--method longrecipe --data book.txt --select {file} {SMALL} --target 512 --steps {steps} --eval none --out run")
    };
    runs.succeed(&words("a.json", 1));
    fs::copy(runs.at("a.json"), runs.at("b.json")).unwrap();
    runs.succeed(&words("b.json", 2));
    let mut other = json(&runs, "a.json");
    other["tokens"] = serde_json::json!([20]);
    fs::write(runs.at("b.json"), other.to_string()).unwrap();
    let refused = runs.run(&words("b.json", 3));
    assert_eq!(refused.status.code(), Some(9), "{}", String::from_utf8_lossy(&refused.stderr));
    // Text that is written as it is needed is no other case.
    let synthetic = |file, steps| words(file, steps).replace("--data book.txt ", "").replace("--out run", "--out synthetic");
    runs.succeed(&synthetic("a.json", 1));
    assert_eq!(runs.run(&synthetic("b.json", 2)).status.code(), Some(9));
}
