//! `ltrain merge`: an adapter into its base, or one model into another.

use super::Ending;
use super::base::{Base, OnDisk};
use super::blend::Blend;
use super::commands::print;
use super::job::stop_flag;
use super::measure::Measure;
use super::text;
use super::ui::Ui;
use crate::backend::Kernels;
use crate::backend::gpu::Place;
use crate::cli::MergeArgs;
use crate::config::choices::Progress;
use crate::config::text::{BlendWeight, List, ModelSource};
use crate::config::{ConfigError, Problem, defaults};
use crate::error::Result;
use crate::eval::{EvalPlan, Subject};
use crate::io::atomic::{Existing, check_free};
use crate::io::export::SHARD_LIMIT;
use crate::io::{Export, ModelDir, Storage, write_model_dir};
use crate::model::{Llama, ModelConfig};
use crate::report::record::{EvalRecord, LengthScore, Role};
use crate::tensor::Tensor;
use crate::units::format_length;

/// Weights of the line search. Both ends are among them: no mixture has to be taken.
const SEARCHED: [f64; 5] = [0.0, 0.25, 0.5, 0.75, 1.0];

/// `ltrain merge` with nothing to search.
pub fn merge(args: &MergeArgs) -> Result<Ending> {
    let measures = [("tokenizer", args.tokenizer.is_some()), ("data", args.data.is_some()), ("at", args.at.is_some())];
    let measured = measures.map(|(key, given)| (key, given, "--with MODEL --weight search"));
    let weighed = [("weight", args.weight.is_some() && args.with.is_none(), "--with MODEL")];
    let useless = weighed.into_iter().chain(measured).filter(|(_, given, _)| *given);
    let problem = |(key, _, with): (_, _, &str)| Problem::new(key, format!("has an effect only with {with}"));
    let problems: Vec<_> = useless.map(|useless| problem(useless).help("leave it out")).collect();
    if !problems.is_empty() {
        return Err(ConfigError::Problems(problems).into());
    }
    match (&args.with, args.weight.unwrap_or_default()) {
        (Some(with), BlendWeight::Fixed(weight)) => write_blend(args, &Blend::open(&args.model, with)?, weight),
        (None, _) => write_adapted(args),
        (Some(_), BlendWeight::Search) => unreachable!("main: a search goes to merge_best"),
    }
}

fn write_adapted(args: &MergeArgs) -> Result<Ending> {
    let model = OnDisk::open(&args.model, args.adapter.as_deref())?;
    let storage = args.dtype.map_or_else(|| model.base.storage(), Ok)?;
    write(args, &model.base, model.config(), storage, model.tensors())
}

fn write_blend(args: &MergeArgs, blend: &Blend, weight: f64) -> Result<Ending> {
    let storage = args.dtype.map_or_else(|| blend.storage(), Ok)?;
    write(args, &blend.with, &blend.config(weight), storage, blend.tensors(weight))
}

fn write(
    args: &MergeArgs,
    base: &ModelDir,
    config: &ModelConfig,
    storage: Storage,
    tensors: impl Iterator<Item = Result<(String, Tensor)>>,
) -> Result<Ending> {
    let export = Export { base, config, storage, existing: Existing::Refuse, shard_limit: SHARD_LIMIT };
    write_model_dir(&args.out, &export, tensors)?;
    print(&format!("{}\n", args.out.display()))?;
    Ok(Ending::Finished)
}

/// `ltrain merge --weight search`: measures mixtures under the rotation of the model that is mixed in, which the result has,
/// and writes the best. The mixtures are measured as they would be written, rounded to the number type of the file.
pub fn merge_best(args: &MergeArgs, with: &ModelSource, (place, kernels): (&Place, &dyn Kernels)) -> Result<Ending> {
    check_free(&args.out)?;
    let (stop, ui) = (stop_flag(), Ui::new(Progress::Auto));
    ui.say(&format!("device  {place}"));
    let blend = Blend::open(&args.model, with)?;
    let storage = args.dtype.map_or_else(|| blend.storage(), Ok)?;
    let lengths = lengths(args, &blend);
    let text = held_out(args, with, &lengths)?;
    let plan = EvalPlan { lengths: lengths.clone(), windows: defaults::WINDOWS, ..EvalPlan::default() };
    let docs = text.iter().map(Vec::as_slice).collect();
    let measure = Measure { kernels, plan, docs, stop: &stop, ui, device: place.name(), seed: defaults::SEED };
    let mut tried = Vec::new();
    for weight in SEARCHED {
        let mut model = mixture(&blend, weight, storage, kernels)?;
        let subject = Subject { name: format!("weight {weight}"), role: Role::Other, rope: model.config.rope.clone() };
        let Some(record) = measure.run(&mut model, &subject)? else { return Ok(Ending::Stopped) };
        tried.push(Tried::new(weight, &record));
    }
    let Some(best) = best(&tried) else {
        let problem =
            Problem::new("weight", "no mixture has a loss that is a number").help("measure both models with ltrain eval");
        return Err(ConfigError::Problems(vec![problem]).into());
    };
    print(&table(&lengths, &tried, best))?;
    write_blend(args, &blend, best.weight)
}

/// What is measured at: the lengths asked for, else the contexts of both models; ascending, none twice.
fn lengths(args: &MergeArgs, blend: &Blend) -> Vec<usize> {
    let contexts = || vec![blend.base.config().context, blend.with.config().context];
    let mut lengths = args.at.as_ref().map_or_else(contexts, |List(at)| at.iter().map(|l| l.0).collect());
    lengths.sort_unstable();
    lengths.dedup();
    lengths
}

/// Text that holds the longest of `lengths`: a sum of losses needs them all.
fn held_out(args: &MergeArgs, with: &ModelSource, lengths: &[usize]) -> Result<Vec<Vec<u32>>> {
    let longest = lengths.last().copied().unwrap_or(0);
    let tokenizer = Base::open(with, args.tokenizer.as_deref())?;
    let text = text::measured(args.data.as_deref(), &args.columns, &tokenizer, longest)?;
    let held = text.iter().map(Vec::len).max().unwrap_or(0);
    if held >= longest {
        return Ok(text);
    }
    let what = format!("expected a text of at least {longest} tokens, the longest length, got {held}");
    let problem = Problem::new("data", what).help("give a longer text, or shorter lengths with --at");
    Err(ConfigError::Problems(vec![problem]).into())
}

fn mixture(blend: &Blend, weight: f64, storage: Storage, kernels: &dyn Kernels) -> Result<Llama> {
    let placed = blend.tensors(weight).map(|tensor| {
        let (name, mut tensor) = tensor?;
        storage.round(tensor.as_f32_mut()?);
        Ok((name, kernels.place(&tensor)?))
    });
    Llama::new(blend.config(weight), placed.collect::<Result<_>>()?)
}

/// A weight and its losses, one per length.
struct Tried {
    weight: f64,
    losses: Vec<LengthScore>,
}

impl Tried {
    fn new(weight: f64, record: &EvalRecord) -> Self {
        Self { weight, losses: record.perplexity.clone() }
    }

    fn sum(&self) -> f64 {
        self.losses.iter().map(|loss| loss.nll).sum()
    }
}

/// The mixture with the smallest sum of losses; among equals the one nearest to the base.
fn best(tried: &[Tried]) -> Option<&Tried> {
    tried.iter().filter(|t| t.sum().is_finite()).min_by(|a, b| a.sum().total_cmp(&b.sum()))
}

fn table(lengths: &[usize], tried: &[Tried], best: &Tried) -> String {
    let heads = lengths.iter().map(|&length| format!("{:>20}", format!("nll at {}", format_length(length))));
    let mut out = format!("weight{}{:>12}\n", heads.collect::<String>(), "sum");
    for t in tried {
        // One window has no spread.
        let error = |loss: &LengthScore| if loss.error.is_nan() { String::new() } else { format!(" ±{:.4}", loss.error) };
        let cell = |loss: &LengthScore| format!("{:>12.4}{:<8}", loss.nll, error(loss));
        let cells: String = t.losses.iter().map(cell).collect();
        let mark = if std::ptr::eq(t, best) { "  taken: the smallest sum" } else { "" };
        out += &format!("{:<6}{cells}{:>12.4}{mark}\n", t.weight, t.sum());
    }
    let windows: Vec<String> = best.losses.iter().map(|loss| loss.windows.to_string()).collect();
    out + &format!("windows: {}; ± standard error over them, which are the same for all weights\n", windows.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tried(weight: f64, nll: [f64; 2]) -> Tried {
        let loss = |nll| LengthScore { nll, error: 0.25, windows: 3, ..LengthScore::default() };
        Tried { weight, losses: nll.map(loss).to_vec() }
    }

    #[test]
    fn the_smallest_finite_sum_is_taken_and_the_first_of_equals() {
        let rows = [tried(0.0, [1.0, f64::NAN]), tried(0.25, [2.0, 3.0]), tried(0.5, [3.0, 1.0]), tried(0.75, [1.0, 3.0])];
        assert_eq!(best(&rows).unwrap().weight, 0.5);
        assert!(best(&rows[..1]).is_none());
        let table = table(&[256, 2048], &rows[1..3], &rows[2]);
        assert_eq!(
            table,
            "weight          nll at 256           nll at 2k         sum\n\
             0.25        2.0000 ±0.2500      3.0000 ±0.2500      5.0000\n\
             0.5         3.0000 ±0.2500      1.0000 ±0.2500      4.0000  taken: the smallest sum\n\
             windows: 3, 3; ± standard error over them, which are the same for all weights\n"
        );
    }
}
