//! What evaluations ask, from settings and files to a plan.

use std::path::PathBuf;

use super::base::Base;
use crate::config::RunConfig;
use crate::config::choices::Task;
use crate::config::{ConfigError, Problem, defaults};
use crate::data::Encode;
use crate::error::{IoContext, Result};
use crate::eval::longbench::{self, Metric, Questionnaire};
use crate::eval::ruler::{QaSet, RulerTask, Source};
use crate::eval::{EvalError, EvalPlan, Facts, Haystack, LongBenchPlan, Needles, Passkey, PasskeyPlan, Questions, RulerPlan};

/// What is asked for.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// The tasks.
    pub tasks: Vec<Task>,
    /// The lengths.
    pub lengths: Vec<usize>,
    /// Prompts per cell of passkey.
    pub passkey_samples: usize,
    /// Prompts per cell of niah.
    pub niah_samples: usize,
    /// Samples per task of RULER and length.
    pub ruler_samples: usize,
    /// Most rows of a LongBench dataset.
    pub longbench_rows: usize,
    /// Depths of passkey and niah.
    pub depths: Vec<f64>,
    /// Needles of niah that are not asked for.
    pub distractors: usize,
    /// Decides all questions.
    pub seed: u64,
    /// Text around needles.
    pub haystack: Option<PathBuf>,
    /// SQuAD's questions.
    pub squad: Option<PathBuf>,
    /// HotpotQA's questions.
    pub hotpotqa: Option<PathBuf>,
    /// LongBench's files.
    pub longbench: Vec<PathBuf>,
    /// Metric of datasets that are not LongBench's.
    pub metric: Option<Metric>,
}

impl Wanted {
    /// What a run's settings ask for.
    pub fn by_run(config: &RunConfig) -> Self {
        let eval = &config.eval;
        Self {
            tasks: eval.tasks.clone(),
            lengths: eval.at.clone(),
            passkey_samples: eval.passkey_samples,
            niah_samples: eval.passkey_samples,
            ruler_samples: defaults::RULER_SAMPLES,
            depths: defaults::DEPTHS.into(),
            distractors: defaults::DISTRACTORS,
            seed: config.train.seed,
            ..Self::default()
        }
    }

    fn has(&self, task: Task) -> bool {
        self.tasks.contains(&task)
    }

    fn grid<'q>(&self, questions: Option<&'q (dyn Questions + 'q)>, samples: usize) -> Option<PasskeyPlan<'q>> {
        let plan = PasskeyPlan::new(questions?, self.lengths.clone());
        Some(PasskeyPlan { samples, seed: self.seed, depths: self.depths.clone(), ..plan })
    }

    fn has_file(&self, task: RulerTask) -> bool {
        match task {
            RulerTask::Qa1 => self.squad.is_some(),
            RulerTask::Qa2 => self.hotpotqa.is_some(),
            _ => true,
        }
    }

    /// RULER's tasks, in its order. `ruler` stands for those that have what they need.
    fn ruler(&self) -> Vec<RulerTask> {
        let wanted = |task: &RulerTask| self.has(Task::One(*task)) || self.has(Task::Ruler) && self.has_file(*task);
        RulerTask::ALL.iter().copied().filter(wanted).collect()
    }
}

/// Everything that questions are made from, read once.
pub struct Material<'a> {
    base: &'a Base,
    wanted: Wanted,
    passkey: Option<Box<dyn Questions + 'a>>,
    niah: Option<Box<dyn Questions + 'a>>,
    haystack: Haystack,
    squad: Option<QaSet>,
    hotpotqa: Option<QaSet>,
    sets: Vec<Questionnaire>,
}

impl<'a> Material<'a> {
    /// Reads what is wanted for a model: its own language for the built-in one, English for all others.
    ///
    /// # Errors
    /// A file that cannot be used, or would not be; [`EvalError::NotEnglish`] for tasks in English and the built-in model's tokenizer;
    /// [`EvalError::NoQuestions`] for a task without its file.
    pub fn read(base: &'a Base, wanted: Wanted) -> Result<Self> {
        let tokenizer = &base.tokenizer;
        let speaks_synthetic = tokenizer.identity() == crate::data::synthetic::tokenizer_identity();
        if speaks_synthetic && wanted.haystack.is_some() {
            let reason = "needles of the built-in language stand in texts of its own: expected no haystack for this model";
            return Err(ConfigError::Problems(vec![Problem::new("haystack", reason).help("leave it out")]).into());
        }
        let in_english = (!wanted.ruler().is_empty()).then_some("RULER").or(wanted.has(Task::LongBench).then_some("LongBench"));
        if let (true, Some(what)) = (speaks_synthetic, in_english) {
            return Err(EvalError::NotEnglish { what }.into());
        }
        if let Some(&task) = wanted.ruler().iter().find(|task| !wanted.has_file(**task)) {
            return Err(EvalError::NoQuestions { task: task.name() }.into());
        }
        let haystack = match &wanted.haystack {
            None => Haystack::Own { seed: wanted.seed },
            Some(path) => {
                let text = std::fs::read_to_string(path).context("read", path)?;
                let refuse = |cause| EvalError::File { path: path.clone(), expected: "sentences", cause };
                Haystack::of_text(&text).map_err(refuse)?
            }
        };
        let longest = wanted.lengths.iter().copied().max().unwrap_or(0);
        let distractors = wanted.distractors;
        let passkey = || -> Result<Box<dyn Questions + 'a>> {
            Ok(if speaks_synthetic { Box::new(Facts::default()) } else { Box::new(Passkey::new(tokenizer)?) })
        };
        let niah = || -> Result<Box<dyn Questions + 'a>> {
            Ok(match speaks_synthetic {
                true => Box::new(Facts { distractors }),
                false => Box::new(Needles::new(tokenizer, &haystack, distractors, longest)?),
            })
        };
        Ok(Self {
            base,
            passkey: wanted.has(Task::Passkey).then(passkey).transpose()?,
            niah: wanted.has(Task::Niah).then(niah).transpose()?,
            squad: wanted.squad.as_deref().map(QaSet::squad).transpose()?,
            hotpotqa: wanted.hotpotqa.as_deref().map(QaSet::hotpotqa).transpose()?,
            sets: questionnaires(&wanted)?,
            haystack,
            wanted,
        })
    }

    /// Decides all questions.
    pub fn seed(&self) -> u64 {
        self.wanted.seed
    }

    /// Names of datasets that are not LongBench's, and are scored by `--metric`.
    pub fn others(&self) -> impl Iterator<Item = &str> {
        self.sets.iter().filter(|set| set.category == longbench::Category::Other).map(|set| set.name.as_str())
    }

    /// What is measured; perplexity where there is text for it.
    pub fn plan(&self, windows: usize, stride: Option<usize>) -> EvalPlan<'_> {
        let wanted = &self.wanted;
        let language = &self.base.tokenizer;
        let source = Source {
            encode: language,
            haystack: &self.haystack,
            squad: self.squad.as_ref(),
            hotpotqa: self.hotpotqa.as_ref(),
            seed: wanted.seed,
        };
        let (tasks, lengths) = (wanted.ruler(), wanted.lengths.clone());
        let ruler = RulerPlan { language, source, tasks, lengths, samples: wanted.ruler_samples };
        let longbench = LongBenchPlan { language, sets: &self.sets, lengths: wanted.lengths.clone() };
        EvalPlan {
            lengths: if wanted.has(Task::Ppl) { wanted.lengths.clone() } else { Vec::new() },
            windows,
            stride,
            passkey: wanted.grid(self.passkey.as_deref(), wanted.passkey_samples),
            niah: wanted.grid(self.niah.as_deref(), wanted.niah_samples),
            ruler: (!ruler.tasks.is_empty()).then_some(ruler),
            longbench: (!self.sets.is_empty()).then_some(longbench),
        }
    }
}

fn questionnaires(wanted: &Wanted) -> Result<Vec<Questionnaire>> {
    let mut files = Vec::new();
    for path in &wanted.longbench {
        files.extend(longbench::files(path)?);
    }
    longbench::read(&files, wanted.metric.unwrap_or(Metric::F1), wanted.longbench_rows)
}
