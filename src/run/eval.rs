//! `ltrain eval`.

use std::collections::BTreeSet;

use super::Ending;
use super::base::{Base, load_on, open_dir};
use super::commands::{adapted, print};
use super::job::{colour, stop_flag};
use super::measure::Measure;
use super::questions::{Material, Wanted};
use super::text;
use super::ui::Ui;
use crate::backend::Kernels;
use crate::backend::gpu::Place;
use crate::cli::EvalArgs;
use crate::config::choices::{Progress, Task};
use crate::config::text::{List, ModelSource};
use crate::config::{ConfigError, Problem, defaults};
use crate::data::Columns;
use crate::data::Encode;
use crate::error::Result;
use crate::eval::Subject;
use crate::io::ModelDir;
use crate::io::atomic::write_bytes_atomically;
use crate::io::tokenizer::TOKENIZER;
use crate::model::rope::RopeKind;
use crate::model::{ModelConfig, RopeConfig};
use crate::report::record::{EvalRecord, Role};
use crate::report::{csv, table, tasks};

/// The rotation of `kind` that reaches `longest` from the model's own.
fn rotation(config: &ModelConfig, kind: RopeKind, longest: usize) -> Result<RopeConfig> {
    let extended = config.rope.extended(kind, config.context, longest, config.head_dim);
    Ok(extended.map_err(|e| ConfigError::Problems(vec![Problem::from_error(&e)]))?)
}

/// Settings that no task of the list would read.
fn check(args: &EvalArgs) -> Result<()> {
    let has = |wanted: &[Task]| args.tasks.0.iter().any(|task| wanted.contains(task));
    let ruler = args.tasks.0.iter().any(|task| matches!(task, Task::Ruler | Task::One(_)));
    let (niah, longbench) = (has(&[Task::Niah]), has(&[Task::LongBench]));
    let one = |name: &str| args.tasks.0.iter().any(|task| *task == Task::Ruler || task.to_string() == name);
    let essay =
        args.tasks.0.iter().any(|task| matches!(task, Task::Ruler) || matches!(task, Task::One(one) if one.reads_essay()));
    let (ppl, passkey) = (has(&[Task::Ppl]), has(&[Task::Passkey]));
    let unread = [
        ("data", args.data.is_some() && !ppl, "ppl"),
        ("columns", args.columns != Columns::default() && !ppl, "ppl"),
        ("stride", args.stride.is_some() && !ppl, "ppl"),
        ("windows", args.windows.is_some() && !ppl, "ppl"),
        ("passkey_samples", args.passkey_samples.is_some() && !passkey, "passkey"),
        ("samples", args.samples.is_some() && !(niah || ruler || longbench), "niah, ruler or longbench"),
        ("depths", args.depths.is_some() && !(passkey || niah), "passkey or niah"),
        ("distractors", args.distractors.is_some() && !niah, "niah"),
        ("haystack", args.haystack.is_some() && !(niah || essay), "niah, ruler or one of RULER's tasks in an essay"),
        ("squad", args.squad.is_some() && !one("qa_1"), "ruler or qa_1"),
        ("hotpotqa", args.hotpotqa.is_some() && !one("qa_2"), "ruler or qa_2"),
        ("longbench", !args.longbench.is_empty() && !longbench, "longbench"),
        ("metric", args.metric.is_some() && !longbench, "longbench"),
    ];
    let mut problems: Vec<Problem> = unread
        .into_iter()
        .filter(|(_, unread, _)| *unread)
        .map(|(key, _, tasks)| Problem::new(key, format!("none of the tasks reads it: expected --tasks {tasks}")))
        .collect();
    if longbench && args.longbench.is_empty() {
        problems
            .push(Problem::new("longbench", "the task needs files").help("add --longbench FILE… or a folder of .jsonl files"));
    }
    if problems.is_empty() { Ok(()) } else { Err(ConfigError::Problems(problems).into()) }
}

fn wanted(args: &EvalArgs, lengths: Vec<usize>) -> Wanted {
    let depths = args.depths.as_ref().map_or(defaults::DEPTHS.into(), |list| list.0.iter().map(|depth| depth.0).collect());
    Wanted {
        tasks: args.tasks.0.clone(),
        lengths,
        passkey_samples: args.passkey_samples.unwrap_or(defaults::PASSKEY_SAMPLES),
        niah_samples: args.samples.unwrap_or(defaults::PASSKEY_SAMPLES),
        ruler_samples: args.samples.unwrap_or(defaults::RULER_SAMPLES),
        longbench_rows: args.samples.unwrap_or(usize::MAX),
        depths,
        distractors: args.distractors.unwrap_or(defaults::DISTRACTORS),
        seed: args.seed,
        haystack: args.haystack.clone(),
        squad: args.squad.clone(),
        hotpotqa: args.hotpotqa.clone(),
        longbench: args.longbench.clone(),
        metric: args.metric,
    }
}

/// `ltrain eval`, on a device.
pub fn eval(args: &EvalArgs, place: &Place, kernels: &dyn Kernels) -> Result<Ending> {
    check(args)?;
    let stop = stop_flag();
    let ui = Ui::new(Progress::Auto);
    ui.say(&format!("device  {place}"));
    let base = Base::open(&args.model, args.tokenizer.as_deref())?;
    let against = match &args.against {
        Some(source) => {
            let dir = open_dir(source)?;
            comparable(args, &base, &dir)?;
            Some((source, dir))
        }
        None => None,
    };
    let model = adapted(&base.dir, args.adapter.as_deref(), kernels)?;
    let config = model.config.clone();
    // What counts as short is up to the model that was extended.
    let short = against.as_ref().map_or(config.context, |(_, dir)| dir.config().context);
    let lengths: BTreeSet<usize> = match &args.at {
        Some(List(lengths)) => lengths.iter().map(|l| l.0).collect(),
        None => [short, config.context / 4, config.context / 2, config.context].into(),
    };
    let longest = lengths.last().copied().unwrap_or(config.context);
    let docs = match args.tasks.0.contains(&Task::Ppl) {
        true => text::measured(args.data.as_deref(), &args.columns, &base, longest)?,
        false => Vec::new(),
    };
    let material = Material::read(&base, wanted(args, lengths.into_iter().collect()))?;
    if args.metric.is_some() && material.others().next().is_none() {
        let problem = Problem::new("metric", "every dataset of these files has its own").help("leave it out");
        return Err(ConfigError::Problems(vec![problem]).into());
    }
    for name in material.others() {
        let metric = args.metric.map_or("f1 (another with --metric)".into(), |m| m.to_string());
        ui.say(&format!("{name} is none of LongBench's datasets: its context and input are the prompt, scored by {metric}"));
    }
    let plan = material.plan(args.windows.unwrap_or(defaults::WINDOWS), args.stride.map(|s| s.0));
    let docs = docs.iter().map(Vec::as_slice).collect();
    let measure = Measure { kernels, plan, docs, stop: &stop, ui, device: place.name(), seed: args.seed };

    let subject = |name: String, role, rope: &RopeConfig| Subject { name, role, rope: rope.clone() };
    let subjects = match &args.rope {
        None => vec![subject(args.model.to_string(), Role::Other, &config.rope)],
        Some(List(kinds)) => {
            let ropes = kinds.iter().map(|&kind| rotation(&config, kind, longest)).collect::<Result<Vec<_>>>()?;
            ropes.iter().map(|rope| subject(format!("{} · {rope}", short_name(&args.model)), Role::Other, rope)).collect()
        }
    };
    let mut records = Vec::new();
    let all = || -> Result<Ending> {
        // It is gone before the other one comes: there may be no room for two.
        if !measure.run_all(model, &subjects, &mut |record| records.push(record))? {
            return Ok(Ending::Stopped);
        }
        let Some((source, dir)) = &against else { return Ok(Ending::Finished) };
        let subject = subject(source.to_string(), Role::Before, &dir.config().rope);
        match measure.run_all(load_on(dir, kernels)?, &[subject], &mut |before| records.insert(0, before))? {
            true => Ok(Ending::Finished),
            false => Ok(Ending::Stopped),
        }
    };
    let ending = all();
    // What was finished before a stop or an error took its time and stays true.
    let shown = if records.is_empty() { Ok(()) } else { show(args, &records, short) };
    let ending = ending?;
    shown.map(|()| ending)
}

/// Losses per token and questions of one length are comparable with one tokenizer only. A base without one is read with the model's,
/// and `--tokenizer` is the user's word that both have it.
fn comparable(args: &EvalArgs, base: &Base, against: &ModelDir) -> Result<()> {
    if args.tokenizer.is_some() || !against.tokenizer_files().has(TOKENIZER) {
        return Ok(());
    }
    if against.tokenizer()?.identity() == base.tokenizer.identity() {
        return Ok(());
    }
    let problem = Problem::new(
        "against",
        format!(
            "{} has another tokenizer than {}, so no number of one compares with the other's",
            args.against.as_ref().map_or_else(String::new, ToString::to_string),
            args.model
        ),
    )
    .help("measure each by itself; if their tokens are the same after all, name the tokenizer of both with --tokenizer DIR");
    Err(ConfigError::Problems(vec![problem]).into())
}

/// The last part of a model's path: rows of a table differ in what follows.
fn short_name(source: &ModelSource) -> String {
    match source {
        ModelSource::Builtin => source.to_string(),
        ModelSource::Folder(path) => path.file_name().map_or_else(|| source.to_string(), |n| n.to_string_lossy().into_owned()),
    }
}

/// Tables on the terminal, and files.
fn show(args: &EvalArgs, records: &[EvalRecord], short: usize) -> Result<()> {
    let comparison = table::Comparison::new(records, short);
    let mut all = vec![comparison.terminal(colour())];
    all.extend(tasks::details(records).iter().map(|table| table.terminal(colour())));
    all.push(tasks::notes(records).join("\n"));
    all.retain(|text| !text.is_empty());
    print(&format!("{}\n", all.join("\n")))?;
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(records).expect("eval: records serialise");
        write_bytes_atomically(path, (text + "\n").as_bytes())?;
    }
    if let Some(dir) = &args.csv {
        csv::write(dir, records)?;
    }
    Ok(())
}
