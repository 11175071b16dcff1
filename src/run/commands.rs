//! `ltrain eval`, `generate` and `plan`.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;

use super::Ending;
use super::base::{Base, adapt, load_on, open_dir};
use super::job::{colour, human_count, stop_flag};
use super::measure::{Measure, questions};
use super::text;
use super::ui::Ui;
use crate::backend::Kernels;
use crate::backend::gpu::Place;
use crate::cli::{EvalArgs, GenerateArgs};
use crate::config::choices::{Progress, Task};
use crate::config::text::{List, ModelSource};
use crate::config::{ConfigError, Problem, RunConfig};
use crate::data::{ChatTokenizer, Columns, Encode, Loss, Reading};
use crate::error::{IoError, Result};
use crate::eval::{EvalPlan, PasskeyPlan, Subject};
use crate::generate::{Sampler, TextStream, generate as continue_text};
use crate::io::ModelDir;
use crate::io::atomic::write_bytes_atomically;
use crate::io::hf_config::read_config;
use crate::io::tokenizer::SpecialTokens;
use crate::model::rope::RopeKind;
use crate::model::{Llama, ModelConfig, RopeConfig};
use crate::plan::MemoryPlan;
use crate::report::record::Role;
use crate::report::table::Comparison;
use crate::units::{format_bytes, format_length};

/// Writes to stdout without the panic of `print!` when the reader is gone.
pub fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(|source| IoError { action: "write", path: "standard output".into(), source }.into())
}

/// A model with its adapter on, on a backend.
fn adapted(dir: &ModelDir, adapter: Option<&Path>, kernels: &dyn Kernels) -> Result<Llama> {
    let Some(adapter) = adapter else { return load_on(dir, kernels) };
    let mut model = load_on(dir, kernels)?;
    adapt(&mut model, dir, adapter)?;
    model.place(kernels)?;
    Ok(model)
}

/// The rotation of `kind` that reaches `longest` from the model's own.
fn rotation(config: &ModelConfig, kind: RopeKind, longest: usize) -> Result<RopeConfig> {
    let extended = config.rope.extended(kind, config.context, longest, config.head_dim);
    Ok(extended.map_err(|e| ConfigError::Problems(vec![Problem::from_error(&e)]))?)
}

/// The text that a model is measured on: a file's, else that of the built-in model's language, where that is the model's.
pub(super) fn eval_text(data: Option<&Path>, columns: &Columns, base: &Base, longest: usize) -> Result<Vec<Vec<u32>>> {
    match data {
        Some(path) => {
            let reading = Reading { columns: columns.clone(), ..Reading::default() };
            text::eval_file(path, &reading, &ChatTokenizer::new(&base.tokenizer, None, Loss::All)?)
        }
        None if base.tokenizer.identity() == crate::data::synthetic::tokenizer_identity() => text::synthetic_eval(longest),
        None => {
            let problem = Problem::new("data", "perplexity needs text")
                .help("add --data FILE; ltrain eval can also measure --tasks passkey alone");
            Err(ConfigError::Problems(vec![problem]).into())
        }
    }
}

/// `ltrain eval`, on a device.
pub fn eval(args: &EvalArgs, place: &Place, kernels: &dyn Kernels) -> Result<Ending> {
    let stop = stop_flag();
    let ui = Ui::new(Progress::Auto);
    ui.say(&format!("device  {place}"));
    let base = Base::open(&args.model, args.tokenizer.as_deref())?;
    let model = adapted(&base.dir, args.adapter.as_deref(), kernels)?;
    let config = model.config.clone();
    let against = match &args.against {
        Some(source) => Some((source, open_dir(source)?)),
        None => None,
    };
    // What counts as short is up to the model that was extended.
    let short = against.as_ref().map_or(config.context, |(_, dir)| dir.config().context);
    let lengths: Vec<usize> = match &args.at {
        Some(List(lengths)) => lengths.iter().map(|l| l.0).collect(),
        None => BTreeSet::from([short, config.context / 4, config.context / 2, config.context]).into_iter().collect(),
    };
    let longest = lengths.iter().copied().max().unwrap_or(config.context);
    let docs = match args.tasks.0.contains(&Task::Ppl) {
        true => eval_text(args.data.as_deref(), &args.columns, &base, longest)?,
        false => Vec::new(),
    };
    let questions = questions(&base)?;
    let passkey = args.tasks.0.contains(&Task::Passkey).then(|| PasskeyPlan {
        samples: args.passkey_samples,
        seed: args.seed,
        ..PasskeyPlan::new(questions.as_ref(), lengths.clone())
    });
    let plan = EvalPlan { lengths, windows: args.windows, stride: args.stride.map(|s| s.0), passkey };
    let docs = docs.iter().map(Vec::as_slice).collect();
    let measure = Measure { kernels, plan, docs, stop: &stop, ui, device: place.name() };

    let subject = |name: String, role, rope: &RopeConfig| Subject { name, role, rope: rope.clone() };
    let subjects = match &args.rope {
        None => vec![subject(args.model.to_string(), Role::Other, &config.rope)],
        Some(List(kinds)) => {
            let ropes = kinds.iter().map(|&kind| rotation(&config, kind, longest)).collect::<Result<Vec<_>>>()?;
            ropes.iter().map(|rope| subject(format!("{} · {rope}", args.model), Role::Other, rope)).collect()
        }
    };
    // It is gone before the other one comes: there may be no room for two.
    let Some(mut records) = measure.run_all(model, &subjects)? else { return Ok(Ending::Stopped) };
    if let Some((source, dir)) = &against {
        let subject = subject(source.to_string(), Role::Before, &dir.config().rope);
        let Some(before) = measure.run_all(load_on(dir, kernels)?, &[subject])? else { return Ok(Ending::Stopped) };
        records.splice(..0, before);
    }
    print(&format!("{}\n", Comparison::new(&records, short).terminal(colour())))?;
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&records).expect("eval: records serialise");
        write_bytes_atomically(path, (text + "\n").as_bytes())?;
    }
    Ok(Ending::Finished)
}

/// `ltrain generate`, on a device.
pub fn generate(args: &GenerateArgs, place: &Place, kernels: &dyn Kernels) -> Result<Ending> {
    let stop = stop_flag();
    // Not among the text, which is stdout's.
    Ui::new(Progress::Auto).say(&format!("device  {place}"));
    let base = Base::open(&args.model, args.tokenizer.as_deref())?;
    let model = adapted(&base.dir, args.adapter.as_deref(), kernels)?;
    let mut prompt: Vec<u32> = base.tokenizer.bos().into_iter().collect();
    prompt.extend(base.tokenizer.encode(&args.prompt)?);
    let sampler = Sampler { temperature: args.temperature, top_p: args.top_p, seed: args.seed };
    let decode = |ids: &[u32]| base.tokenizer.decode(ids, SpecialTokens::Skip);
    let mut stream = TextStream::new(&prompt, &decode)?;
    print(&args.prompt)?;
    let mut failed = None;
    let mut show = |token: u32| {
        let shown = stream.push(token).and_then(|text| print(&text));
        let go_on = shown.is_ok() && !stop.load(std::sync::atomic::Ordering::Relaxed);
        failed = failed.take().or(shown.err());
        go_on
    };
    continue_text(kernels, &model, &prompt, args.tokens, &sampler, base.tokenizer.stops(), &mut show)?;
    if let Some(error) = failed {
        return Err(error);
    }
    print(&format!("{}\n", stream.finish()?))?;
    Ok(Ending::Finished)
}

/// `ltrain plan`.
pub fn plan(config: &RunConfig) -> Result<()> {
    let model = match (&config.model.init, &config.model.source) {
        (Some(json), _) => read_config(json)?,
        (None, ModelSource::Builtin) => open_dir(&ModelSource::Builtin)?.config().clone(),
        (None, ModelSource::Folder(folder)) => read_config(&folder.join("config.json"))?,
    };
    let plan = MemoryPlan::of(config, &model)?;
    let peak = plan.peak();
    print(&format!(
        "{} ({} parameters), {}, {} x {} tokens at once\n\n{}\npeak {}: {}\n",
        config.model.name,
        human_count(model.parameters()),
        config.train.mode,
        config.train.micro_batch,
        format_length(config.data.seq_len),
        plan.table(),
        format_bytes(peak.total()),
        peak.name,
    ))?;
    let Some(limit) = config.train.mem_limit else { return Ok(()) };
    plan.check(config, &model, limit)?;
    print(&format!("fits into {}, {} are left\n", format_bytes(limit), format_bytes(limit - peak.total())))
}
