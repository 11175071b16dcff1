use super::*;
use crate::eval::score::Counts;

/// The packages' own values, see `tests/fixtures/make_longbench.py`.
#[test]
fn metrics_are_those_of_the_released_code() {
    #[derive(Deserialize)]
    struct Golden {
        classes: Vec<String>,
        rows: Vec<GoldenRow>,
    }
    #[derive(Deserialize)]
    struct GoldenRow {
        metric: String,
        output: String,
        answer: String,
        score: f64,
    }
    let golden: Golden = serde_json::from_str(include_str!("../../../tests/fixtures/longbench.json")).unwrap();
    assert!(golden.rows.len() > 100);
    for row in &golden.rows {
        let metric: Metric = row.metric.parse().unwrap();
        let score = metric.score(&row.output, &row.answer, &golden.classes);
        let GoldenRow { output, answer, score: wanted, .. } = row;
        assert!((score - wanted).abs() < 1e-12, "{metric} of {output:?} and {answer:?}: {score}, expected {wanted}");
    }
}

/// A file of these lines, read.
fn read_lines(name: &str, lines: &str, most: usize) -> Result<Vec<Questionnaire>> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, lines).unwrap();
    read(&files(&path)?, Metric::RougeL, most)
}

#[test]
fn rows_are_put_together_by_dataset() {
    let line = |dataset: &str, input: &str| {
        let (answers, classes) = (["x", "y"], ["x", "z"]);
        let row = serde_json::json!({"input": input, "context": "C", "answers": answers, "length": 3, "dataset": dataset,
            "language": "en", "all_classes": classes, "_id": "1"});
        row.to_string() + "\n"
    };
    let text = [line("trec", "one"), line("mine", "two"), line("trec", "three"), line("trec", "four")].concat();
    let sets = read_lines("any.jsonl", &text, 2).unwrap();
    assert_eq!(sets.iter().map(|s| (s.name.as_str(), s.rows.len())).collect::<Vec<_>>(), [("trec", 2), ("mine", 1)]);
    let classes = vec!["x".to_string(), "z".into()];
    assert_eq!(sets[0].rows[1].rule, Rule::Best { metric: Metric::Classification, classes, counts: Counts::FirstLine });
    assert!(sets[0].rows[1].prompt.ends_with("questions.\n\nC\nthree"), "{}", sets[0].rows[1].prompt);
    assert_eq!(sets[1].rows[0].prompt, "C\n\ntwo");
    assert!(matches!(sets[1].rows[0].rule, Rule::Best { metric: Metric::RougeL, .. }), "the metric of unknown datasets");
    let unnamed = read_lines("qasper_e.jsonl", r#"{"context": "c", "answers": ["a"], "all_classes": null}"#, 9).unwrap();
    assert_eq!((unnamed[0].name.as_str(), unnamed[0].answer_tokens), ("qasper_e", 128), "a file's name is its dataset");
}

#[test]
fn files_that_are_none_are_refused_with_their_line() {
    let refused = |lines: &str| {
        let error = read_lines("x.jsonl", lines, 9).unwrap_err();
        (crate::error::Explain::explain(&error).code, error.to_string())
    };
    let good = r#"{"context": "c", "answers": ["a"]}"#;
    for (lines, part) in [
        ("", "empty"),
        ("\n\n", "empty"),
        ("{", "line 1"),
        (&format!("{good}\n[1]"), "line 2"),
        (&format!("{good}\n{{\"context\": 3, \"answers\": []}}"), "line 2"),
        (r#"{"context": "c", "answers": []}"#, "\"answers\" is empty"),
        (r#"{"answers": ["a"]}"#, "context"),
        (r#"{"context": "c", "answers": ["a"], "dataset": "trec"}"#, "line 1: nothing can score by classification"),
        (r#"{"context": "c", "answers": ["a"], "dataset": "trec", "all_classes": ["b"]}"#, "all_classes"),
        (
            &format!("{good}\n{{\"context\": \"c\", \"answers\": [\"three\"], \"dataset\": \"passage_count\"}}"),
            "line 2: nothing can",
        ),
        (r#"{"context": "c", "answers": ["12"], "dataset": "passage_retrieval_en"}"#, "Paragraph"),
    ] {
        let (code, text) = refused(lines);
        assert_eq!(code, "E607", "{text}");
        assert!(text.contains(part), "{text}");
    }
    let (code, text) = refused(r#"{"context": "c", "answers": ["a"], "dataset": "vcsum"}"#);
    assert_eq!(code, "E335");
    assert!(text.contains("vcsum"), "{text}");
    let empty = tempfile::tempdir().unwrap();
    assert_eq!(crate::error::Explain::explain(&files(empty.path()).unwrap_err()).code, "E607");
}
