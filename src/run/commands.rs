//! `ltrain generate` and `plan`.

use std::io::Write;
use std::path::Path;

use super::Ending;
use super::base::{Base, adapt, load_on, open_dir};
use super::job::{human_count, stop_flag};
use super::ui::Ui;
use crate::backend::Kernels;
use crate::backend::gpu::Place;
use crate::cli::GenerateArgs;
use crate::config::RunConfig;
use crate::config::choices::Progress;
use crate::config::text::ModelSource;
use crate::error::{IoError, Result};
use crate::generate::{Sampler, TextStream, generate as continue_text};
use crate::io::ModelDir;
use crate::io::hf_config::read_config;
use crate::io::tokenizer::SpecialTokens;
use crate::model::Llama;
use crate::plan::MemoryPlan;
use crate::units::{format_bytes, format_length};

/// Writes to stdout without the panic of `print!` when the reader is gone.
pub fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(|source| IoError { action: "write", path: "standard output".into(), source }.into())
}

/// A model with its adapter on, on a backend.
pub(super) fn adapted(dir: &ModelDir, adapter: Option<&Path>, kernels: &dyn Kernels) -> Result<Llama> {
    let Some(adapter) = adapter else { return load_on(dir, kernels) };
    let mut model = load_on(dir, kernels)?;
    adapt(&mut model, dir, adapter)?;
    model.place(kernels)?;
    Ok(model)
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
