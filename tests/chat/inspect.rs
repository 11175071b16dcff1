//! `ltrain data inspect` shows what a run would train on.

use std::fs;

use serde_json::json;

use super::runs::{folder, rows_of};
use super::turns;

#[test]
fn tokens_masks_positions_and_padding_are_shown() {
    let runs = folder();
    let row = json!({"messages": turns(&["hi", "A town.\n"])});
    fs::write(runs.at("chat.jsonl"), format!("{row}\n{}\n", json!({"messages": turns(&["nothing to learn"])}))).unwrap();
    let words = "data inspect --model model --data chat.jsonl --chat-template chatml.jinja --val none --seq-len 64 --target 64 --rope keep";
    let output = runs.run(words);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for line in [
        "data     1 conversations (messages), ",
        "skipped  1 without an answer\n",
        "rows     1 of 64 tokens, ",
        "row 1: 64 tokens, 1 documents, ",
        "  document 1, ",
        "  padding, ",
    ] {
        assert!(text.contains(line), "{line:?} is not in\n{text}");
    }
    let lines: Vec<_> = text.lines().filter(|line| line.starts_with("    ")).collect();
    let [before, answer, after] = lines[..] else { panic!("three runs of tokens in\n{text}") };
    assert!(before.starts_with("    masked  0-") && before.contains("|<|im_start|>|"), "{before}");
    assert!(answer.starts_with("    learned ") && answer.ends_with("|\\n|<|im_end|>|"), "{answer}");
    assert!(after.starts_with("    masked ") && after.ends_with(" |\\n|"), "{after}");
    assert!(!text.contains('\u{1b}'), "colour in a file");
}

#[test]
fn pose_positions_are_those_of_training_and_as_many_rows_as_asked_for() {
    let runs = folder();
    fs::write(runs.at("chat.jsonl"), rows_of("messages", 30)).unwrap();
    let words =
        "data inspect --model model --data chat.jsonl --chat-template llama3.jinja --val none --seq-len 64 --target 1k --rows 3";
    let output = runs.run(words);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.matches("\nrow ").count(), 3, "{text}");
    let position = |line: &str| line.split_whitespace().nth(1)?.split('-').nth(1)?.parse::<u32>().ok();
    let largest = text.lines().filter(|line| line.starts_with("    ")).filter_map(position).max().unwrap();
    assert!((64..1024).contains(&largest), "{largest} in\n{text}");
}

#[test]
fn synthetic_text_has_no_files_to_look_at() {
    let runs = folder();
    let output = runs.run("data inspect");
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).contains("expected files to look at"));
}
