//! Is what a run leaves behind readable, honest about missing values, and safe to open?

use std::fs;
use std::path::PathBuf;

use ltrain::report::charts::{LineChart, Series, Stroke};
use ltrain::report::log::TrainerState;
use ltrain::report::record::*;
use ltrain::report::table::{Colour, Comparison};
use ltrain::report::tasks;
use ltrain::report::tensorboard::EventWriter;
use ltrain::report::verdict::{Outcome, Verdict};
use ltrain::report::{self, axis::Axis, clock, figures, html, load, run_readme};

mod example;
mod logs;

use example::{bare, example};

fn all_output(run: &RunRecord) -> Vec<(String, String)> {
    let dir = tempfile::tempdir().expect("temporary folder");
    let written = report::write(dir.path(), run).expect("the report is written");
    let name = |p: &PathBuf| p.file_name().expect("a file").to_string_lossy().into_owned();
    written.iter().map(|p| (name(p), fs::read_to_string(p).expect("UTF-8"))).collect()
}

/// Panics unless every tag is closed in order and every `<`, `&` and quote in text is escaped.
fn assert_well_formed(what: &str, text: &str) {
    const VOID: [&str; 2] = ["meta", "br"];
    let mut open: Vec<String> = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find('<') {
        check_entities(what, &rest[..start]);
        let tag = &rest[start..];
        assert!(!tag.starts_with("<script"), "{what}: a script");
        let end = tag.find('>').unwrap_or_else(|| panic!("{what}: unclosed tag {:?}", &tag[..tag.len().min(60)]));
        let inner = &tag[1..end];
        let name: String = inner.trim_start_matches('/').chars().take_while(|c| c.is_ascii_alphanumeric()).collect();
        if inner.starts_with('/') {
            assert_eq!(open.pop().as_deref(), Some(name.as_str()), "{what}: mismatched {inner:?}");
        } else if !inner.starts_with('!') && !inner.ends_with('/') && !VOID.contains(&name.as_str()) {
            assert!(!name.is_empty(), "{what}: stray < before {inner:?}");
            assert_eq!(inner.matches('"').count() % 2, 0, "{what}: odd quotes in {inner:?}");
            open.push(name);
        }
        rest = &tag[end + 1..];
    }
    assert!(open.is_empty(), "{what}: never closed: {open:?}");
}

fn check_entities(what: &str, text: &str) {
    for after in text.split('&').skip(1) {
        let entity = after.split(';').next().unwrap_or_default();
        assert!(["amp", "lt", "gt", "quot", "#39"].contains(&entity), "{what}: bare & before {entity:?}");
    }
}

fn assert_no_garbage(what: &str, text: &str) {
    for garbage in ["NaN", "\"inf\"", "\"-inf\"", "-0\"", "infinity"] {
        assert!(!text.contains(garbage), "{what} contains {garbage}");
    }
}

#[test]
fn page_and_plots_are_well_formed_and_complete() {
    let output = all_output(&example());
    let names: Vec<_> = output.iter().map(|o| o.0.as_str()).collect();
    for name in [
        "training_loss",
        "perplexity",
        "loss_by_position",
        "passkey_before",
        "passkey_rope_only",
        "passkey_after",
        "passkey_control",
        "niah_before",
        "niah_after",
        "coverage",
        "gradient_norm",
        "learning_rate",
        "throughput",
        "memory",
    ] {
        assert!(names.contains(&format!("{name}.svg").as_str()), "{name}.svg is missing");
    }
    let figures = output[1].1.matches("<svg").count();
    assert_eq!(names.iter().filter(|name| name.ends_with(".svg")).count(), figures, "page and files show the same figures");
    for (name, text) in output.iter().filter(|o| o.0.ends_with(".html") || o.0.ends_with(".svg")) {
        assert_well_formed(name, text);
        assert_no_garbage(name, text);
        assert!(!text.contains("var(--") || name.ends_with(".html"), "{name}: SVG files must not need CSS variables");
    }
    let page = &output[1].1;
    for outside in ["src=\"http", "href=\"http", "url(", "@import"] {
        assert!(!page.contains(outside), "the page fetches something: {outside}");
    }
}

#[test]
fn output_is_the_same_every_time() {
    assert_eq!(all_output(&example()), all_output(&example()));
}

#[test]
fn a_record_survives_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("report.json");
    let mut run = example();
    run.steps[3].loss = f64::NAN;
    run.evaluations[0].perplexity[0].ppl = f64::NAN;
    run.evaluations[1].buckets[0].nll = f64::INFINITY;
    run.save(&path).unwrap();
    let back = RunRecord::load(&path).unwrap();
    assert!(back.steps[3].loss.is_nan() && back.evaluations[0].perplexity[0].ppl.is_nan());
    assert_eq!(back.steps[4].loss, run.steps[4].loss);
    assert_eq!(back.coverage, run.coverage);
    assert_eq!(html::page(&back), html::page(&run), "a page drawn later differs");
}

#[test]
fn hostile_text_is_shown_not_executed() {
    let hostile = "<script>alert('1')</script> & \"x\" | `y` \u{1b}[31m\u{0}]]> --> {{z}}";
    let mut run = example();
    run.model.name = hostile.into();
    run.model.rope = hostile.into();
    run.method.positions = hostile.into();
    run.method.data = hostile.into();
    run.origin.command = hostile.into();
    run.origin.version = hostile.into();
    run.export.base = hostile.into();
    run.export.merged = Some(hostile.into());
    run.export.adapter = Some(hostile.into());
    run.settings.push(Setting { key: hostile.into(), value: hostile.into() });
    run.notes.push(hostile.into());
    for e in &mut run.evaluations {
        e.name = hostile.into();
    }
    for (name, text) in all_output(&run) {
        if name.ends_with(".html") || name.ends_with(".svg") {
            assert_well_formed(&name, &text);
        }
        if name.ends_with(".html") {
            assert!(text.contains("&lt;script&gt;alert("), "{name}: the name is not shown");
        }
        assert!(!text.contains('\u{1b}') && !text.contains('\u{0}'), "{name}: a control character came through");
    }
    let table = Comparison::new(&run.evaluations, 512).terminal(Colour::Never);
    assert!(!table.contains('\u{1b}'), "a name reached the terminal as an escape sequence");
    let vllm = &load::snippets(&run)[1].code;
    assert!(vllm.contains(r#"vllm serve '<script>alert('\''1'\'')</script>"#), "unquoted in a shell: {vllm}");
}

#[test]
fn missing_and_broken_values_never_panic_nor_draw_garbage() {
    let bad = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -1.0, 1e308, f64::MIN_POSITIVE];
    let mut runs = vec![RunRecord::default(), bare()];
    for v in bad {
        let mut run = example();
        for s in &mut run.steps {
            (s.loss, s.grad_norm, s.lr, s.tokens_per_second) = (v, v, v, v);
            (s.seconds, s.epoch) = (v, v);
        }
        for e in &mut run.evaluations {
            e.perplexity.iter_mut().for_each(|s| s.ppl = v);
            e.buckets.iter_mut().for_each(|b| b.nll = v);
            e.ruler.iter_mut().chain(&mut e.longbench).for_each(|s| (s.score, s.error, s.tokens) = (v, v, v));
            for grid in [&mut e.passkey, &mut e.niah].into_iter().flatten() {
                grid.accuracy.iter_mut().flatten().for_each(|a| *a = v);
            }
        }
        runs.push(run.clone());
        run.steps.truncate(1);
        run.steps[0].loss = 2.0;
        run.coverage = Some(vec![CoverageRecord::default()]);
        run.evaluations.truncate(1);
        run.evaluations[0].passkey = Some(Grid { lengths: vec![512, 1024], depths: vec![0.0, 0.5], ..Grid::default() });
        runs.push(run);
    }
    for run in &runs {
        for (name, text) in all_output(run) {
            if name.ends_with(".html") || name.ends_with(".svg") {
                assert_well_formed(&name, &text);
                assert_no_garbage(&name, &text);
            }
        }
        let _ = Comparison::new(&run.evaluations, run.model.context).terminal(Colour::Ansi);
    }
}

#[test]
fn a_step_that_is_not_finite_is_marked_and_breaks_the_line() {
    let mut run = example();
    run.steps[100].loss = f64::NAN;
    let svg = figures::training_loss(&run).expect("there are steps").inline();
    assert!(svg.contains("c-gap") && svg.contains("not finite"));
    let clean = figures::training_loss(&example()).expect("there are steps").inline();
    assert!(!clean.contains("c-gap"));
    let moves = |s: &str| s.lines().find(|l| l.contains("c-faint")).map_or(0, |l| l.matches('M').count());
    assert_eq!((moves(&clean), moves(&svg)), (1, 2));
}

#[test]
fn long_runs_keep_their_spikes_and_stay_small() {
    let mut points: Vec<_> = (0..200_000).map(|i| (f64::from(i), 2.0)).collect();
    points[123_456].1 = 50.0;
    let series = vec![Series { name: "loss".into(), points, colour: 2, stroke: Stroke::Faint }];
    let (x, y) = (Axis::linear("step"), Axis::linear("loss"));
    let svg = LineChart { title: "long".into(), x, y, series, rules: vec![] }.draw().inline();
    assert!(svg.len() < 40_000, "{} bytes", svg.len());
    let line = svg.lines().find(|l| l.contains("c-faint") && l.contains("<path")).expect("a line");
    let heights: Vec<f64> =
        line.split(['M', 'L']).filter_map(|p| p.split(' ').nth(1)?.trim_end_matches("\"/>").parse().ok()).collect();
    let top = heights.iter().copied().fold(f64::INFINITY, f64::min);
    assert!(top < 80.0, "the spike is gone: {top}");
}

#[test]
fn the_verdict_follows_from_the_numbers() {
    let run = example();
    let verdict = Verdict::of(&run);
    assert_eq!(verdict.outcome, Outcome::Partly);
    assert_eq!(
        verdict.sentence(),
        "perplexity at 8k: 156.0 → 6.90, control 31.4; passkey at 4k: 0 % → 93 %, control 6 %; \
         short context (512): 5.08 → 5.31, +4.5 %"
    );
    let mut good = example();
    good.evaluations[2].perplexity.iter_mut().for_each(|s| s.ppl = 5.0);
    assert_eq!(Verdict::of(&good).outcome, Outcome::Extended);
    let mut worse = example();
    worse.evaluations[2] = EvalRecord { role: Role::After, ..worse.evaluations[0].clone() };
    assert_eq!(Verdict::of(&worse).outcome, Outcome::NotExtended);
    let mut unfinished = example();
    unfinished.evaluations.truncate(2);
    assert_eq!(Verdict::of(&unfinished).outcome, Outcome::Unmeasured);
    let mut speechless = example();
    for evaluation in &mut speechless.evaluations {
        let grid = evaluation.passkey.as_mut().unwrap();
        grid.accuracy.iter_mut().flatten().for_each(|share| *share = 0.0);
    }
    let sentence = Verdict::of(&speechless).sentence();
    assert!(!sentence.contains("passkey"), "a task that the base never solves says nothing: {sentence}");
    speechless.evaluations[0].passkey = example().evaluations[0].passkey.clone();
    assert!(Verdict::of(&speechless).sentence().contains("→ 0 %"), "a skill that was lost does");
    let mut overflown = example();
    overflown.evaluations[2].perplexity.iter_mut().for_each(|s| s.ppl = f64::INFINITY);
    assert_ne!(Verdict::of(&overflown).outcome, Outcome::Extended);
}

#[test]
fn tables_are_aligned() {
    let run = example();
    let table = Comparison::new(&run.evaluations, run.model.context).terminal(Colour::Never);
    let expected = "
                           │ perplexity
                           │        512          1k          2k          4k           8k
───────────────────────────┼────────────────────────────────────────────────────────────
base                       │ 5.08 ±0.05  14.9 ±0.15  52.3 ±0.52  98.0 ±0.98  156.0 ±1.56
base + yarn ×16            │ 7.94 ±0.08  8.41 ±0.08  10.2 ±0.10  14.6 ±0.15   22.7 ±0.23
after pose                 │ 5.31 ±0.05  5.28 ±0.05  5.44 ±0.05  6.02 ±0.06   6.90 ±0.07
after contiguous (control) │ 5.12 ±0.05  7.70 ±0.08  12.8 ±0.13  20.1 ±0.20   31.4 ±0.31

                           │ passkey                              │ niah
                           │      512        1k       2k       4k │      512        1k
───────────────────────────┼──────────────────────────────────────┼───────────────────
base                       │  95 % ±2    4 % ±2   0 % ±0   0 % ±0 │  95 % ±5    4 % ±4
base + yarn ×16            │  70 % ±5   50 % ±5  22 % ±4   5 % ±2 │ 70 % ±10  50 % ±11
after pose                 │ 100 % ±0  100 % ±0  98 % ±1  93 % ±3 │ 100 % ±0  100 % ±0
after contiguous (control) │  99 % ±1   62 % ±5  20 % ±4   6 % ±2 │  99 % ±2  62 % ±11

                           │ RULER                                        │ RULER     │ LongBench │ short context
                           │        512          1k         2k         4k │ effective │        4k │        change
───────────────────────────┼──────────────────────────────────────────────┼───────────┼───────────┼──────────────
base                       │  95.0 ±1.4    4.0 ±1.4   0.0 ±1.4   0.0 ±1.4 │       512 │ 25.0 ±1.4 │             –
base + yarn ×16            │  70.0 ±1.4   50.0 ±1.4  22.0 ±1.4   5.0 ±1.4 │      none │ 27.5 ±1.4 │  +56.3 % ±0.2
after pose                 │ 100.0 ±1.4  100.0 ±1.4  98.0 ±1.4  93.0 ±1.4 │        4k │ 71.5 ±1.4 │   +4.5 % ±0.1
after contiguous (control) │  99.0 ±1.4   62.0 ±1.4  20.0 ±1.4   6.0 ±1.4 │       512 │ 28.0 ±1.4 │   +0.8 % ±0.2
";
    assert_eq!(table, expected[1..], "\n{table}");
    let bars = |line: &str| -> Vec<usize> {
        line.chars().enumerate().filter(|(_, c)| matches!(c, '│' | '┼')).map(|(i, _)| i).collect()
    };
    let uneven = EvalRecord {
        name: "one length".into(),
        perplexity: vec![LengthScore { length: 65_536, ppl: 1e9, ..LengthScore::default() }],
        ..EvalRecord::default()
    };
    let base = &run.evaluations[0];
    let plain = EvalRecord { perplexity: base.perplexity.clone(), passkey: None, ..EvalRecord::default() };
    let wide = Comparison::new(&[plain, uneven], 512).terminal(Colour::Never);
    let first = bars(wide.lines().next().unwrap_or_default());
    assert!(wide.lines().all(|l| bars(l) == first), "misaligned:\n{wide}");
    assert_eq!(Comparison::new(&[], 512).terminal(Colour::Ansi), "");
}

#[test]
fn tasks_have_tables_of_their_own_and_a_note_of_samples() {
    let run = example();
    let tables: Vec<String> = tasks::details(&run.evaluations[2..3]).iter().map(|t| t.terminal(Colour::Never)).collect();
    assert_eq!(tables.len(), 4, "two grids, RULER and LongBench");
    let ruler = "
RULER
              │        512          1k         2k         4k
──────────────┼─────────────────────────────────────────────
niah_single_2 │ 100.0 ±2.0  100.0 ±2.0  98.0 ±2.0  93.0 ±2.0
vt            │ 100.0 ±2.0  100.0 ±2.0  98.0 ±2.0  93.0 ±2.0
average       │ 100.0 ±1.4  100.0 ±1.4  98.0 ±1.4  93.0 ±1.4
";
    assert_eq!(tables[2], ruler[1..], "\n{}", tables[2]);
    assert!(tables[3].contains("mean: code          │ 50.0 ±2.0"), "{}", tables[3]);
    // (93 + 50) / 2, and √(2²+2²)/2.
    assert!(tables[3].contains("average of means    │ 71.5 ±1.4"), "{}", tables[3]);
    let notes = tasks::notes(&run.evaluations).join("\n");
    for part in [
        "perplexity: 8 to 128 windows",
        "passkey: 20 prompts at each of 5 depths",
        "RULER: 20 samples",
        "2 of 13 tasks",
        "seed 42",
    ] {
        assert!(notes.contains(part), "{part:?} is missing in:\n{notes}");
    }
    let page = html::page(&run);
    assert!(page.contains("niah_single_2") && page.contains("<small>±2.0</small>") && page.contains("Needles in a haystack"));
    assert_eq!(tasks::effective(&run.evaluations[2]), "4k");
    assert_eq!((tasks::effective(&run.evaluations[1]), tasks::effective(&EvalRecord::default())), ("none".into(), "–".into()));
}

#[test]
fn colour_only_adds_colour() {
    let table = Comparison::new(&example().evaluations, 512);
    let mut stripped = table.terminal(Colour::Ansi);
    while let Some(start) = stripped.find('\u{1b}') {
        let end = start + stripped[start..].find('m').unwrap();
        stripped.replace_range(start..=end, "");
    }
    assert_eq!(stripped, table.terminal(Colour::Never));
}

#[test]
fn measurements_are_tables_too() {
    let mut run = example();
    run.evaluations.truncate(2);
    run.evaluations[0].name = "base, \"raw\"".into();
    run.evaluations[0].perplexity[4] = LengthScore { length: 8192, ..LengthScore::unmeasured() };
    let grid = run.evaluations[1].passkey.as_mut().unwrap();
    grid.accuracy.iter_mut().for_each(|row| row[3] = f64::NAN);
    let output = all_output(&run);
    let table = |name: &str| -> Vec<&str> { output.iter().find(|o| o.0 == name).unwrap().1.lines().collect() };
    let perplexity = table("perplexity.csv");
    assert_eq!(perplexity.len(), 1 + 2 * 5);
    assert_eq!(perplexity[0], "subject,length,perplexity,nll,error,tokens,windows");
    assert_eq!(perplexity[5], "\"base, \"\"raw\"\"\",8192,,,,0,0");
    assert_eq!(perplexity[6], format!("\"base + yarn ×16\",512,7.94,{},0.01,65536,128", 7.94f64.ln()));
    let passkey = table("passkey.csv");
    assert_eq!(passkey.len(), 1 + 2 * 4 * 5);
    assert_eq!(passkey[0], "subject,length,depth,accuracy,error,samples,seed");
    let share: f64 = 0.95 + 0.04 * (1.0 - 0.95) * 2.0;
    let error = (share * (1.0 - share) / 20.0).sqrt();
    assert_eq!(passkey[1], format!("\"base, \"\"raw\"\"\",512,0,{share},{error},20,42"));
    assert_eq!(passkey.last(), Some(&"\"base + yarn ×16\",4096,1,,,0,42"));
    let (niah, ruler, longbench) = (table("niah.csv"), table("ruler.csv"), table("longbench.csv"));
    assert_eq!((niah.len(), ruler.len(), longbench.len()), (1 + 2 * 4, 1 + 2 * 8, 1 + 2 * 2));
    assert_eq!(ruler[0], "subject,task,group,length,score,error,samples,tokens,seed");
    assert_eq!(ruler[1], "\"base, \"\"raw\"\"\",\"niah_single_2\",\"\",512,0.95,0.02,20,511,42");
    assert!(longbench[1].contains("\"qasper\",\"single-doc QA\",4096,"), "{}", longbench[1]);
    assert!(!all_output(&bare()).iter().any(|o| o.0.ends_with(".csv")), "a table without rows");
}

#[test]
fn the_card_names_everything_a_loader_needs() {
    let card = run_readme::card(&example());
    for part in [
        "base_model: \"example/toy-llama-512\"",
        "library_name: transformers",
        "## Results",
        "| after pose | 5.31 ±0.05 | **5.28** ±0.05 |",
        "vllm serve runs/example/merged --max-model-len 8192",
        "--hf-overrides '{\"rope_scaling\":",
        "AutoConfig.from_pretrained(\"runs/example/base_config\")",
        "convert_hf_to_gguf.py runs/example/merged",
        "| positions.target | 8192 |",
    ] {
        assert!(card.contains(part), "the card lacks {part:?}:\n{card}");
    }
    assert!(html::page(&example()).contains("PeftModel.from_pretrained"));
}

/// Writes the example where `LTRAIN_REPORT_EXAMPLE` says, for people and for `scripts/check_tensorboard.py`.
#[test]
fn example_is_written_where_asked() {
    let Some(dir) = std::env::var_os("LTRAIN_REPORT_EXAMPLE").map(PathBuf::from) else { return };
    let run = example();
    report::write(&dir, &run).unwrap();
    println!("{}", Comparison::new(&run.evaluations, 512).terminal(Colour::Ansi));
    let logs = dir.join("runs").join(clock::tensorboard_folder(clock::now(), &clock::host()));
    let (past, resumed) = run.steps.split_at(150);
    let scalars = |writer: &mut EventWriter, steps: &[StepRecord]| {
        for s in steps {
            writer.scalar("train/loss", s.step, s.loss).unwrap();
            writer.scalar("train/learning_rate", s.step, s.lr).unwrap();
        }
    };
    let mut writer = EventWriter::create(&logs).unwrap();
    scalars(&mut writer, past);
    // Steps the crash undid: TensorBoard must not show them.
    for s in &resumed[..20] {
        writer.scalar("train/loss", s.step, 99.0).unwrap();
    }
    drop(writer);
    let mut writer = EventWriter::resume(&logs, past.last().unwrap().step).unwrap();
    scalars(&mut writer, resumed);
    let mut state = TrainerState::default();
    run.steps.iter().for_each(|s| state.push_step(s));
    state.save(&dir.join("trainer_state.json")).unwrap();
}
