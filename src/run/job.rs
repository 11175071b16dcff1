//! The main job: measure the base, train, measure again, write everything down.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Ending;
use super::base::{Base, Found};
use super::folder::Folder;
use super::measure::{Measure, file_of};
use super::memory::Memory;
use super::questions::{Material, Wanted};
use super::session::Session;
use super::text::{self, Rows, RunText};
use super::ui::Ui;
use crate::backend::Kernels;
use crate::backend::gpu::Place;
use crate::backend::selftest::{Check, self_test};
use crate::checkpoint::{self, Context};
use crate::config::choices::{Best, Export as Exported};
use crate::config::{ConfigError, Problem, RunConfig};
use crate::error::Result;
use crate::eval::Subject;
use crate::io::atomic::Existing;
use crate::io::{Export, write_model_dir};
use crate::model::rope::RopeKind;
use crate::model::{ModelConfig, RopeConfig};
use crate::plan::MemoryPlan;
use crate::positions::{E2Llm, Method as _, Mix};
use crate::report::record::{EvalRecord, Role, RunRecord};
use crate::report::table::{Colour, Comparison};
use crate::report::{self};
use crate::train::{Outcome, State, TrainMode};
use crate::units::{format_bytes, format_count, format_duration, format_length};

/// `ltrain`.
///
/// `kernels` are those of `place`, which is for the reader.
pub fn train(config: &RunConfig, place: &Place, kernels: &dyn Kernels, command: &str) -> Result<Ending> {
    let stop = stop_flag();
    let ui = Ui::new(config.output.progress);
    let started = std::time::Instant::now();
    let found = Found::of_run(config)?;
    // A run that does not fit is refused before anything is read or made.
    if let Some(usage) = kernels.usage() {
        MemoryPlan::of(config, &found.config)?.check(config, &found.config, usage.limit)?;
    }
    if config.train.check_kernels {
        ui.say(&check(place, kernels)?);
    }
    let memory = Memory::new(kernels);
    let reading = ui.bar("tokenise", 1);
    let vocab = found.config.vocab;
    let text =
        text::open(config, &found.tokenizer, vocab, &|p| reading.at(p.bytes_done, p.bytes_total, format_bytes(p.bytes_done)))?;
    drop(reading);
    let folder = Folder::open(config, place, &text.hash)?;
    if folder.finished {
        ui.say(&format!("{} is finished; its report is {}", folder.path.display(), folder.path.join("report.html").display()));
        return Ok(Ending::Finished);
    }
    let checkpoints = config.output.keep + usize::from(config.eval.best != Best::Last);
    folder.check_room(checkpoint_bytes(config, &found.config), checkpoints)?;
    if let Some(moved) = &folder.moved {
        ui.say(moved);
    }
    folder.begin(config, command)?;
    let base = found.base(config, &folder.path)?;
    let job = Job { config, base: &base, text: &text, folder: &folder, kernels, memory, ui, stop: &stop, place, command };
    ui.say(&job.first_screen());
    match job.run()? {
        Some(record) => {
            job.last_screen(&record, started.elapsed().as_secs_f64());
            Ok(Ending::Finished)
        }
        None => {
            ui.say(&format!("stopped; everything so far is in {}: run the same command to continue", folder.path.display()));
            Ok(Ending::Stopped)
        }
    }
}

/// Compares a GPU with the CPU, and says so.
fn check(place: &Place, kernels: &dyn Kernels) -> Result<String> {
    if let Place::Cpu { .. } = place {
        return Ok("there are no GPU kernels to check: this run is on the CPU".into());
    }
    let started = std::time::Instant::now();
    let checks = self_test(kernels)?;
    checks.iter().try_for_each(Check::verdict)?;
    Ok(format!("checked {} results of the GPU's kernels in {:.1} s", checks.len(), started.elapsed().as_secs_f64()))
}

/// Raised by SIGINT, SIGTERM and SIGUSR1; a second signal ends the process at once.
pub fn stop_flag() -> Arc<AtomicBool> {
    use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGUSR1] {
        // The order matters: the shutdown looks at the flag before the flag is raised.
        let armed = signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&stop));
        let raised = armed.and_then(|_| signal_hook::flag::register(signal, Arc::clone(&stop)));
        raised.expect("signals: these three can be handled");
    }
    stop
}

/// Weights and two moments of everything that moves, in f32.
fn checkpoint_bytes(config: &RunConfig, model: &ModelConfig) -> u64 {
    let train = &config.train;
    let moving = match (train.mode, &train.lora) {
        (TrainMode::Full, _) | (_, None) => model.parameters(),
        (_, Some(lora)) => {
            let widest = (model.hidden + model.ffn.max(model.heads * model.head_dim)) as u64;
            let adapters = model.layers as u64 * lora.targets.len() as u64 * lora.rank as u64 * widest;
            adapters + if train.mode == TrainMode::LoraPlus { (model.vocab * model.hidden) as u64 } else { 0 }
        }
    };
    12 * moving
}

/// Folder, in `eval/`, of what was measured under smaller windows.
pub(super) const WINDOWS: &str = "windows";

pub(super) struct Job<'a> {
    pub(super) config: &'a RunConfig,
    pub(super) base: &'a Base,
    pub(super) text: &'a RunText,
    pub(super) folder: &'a Folder,
    kernels: &'a dyn Kernels,
    pub(super) memory: Memory<'a>,
    ui: Ui,
    stop: &'a Arc<AtomicBool>,
    pub(super) place: &'a Place,
    pub(super) command: &'a str,
}

impl Job<'_> {
    pub(super) fn path(&self) -> &Path {
        &self.folder.path
    }

    /// Configuration of the result.
    pub(super) fn extended(&self) -> ModelConfig {
        let positions = &self.config.positions;
        ModelConfig { context: positions.target, rope: positions.target_rope.clone(), ..self.base.dir.config().clone() }
    }

    fn first_screen(&self) -> String {
        let RunConfig { model, data, positions, train, .. } = self.config;
        let parameters = self.base.dir.config().parameters();
        let arrow = |a: String, b: String| if a == b { a } else { format!("{a} -> {b}") };
        let mode = match &train.lora {
            Some(lora) => format!("{} r={}", train.mode, lora.rank),
            None => train.mode.to_string(),
        };
        format!(
            "ltrain {} · {} ({} parameters) · context {} -> {} · {}, {} tokens per row\n\
             rope    {}\n\
             train   {mode}, {} steps x {} tokens, lr {:.1e} {}\n\
             data    {}\n\
             device  {}, {} threads\n\
             out     {}",
            env!("CARGO_PKG_VERSION"),
            model.name,
            human_count(parameters),
            format_length(positions.context),
            format_length(positions.target),
            positions.method,
            format_length(data.seq_len),
            arrow(positions.base_rope.to_string(), positions.target_rope.to_string()),
            train.steps,
            format_count(self.config.tokens_per_step() as u64),
            self.config.optim.lr,
            self.config.optim.shape,
            self.text.summary,
            self.place,
            rayon::current_num_threads(),
            self.path().display(),
        )
    }

    /// All stages. `None` when stopped on the way.
    fn run(&self) -> Result<Option<RunRecord>> {
        let material = Material::read(self.base, Wanted::by_run(self.config))?;
        let measure = Measure::of_run(self.config, (self.place, self.kernels), &material, &self.text.eval, self.stop, self.ui);
        let positions = &self.config.positions;
        let base_rope = &self.base.dir.config().rope;
        let mut evaluations = Vec::new();
        if let Some(measure) = &measure {
            let base = |role, rope: &RopeConfig, name: String| Subject { name, role, rope: rope.clone() };
            let mut subjects = vec![base(Role::Before, base_rope, "base".into())];
            if positions.target_rope != *base_rope {
                subjects.push(base(Role::RopeOnly, &positions.target_rope, format!("base + {}", positions.target_rope)));
            }
            let mut loaded = None;
            for subject in subjects {
                let measured = measure.kept(self.path(), file_of(subject.role), || {
                    let model = match &mut loaded {
                        Some(model) => model,
                        none => none.insert(self.base.load_on(self.kernels)?),
                    };
                    measure.run(model, &subject)
                })?;
                let Some(record) = measured else { return Ok(None) };
                evaluations.push(record);
            }
        }
        let main = self.train_and_measure(self.text.rows.clone(), None, measure.as_ref())?;
        let Some((state, after)) = main else { return Ok(None) };
        evaluations.extend(after);
        self.export(&state)?;
        let trainable = state.model.params.trainable_elements();
        drop(state);
        if self.config.eval.control {
            let rows = self.text.rows.with_method(Mix::natural());
            let control = self.train_and_measure(rows, Some(self.path().join("control")), measure.as_ref())?;
            let Some((_, after)) = control else { return Ok(None) };
            evaluations.extend(after);
        }
        let record = self.record(evaluations, trainable)?;
        self.write_records(&record)?;
        Ok(Some(record))
    }

    /// The run's training, or the control's when it has a folder of its own. `None` when stopped.
    fn train_and_measure(
        &self,
        rows: Rows,
        control: Option<PathBuf>,
        measure: Option<&Measure>,
    ) -> Result<Option<(State, Vec<EvalRecord>)>> {
        let positions = &self.config.positions;
        let (role, name, title, rope) = match control {
            None => (Role::After, format!("after {}", positions.label()), "train", positions.training_rope()),
            Some(_) => (Role::Control, "after contiguous (control)".to_string(), "train the control", &positions.target_rope),
        };
        let main = control.is_none();
        let (extended, measured_with) = (self.extended(), self.measured_with());
        let session = Session {
            config: self.config,
            base: self.base,
            extended: &extended,
            rope,
            rows,
            folder: control.as_deref().unwrap_or(self.path()),
            title,
            ui: self.ui,
            measured_with: &measured_with,
            stop: self.stop,
            memory: &self.memory,
        };
        let retrieval = (self.config.eval.best == Best::Retrieval).then_some(positions.target);
        let mut validate =
            |state: &mut State, step| measure.map_or(Ok(None), |m| m.validation(state, step, &positions.target_rope, retrieval));
        let (mut state, outcome) = session.run(self.kernels, main, &mut validate)?;
        if outcome == Outcome::Stopped || self.stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let Some(measure) = measure else { return Ok(Some((state, Vec::new()))) };
        let windows = if main { self.windows()? } else { Vec::new() };
        let mut subjects = vec![(file_of(role).to_owned(), Subject { name, role, rope: positions.target_rope.clone() })];
        subjects.extend(windows);
        let mut records = Vec::new();
        for (file, subject) in subjects {
            let record = measure.kept(self.path(), &file, || measure.run(&mut state.model, &subject))?;
            let Some(record) = record else { return Ok(None) };
            records.push(record);
        }
        Ok(Some((state, records)))
    }

    /// All that a measurement depends on besides the state.
    pub(super) fn measured_with(&self) -> String {
        format!("{}device={}", self.config.measured_with(), self.place.name())
    }

    /// Smaller windows that a model trained at several scales serves as well (E²-LLM): the base rotation, twice its reach, and so on.
    fn windows(&self) -> Result<Vec<(String, Subject)>> {
        let (positions, model) = (&self.config.positions, self.base.dir.config());
        if !positions.method.has(E2Llm::NAME) {
            return Ok(Vec::new());
        }
        let scales = std::iter::successors(Some(1), |g| Some(2 * g)).take_while(|g| g * positions.context < positions.target);
        let window = |g: usize| {
            let rope = match g {
                1 => positions.base_rope.clone(),
                _ => positions
                    .base_rope
                    .extended(RopeKind::Linear, positions.context, g * positions.context, model.head_dim)
                    .map_err(|e| ConfigError::Problems(vec![Problem::from_error(&e)]))?,
            };
            let name = format!("after {} · ×{g}", positions.method.name());
            Ok((format!("{WINDOWS}/{g}"), Subject { name, role: Role::Other, rope }))
        };
        scales.map(window).collect()
    }

    pub(super) fn wants(&self) -> (bool, bool) {
        let adapters = self.config.train.mode.adapters();
        match self.config.output.export {
            Exported::Adapter => (false, adapters),
            Exported::Merged => (true, false),
            Exported::Both => (true, adapters),
            Exported::None => (false, false),
        }
    }

    fn export(&self, state: &State) -> Result<()> {
        let (merged, adapter) = self.wants();
        let extended = self.extended();
        let storage = self.config.output.save_dtype.map_or_else(|| self.base.dir.storage(), Ok)?;
        if merged {
            let export = Export {
                base: &self.base.dir,
                config: &extended,
                storage,
                existing: Existing::Replace,
                shard_limit: crate::io::export::SHARD_LIMIT,
            };
            let params = &state.model.params;
            let frozen = |id| Some(params.get(id)).filter(|p| !p.trainable).map(|p| self.base.dir.view(&p.name)?.to_tensor());
            write_model_dir(&self.path().join("merged"), &export, state.model.merged(frozen))?;
        }
        if adapter {
            let base_name = self.base_name();
            let context = Context { base: &self.base.dir, config: &extended, base_name: &base_name, seconds: 0.0 };
            checkpoint::write_adapter_of(&self.path().join("adapter"), state, &context, storage)?;
        }
        Ok(())
    }

    pub(super) fn base_name(&self) -> String {
        self.base.dir.path().display().to_string()
    }

    fn last_screen(&self, record: &RunRecord, seconds: f64) {
        let mut lines = Vec::new();
        if !record.evaluations.is_empty() {
            let table = Comparison::new(&record.evaluations, record.model.context).terminal(colour());
            // A closed pipe is the reader's choice; the files are complete.
            let _ = super::commands::print(&format!("{table}\n"));
            lines.push(report::verdict::Verdict::of(record).sentence());
        }
        let (merged, adapter) = self.wants();
        lines.extend(merged.then(|| format!("model    {}", self.path().join("merged").display())));
        lines.extend(adapter.then(|| format!("adapter  {}", self.path().join("adapter").display())));
        lines.push(format!("report   {}", self.path().join("report.html").display()));
        let peak = format_bytes(self.memory.most());
        lines.push(format!("took {}, peak memory {peak}", format_duration(seconds)));
        self.ui.say(&lines.join("\n"));
    }
}

/// Colour on a terminal, unless `NO_COLOR` says otherwise.
pub fn colour() -> Colour {
    use std::io::IsTerminal;
    let wanted = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    if wanted { Colour::Ansi } else { Colour::Never }
}

/// `0.67 M`, `8.03 B`.
pub(super) fn human_count(n: u64) -> String {
    match n as f64 {
        n if n >= 1e9 => format!("{:.2} B", n / 1e9),
        n => format!("{:.2} M", n / 1e6),
    }
}
