//! A run that is interrupted anywhere and started again ends with the same weights, to the bit.

mod common;

use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::{Duration, Instant};

use common::runs::{FULL, LORA, Runs, entries, leftovers, stderr, tree};
use ltrain::rng::{Rng, Stream};

const PATIENCE: Duration = Duration::from_secs(120);

/// Waits for something that a run does.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "{what} did not happen");
        sleep(Duration::from_millis(1));
    }
}

fn terminate(child: &Child) {
    let killed = Command::new("sh").args(["-c", &format!("kill -TERM {}", child.id())]).status().unwrap();
    assert!(killed.success());
}

/// Starts a run that has hundreds of steps before it, and stops it by a signal in the middle.
fn stop_midway(runs: &Runs, words: &str, out: &str) {
    let mut child = runs.start(words);
    until("the first checkpoint", || !runs.checkpoints(out).is_empty());
    terminate(&child);
    assert_eq!(child.wait().unwrap().code(), Some(75), "{words}");
}

#[test]
fn ten_steps_are_five_and_five_more() {
    for mode in [FULL, LORA] {
        let runs = Runs::new();
        runs.succeed(&format!("{mode} --steps 10 --out whole"));
        runs.succeed(&format!("{mode} --steps 5 --out parts"));
        assert_ne!(runs.weights("parts"), runs.weights("whole"));
        let text = runs.succeed(&format!("{mode} --steps 10 --out parts"));
        assert!(text.contains("continuing from parts/checkpoint-5 (step 5)"), "{text}");
        assert_eq!(runs.weights("parts"), runs.weights("whole"), "{mode}");
    }
}

#[test]
fn a_run_killed_at_any_moment_ends_with_the_same_weights() {
    let runs = Runs::new();
    let words = |out: &str| format!("{FULL} --steps 24 --save-every 2 --out {out}");
    let start = Instant::now();
    runs.succeed(&words("whole"));
    let whole = start.elapsed();
    let mut rng = Rng::at(7, Stream::Init, 0);
    let (mut kills, mut folder) = (0, 0);
    while kills < 20 {
        folder += 1;
        let out = format!("killed-{folder}");
        loop {
            let mut child = runs.start(&words(&out));
            sleep(whole.mul_f64(0.8 * rng.uniform()));
            if let Some(status) = child.try_wait().unwrap() {
                assert!(status.success(), "{out} after {kills} kills: {status}");
                break;
            }
            child.kill().unwrap();
            // It may have come to its end a moment before.
            kills += u32::from(!child.wait().unwrap().success());
        }
        assert_eq!(runs.weights(&out), runs.weights("whole"), "{out} after {kills} kills");
        assert_eq!(leftovers(&runs.at(&out)), [] as [&Path; 0]);
        assert!(runs.at(&out).join("report.json").exists());
    }
}

#[test]
fn a_run_killed_while_it_writes_a_checkpoint_ends_with_the_same_weights() {
    let runs = Runs::new();
    let words = |out: &str| format!("{FULL} --steps 24 --save-every 2 --out {out}");
    runs.succeed(&words("whole"));
    let out = runs.at("killed");
    let half = || entries(&out).into_iter().find(|n| n.starts_with("checkpoint-") && n.contains(".tmp-"));
    let mut rng = Rng::at(8, Stream::Init, 0);
    let (mut inside, mut steps) = (0, Vec::new());
    for _ in 0..100 {
        let mut child = runs.start(&words("killed"));
        let pid = format!("-{}", child.id());
        // The first, second or third that this process writes.
        let wanted = 1 + rng.below(3);
        let mut seen: Vec<String> = Vec::new();
        let ended = loop {
            if let Some(name) = half().filter(|name| name.ends_with(&pid) && !seen.contains(name)) {
                seen.push(name);
            }
            if seen.len() as u64 == wanted {
                break None;
            }
            if let Some(status) = child.try_wait().unwrap() {
                break Some(status);
            }
        };
        child.kill().unwrap();
        child.wait().unwrap();
        if let Some(name) = half() {
            inside += 1;
            steps.push(name);
        }
        match ended {
            Some(status) => assert!(status.success(), "{status} after {steps:?}"),
            None if inside < 6 => continue,
            None => {}
        }
        if inside >= 6 {
            break;
        }
        fs::remove_dir_all(&out).unwrap();
    }
    assert!(inside >= 6, "only {inside} kills landed inside a checkpoint: {steps:?}");
    runs.succeed(&words("killed"));
    assert_eq!(runs.weights("killed"), runs.weights("whole"), "{steps:?}");
    assert_eq!(leftovers(&out), [] as [&Path; 0]);
}

#[test]
fn a_terminated_run_saves_its_step_and_continues() {
    for mode in [FULL, LORA] {
        let runs = Runs::new();
        let words = |out: &str| format!("{mode} --steps 120 --save-every 10 --log-every 1 --out {out}");
        runs.succeed(&words("whole"));
        stop_midway(&runs, &words("stopped"), "stopped");
        let steps = runs.checkpoints("stopped");
        let last = *steps.last().unwrap();
        assert!(last < 120, "stopped too late: {steps:?}");
        assert!(runs.at(format!("stopped/checkpoint-{last}/COMPLETE")).exists());
        let log = fs::read_to_string(runs.at("stopped/trainer_log.jsonl")).unwrap();
        let line: serde_json::Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
        assert_eq!(line["current_steps"], last, "the log and the checkpoint end at the same step");
        assert!(!runs.at("stopped/merged").exists() && !runs.at("stopped/report.json").exists());

        let text = runs.succeed(&words("stopped"));
        assert!(text.contains(&format!("continuing from stopped/checkpoint-{last} (step {last})")), "{text}");
        assert_eq!(runs.weights("stopped"), runs.weights("whole"), "{mode}");
        let log = fs::read_to_string(runs.at("stopped/trainer_log.jsonl")).unwrap();
        let logged: Vec<u64> = log
            .lines()
            .map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap()["current_steps"].as_u64().unwrap())
            .collect();
        assert_eq!(logged, (1..=120).collect::<Vec<_>>());
        assert_eq!(entries(&runs.at("stopped/runs")).len(), 1, "TensorBoard shows one run");
    }
}

/// Makes a finished run look like one that was killed before its report.
fn unfinish(runs: &Runs, out: &str) {
    fs::remove_file(runs.at(out).join("report.json")).unwrap();
    fs::remove_dir_all(runs.at(out).join("merged")).unwrap();
}

#[test]
fn a_damaged_checkpoint_is_passed_over_for_the_one_before() {
    let runs = Runs::new();
    let words = format!("{FULL} --steps 8 --save-every 2 --keep 2 --out run");
    runs.succeed(&words);
    let weights = runs.weights("run");
    let cut = |name: &str, keep: usize| {
        let path = runs.at("run/checkpoint-8").join(name);
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..keep.min(bytes.len() - 1)]).unwrap();
    };
    let flip = |name: &str| {
        let path = runs.at("run/checkpoint-8").join(name);
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, bytes).unwrap();
    };
    let damages: [(&str, &dyn Fn()); 6] = [
        ("optimizer.safetensors has 1000 bytes", &|| cut("optimizer.safetensors", 1000)),
        ("optimizer.safetensors was changed", &|| flip("optimizer.safetensors")),
        ("model.safetensors was changed", &|| flip("model.safetensors")),
        ("has no COMPLETE file", &|| fs::remove_file(runs.at("run/checkpoint-8/COMPLETE")).unwrap()),
        ("COMPLETE: ", &|| cut("COMPLETE", 0)),
        ("state.json is missing", &|| fs::remove_file(runs.at("run/checkpoint-8/state.json")).unwrap()),
    ];
    for (remark, damage) in damages {
        unfinish(&runs, "run");
        damage();
        let text = runs.succeed(&words);
        assert!(
            text.contains("ignored an incomplete checkpoint: ") && text.contains(remark),
            "{remark:?} is missing in:\n{text}"
        );
        assert!(text.contains("continuing from run/checkpoint-6 (step 6)"), "{text}");
        assert_eq!(runs.weights("run"), weights, "{remark}");
        assert_eq!(runs.checkpoints("run"), [6, 8]);
    }
    for step in [6, 8] {
        fs::write(runs.at(format!("run/checkpoint-{step}/COMPLETE")), "[").unwrap();
    }
    unfinish(&runs, "run");
    assert!(!runs.succeed(&words).contains("continuing"), "no checkpoint is left");
    assert_eq!(runs.weights("run"), weights);
}

#[test]
fn a_damaged_later_checkpoint_does_not_push_out_good_ones() {
    let runs = Runs::new();
    let words = format!("{FULL} --steps 400 --save-every 3 --keep 1 --out run");
    stop_midway(&runs, &words, "run");
    // As if the run had come further and its last checkpoint had been damaged.
    fs::create_dir(runs.at("run/checkpoint-399")).unwrap();
    let before = *runs.checkpoints("run").first().unwrap();
    let mut child = runs.start(&words);
    until("the next checkpoint", || runs.checkpoints("run")[0] > before);
    terminate(&child);
    child.wait().unwrap();
    assert_eq!(runs.checkpoints("run").len(), 2);
    assert!(runs.succeed(&words).contains("continuing from"));
}

#[test]
fn another_configuration_is_refused_with_a_table() {
    let runs = Runs::new();
    let words = format!("{FULL} --steps 4 --out run");
    runs.succeed(&words);
    let before = tree(&runs.at("run"));
    let other = words.replace("facts-64", "facts-128");
    let output = runs.run(&format!("{other} --lr 3e-3 --seed 5"));
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(9), "{text}");
    let rows: Vec<Vec<&str>> = text.lines().map(|l| l.split_whitespace().collect()).collect();
    assert!(text.starts_with("error[E901]: \"run\" was started with a different configuration"), "{text}");
    for row in [["setting", "then", "now"], ["lr", "0.001", "0.003"], ["seed", "42", "5"]] {
        assert!(rows.iter().any(|r| r == &row), "{row:?} is missing in:\n{text}");
    }
    assert!(text.contains("data (hash)") && text.contains("help: use the old values"), "{text}");
    assert_eq!(tree(&runs.at("run")), before, "nothing was touched");
}

#[test]
fn free_settings_may_change() {
    let runs = Runs::new();
    let words = format!("{FULL} --steps 6 --out run");
    runs.succeed(&words);
    let weights = runs.weights("run");
    unfinish(&runs, "run");
    runs.succeed(&format!("{words} --save-every 1 --keep 5 --log-every 2 --progress plain --recompute layers"));
    assert_eq!(runs.weights("run"), weights);
    // What ends the run is done again when it is to end otherwise.
    runs.succeed(&format!("{words} --save-dtype bf16"));
    assert!(runs.weights("run").len() < weights.len());
    runs.succeed(&words.replace("--eval none", "--eval ppl --eval-at 32"));
    let report = fs::read_to_string(runs.at("run/report.json")).unwrap();
    assert!(report.contains("\"length\": 32"), "{report}");
}

#[test]
fn a_finished_run_is_left_as_it_is() {
    let runs = Runs::new();
    let words = format!("{FULL} --steps 4 --out run").replace("--eval none", "--eval ppl --eval-at 32,64");
    runs.succeed(&words);
    let before = tree(&runs.at("run"));
    let text = runs.succeed(&words);
    assert!(text.contains("run is finished; its report is run/report.html"), "{text}");
    assert_eq!(tree(&runs.at("run")), before);
    // More steps are more work: old measurements of the result do not count.
    runs.succeed(&words.replace("--steps 4", "--steps 8"));
    let now = tree(&runs.at("run"));
    let after = runs.at("run/eval/after.json");
    assert_ne!(now[&after], before[&after]);
}

#[test]
fn a_run_that_was_on_a_gpu_goes_on_on_the_cpu_only_when_told_to_and_is_measured_again() {
    let runs = Runs::new();
    let words = |steps| format!("{FULL} --steps {steps} --out run").replace("--eval none", "--eval ppl --eval-at 32");
    runs.succeed(&words(4));
    let measured = fs::read_to_string(runs.at("run/eval/before.json")).unwrap();
    for file in ["run/run.json", "run/eval/before.json"] {
        let text = fs::read_to_string(runs.at(file)).unwrap();
        assert_eq!(text.matches("\"cpu\"").count(), 1, "{file}: {text}");
        fs::write(runs.at(file), text.replace("\"cpu\"", "\"NVIDIA Imaginary\"")).unwrap();
    }
    assert!(runs.succeed(&words(4)).contains("run is finished"), "nothing is left to do anywhere");
    let before = tree(&runs.at("run"));
    let output = runs.run(&words(8));
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(9), "{text}");
    assert!(text.starts_with("error[E904]: \"run\" was begun on NVIDIA Imaginary, and --gpus auto finds no GPU"), "{text}");
    assert!(text.contains("now: cpu (") && text.contains("--gpus 0 to go on on the CPU"), "{text}");
    assert_eq!(tree(&runs.at("run")), before, "nothing was touched");

    let text = runs.succeed(&format!("{} --gpus 0", words(8)));
    assert!(text.contains("warning: this run was on NVIDIA Imaginary and goes on on cpu: "), "{text}");
    assert!(text.contains("run/eval/before.json is of another device: measuring again on cpu"), "{text}");
    assert_eq!(fs::read_to_string(runs.at("run/eval/before.json")).unwrap(), measured);
    let report = fs::read_to_string(runs.at("run/report.json")).unwrap();
    assert!(report.contains("; before it was continued there: NVIDIA Imaginary\""), "{report}");
    // Once it is on the CPU it stays there without a word.
    assert!(!runs.succeed(&words(9)).contains("warning"));
}

#[test]
fn overwrite_starts_anew() {
    let runs = Runs::new();
    runs.succeed(&format!("{FULL} --steps 4 --out fresh"));
    runs.succeed(&format!("{FULL} --steps 6 --lr 1e-2 --out run"));
    let text = runs.succeed(&format!("{FULL} --steps 4 --out run --overwrite"));
    assert!(!text.contains("continuing"), "{text}");
    assert_eq!(runs.weights("run"), runs.weights("fresh"));
    assert_eq!(runs.checkpoints("run"), [4]);
    let log = |out: &str| fs::read_to_string(runs.at(out).join("trainer_log.jsonl")).unwrap().lines().count();
    assert_eq!(log("run"), log("fresh"));
}

#[test]
fn overwrite_never_touches_what_is_not_a_run() {
    let runs = Runs::new();
    fs::create_dir(runs.at("mine")).unwrap();
    fs::write(runs.at("mine/thesis.txt"), "years of work").unwrap();
    let output = runs.run(&format!("{FULL} --steps 2 --out mine --overwrite"));
    assert_eq!(output.status.code(), Some(7), "{}", stderr(&output));
    assert!(stderr(&output).contains("error[E703]"));
    assert_eq!(entries(&runs.at("mine")), ["thesis.txt"]);
}

#[test]
fn two_processes_never_share_a_folder() {
    let runs = Runs::new();
    let words = format!("{FULL} --steps 100000 --out run");
    let mut first = runs.start(&words);
    until("the first run's start", || runs.at("run/trainer_log.jsonl").exists());
    let second = runs.run(&words);
    first.kill().unwrap();
    first.wait().unwrap();
    assert_eq!(second.status.code(), Some(7), "{}", stderr(&second));
    assert!(stderr(&second).starts_with("error[E704]: another ltrain is working in \"run\""), "{}", stderr(&second));
}

#[test]
fn without_out_the_same_command_continues_and_others_get_their_own_folder() {
    let runs = Runs::new();
    let words = |lr: &str| format!("{FULL} --steps 200 --save-every 10 --lr {lr}");
    let folders = || {
        let mut names = entries(&runs.at("runs"));
        names.sort();
        names
    };
    runs.succeed(&format!("{FULL} --steps 4"));
    assert_eq!(folders(), ["small-natural-64"]);
    runs.succeed(&format!("{FULL} --steps 4"));
    assert_eq!(folders(), ["small-natural-64", "small-natural-64-2"]);

    stop_midway(&runs, &words("1e-3"), "runs/small-natural-64-3");
    let text = runs.succeed(&words("1e-3"));
    assert!(text.contains("continuing from runs/small-natural-64-3/checkpoint-"), "{text}");
    assert_eq!(folders().len(), 3);
    // A run's own settings lead back to its folder.
    let text = runs.succeed("--config runs/small-natural-64-3/ltrain.toml");
    assert!(text.contains("small-natural-64-3 is finished"), "{text}");
}

#[test]
fn a_named_checkpoint_is_where_a_new_run_begins_and_nothing_more() {
    let runs = Runs::new();
    let words = |out: &str| format!("{FULL} --steps 300 --save-every 10 --resume first --out {out}");
    runs.succeed(&format!("{FULL} --steps 5 --out first"));
    let text = runs.succeed(&words("whole"));
    assert!(text.contains("continuing from first/checkpoint-5 (step 5)"), "{text}");

    stop_midway(&runs, &words("stopped"), "stopped");
    let last = *runs.checkpoints("stopped").last().unwrap();
    let text = runs.succeed(&words("stopped"));
    assert!(text.contains(&format!("continuing from stopped/checkpoint-{last} ")), "{text}");
    assert_eq!(runs.weights("stopped"), runs.weights("whole"));
}

#[test]
fn a_named_checkpoint_of_another_configuration_is_refused() {
    let runs = Runs::new();
    runs.succeed(&format!("{FULL} --steps 5 --out first"));
    for from in ["first", "first/checkpoint-5"] {
        let output = runs.run(&format!("{FULL} --steps 9 --lr 3e-5 --resume {from} --out second"));
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(9), "{text}");
        assert!(text.contains("error[E901]: \"first\"") && text.contains("0.00003"), "{text}");
    }
}

#[test]
fn fewer_steps_than_were_trained_are_refused() {
    let runs = Runs::new();
    runs.succeed(&format!("{FULL} --steps 6 --out run"));
    let before = tree(&runs.at("run"));
    let output = runs.run(&format!("{FULL} --steps 4 --out run"));
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(9), "{text}");
    assert!(text.lines().any(|l| l.split_whitespace().eq(["steps", "6", "trained", "4"])), "{text}");
    assert_eq!(tree(&runs.at("run")), before, "nothing was touched");
}

#[test]
fn more_steps_need_no_other_setting() {
    let runs = Runs::new();
    let words = FULL.replace("--warmup 2 ", "");
    runs.succeed(&format!("{words} --steps 10 --out run"));
    let text = runs.succeed(&format!("{words} --steps 20 --out run"));
    assert!(text.contains("continuing from run/checkpoint-10 (step 10)"), "{text}");
    let output = runs.run(&format!("{words} --steps 30 --warmup 1 --out run"));
    assert!(stderr(&output).contains("warmup"), "a warm-up that was asked for is a setting: {}", stderr(&output));
}

#[test]
fn the_written_settings_continue_the_run_that_overwrote_another() {
    let runs = Runs::new();
    runs.succeed(&format!("{FULL} --steps 2 --out run"));
    runs.succeed(&format!("{FULL} --steps 4 --out run --overwrite"));
    unfinish(&runs, "run");
    let text = runs.succeed("--config run/ltrain.toml");
    assert!(text.contains("run/checkpoint-4 (step 4)"), "{text}");
}

#[test]
fn e2_llm_is_validated_and_controlled_under_the_extended_rotation() {
    let runs = Runs::new();
    let small = "--data synthetic:facts-64 --seq-len 64 --target 512 --micro-batch 2 --accum 1 --steps 1 --lr 1e-12 --eval ppl --eval-at 512";
    runs.succeed(&format!("{small} --method e2-llm --eval-every 1 --control --out e2"));
    runs.succeed(&format!("{small} --positions natural --rope linear --no-control --out natural"));
    let last = |file: &str, key: &str| -> f64 {
        let text = fs::read_to_string(runs.at(file)).unwrap();
        let lines = text.lines().map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap());
        lines.filter_map(|l| l[key].as_f64()).next_back().unwrap_or_else(|| panic!("{file} has no {key}:\n{text}"))
    };
    // The rate is too small to change a weight.
    let text = fs::read_to_string(runs.at("e2/eval/rope_only.json")).unwrap();
    let under_target: serde_json::Value = serde_json::from_str(&text).unwrap();
    let nll = under_target["perplexity"][0]["nll"].as_f64().unwrap();
    assert!((last("e2/trainer_log.jsonl", "eval_loss") - nll).abs() < 1e-6, "{nll} {text}");
    assert_eq!(last("e2/control/trainer_log.jsonl", "loss"), last("natural/trainer_log.jsonl", "loss"));
    assert_ne!(last("e2/trainer_log.jsonl", "loss"), last("natural/trainer_log.jsonl", "loss"));
}
