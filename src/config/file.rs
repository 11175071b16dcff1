//! Settings from configuration files and `--set`, and which of them win.

use std::path::{Path, PathBuf};

use clap::Args;
use toml::{Table, Value};

use crate::error::IoContext;

use super::text::{ModelSource, Resume, Source};
use super::{ConfigError, Problem, Settings};

/// Names that other trainers use, and ours.
const SYNONYMS: &[(&str, &str)] = &[
    ("adapter_rank", "rank"),
    ("base_model", "model"),
    ("batch_size", "micro_batch"),
    ("cutoff_len", "seq_len"),
    ("data_path", "data"),
    ("dataset", "data"),
    ("excess_length_strategy", "long"),
    ("finetuning_type", "train"),
    ("gradient_accumulation_steps", "accum"),
    ("gradient_checkpointing", "recompute"),
    ("inference_length", "target"),
    ("learning_rate", "lr"),
    ("logging_steps", "log_every"),
    ("lora_alpha", "alpha"),
    ("lora_r", "rank"),
    ("lora_rank", "rank"),
    ("lora_target", "lora_targets"),
    ("lora_target_modules", "lora_targets"),
    ("lr_scheduler", "schedule"),
    ("lr_scheduler_type", "schedule"),
    ("max_grad_norm", "clip"),
    ("max_length", "seq_len"),
    ("max_seq_length", "seq_len"),
    ("max_steps", "steps"),
    ("micro_batch_size", "micro_batch"),
    ("model_max_length", "target"),
    ("model_name_or_path", "model"),
    ("output_dir", "out"),
    ("per_device_train_batch_size", "micro_batch"),
    ("pose_max_context_len", "target"),
    ("pose_num_chunks", "pose_chunks"),
    ("resume_from_checkpoint", "resume"),
    ("rope_scaling", "rope"),
    ("sample_packing", "no_pack"),
    ("save_steps", "save_every"),
    ("save_total_limit", "keep"),
    ("sequence_len", "seq_len"),
    ("target_modules", "lora_targets"),
    ("train_length", "seq_len"),
    ("train_on_inputs", "loss"),
    ("train_on_prompt", "loss"),
    ("warmup_ratio", "warmup"),
    ("warmup_steps", "warmup"),
];
/// Likeness below which two names are unrelated; clap's own limit.
const ALIKE: f64 = 0.7;
/// Most `--threads`: more would wait for each other on any machine.
pub const MOST_THREADS: usize = 1024;
/// Most `--passkey-samples`: all prompts are written before the first is asked.
pub const MOST_SAMPLES: usize = 100_000;

/// Every key of a configuration file, which is every option of training.
pub fn keys() -> Vec<String> {
    let command = Settings::augment_args(clap::Command::new("keys"));
    command.get_arguments().map(|arg| arg.get_id().to_string()).collect()
}

/// Our key for another trainer's name.
pub fn synonym(key: &str) -> Option<&'static str> {
    SYNONYMS.iter().find(|(theirs, _)| *theirs == key).map(|(_, ours)| *ours)
}

/// The key that was probably meant.
pub fn suggest(key: &str) -> Option<String> {
    let key = key.replace('-', "_");
    if let Some(ours) = synonym(&key) {
        return Some(ours.to_owned());
    }
    let alike = keys().into_iter().map(|known| (strsim::jaro(&key, &known), known)).filter(|(likeness, _)| *likeness > ALIKE);
    alike.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, known)| known)
}

impl Settings {
    /// Settings of flags over `--set` assignments over a configuration file.
    ///
    /// # Errors
    /// Those of [`Settings::read`] and [`Settings::assigned`].
    pub fn gather(flags: Self, assignments: &[String], file: Option<&Path>) -> crate::Result<Self> {
        let problems = flags.uncountable();
        if !problems.is_empty() {
            return Err(ConfigError::Problems(problems).into());
        }
        let file = file.map(Self::read).transpose()?.unwrap_or_default();
        Ok(flags.over(Self::assigned(assignments)?.over(file)))
    }

    /// Reads a configuration file. Relative paths in it start at its folder.
    ///
    /// # Errors
    /// An unreadable file, TOML that does not parse, or the list of all unknown keys and unusable values.
    pub fn read(path: &Path) -> crate::Result<Self> {
        let text = std::fs::read_to_string(path).context("read", path)?;
        Ok(Self::parse(&text, path)?)
    }

    /// Parses the text of a configuration file; `path` is for messages and relative paths.
    ///
    /// # Errors
    /// As [`Settings::read`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let line = |at: usize| 1 + text.as_bytes().iter().take(at).filter(|b| **b == b'\n').count();
        let syntax = |e: toml::de::Error| ConfigError::Syntax {
            path: path.to_path_buf(),
            line: line(e.span().map_or(0, |span| span.start)),
            message: e.message().to_owned(),
        };
        let spans = toml::de::DeTable::parse(text).map_err(syntax)?;
        let lines = |key: &str| spans.get_ref().iter().find(|(k, _)| k.get_ref() == key).map(|(k, _)| line(k.span().start));
        let table: Table = toml::from_str(text).map_err(syntax)?;
        let at = |key: &str| lines(key).map(|line| format!("{}:{line}", path.display()));
        let mut settings = from_table(table, at)?;
        if let Some(folder) = path.parent() {
            settings.each_path(|p| *p = folder.join(&*p));
        }
        Ok(settings)
    }

    /// Settings from `KEY=VALUE` texts; a later one wins.
    ///
    /// # Errors
    /// Text without `=`, unknown keys and unusable values.
    pub fn assigned(assignments: &[String]) -> Result<Self, ConfigError> {
        let mut table = Table::new();
        for text in assignments {
            let (key, value) = text.split_once('=').ok_or_else(|| ConfigError::Assignment { got: text.clone() })?;
            let (key, value) = (key.trim().replace('-', "_"), value.trim());
            // A value that is no TOML is a word: --set positions=pose.
            let value = toml::from_str::<Table>(&format!("v = {value}")).ok().and_then(|mut t| t.remove("v"));
            let word = || Value::String(text.split_once('=').map_or("", |(_, v)| v.trim()).to_owned());
            table.insert(key, value.unwrap_or_else(word));
        }
        from_table(table, |_| Some("--set".to_owned()))
    }

    /// Counts that are slips: products of them would not fit anywhere, and TOML, in which runs are written down, ends at the
    /// largest `i64`.
    pub(super) fn uncountable(&self) -> Vec<Problem> {
        let wide = |n: Option<usize>| n.map(|n| n as u64);
        let many = u64::from(u32::MAX);
        let counts = [
            ("accum", wide(self.accum), many),
            ("e2_max_scale", wide(self.e2_max_scale), many),
            ("eval_every", self.eval_every, many),
            ("keep", wide(self.keep), many),
            ("log_every", self.log_every, many),
            ("micro_batch", wide(self.micro_batch), many),
            ("passkey_samples", wide(self.passkey_samples), MOST_SAMPLES as u64),
            ("pose_chunks", wide(self.pose_chunks), many),
            ("rank", wide(self.rank), many),
            ("save_every", self.save_every, many),
            ("seed", self.seed, i64::MAX as u64),
            ("steps", self.steps, many),
            ("threads", wide(self.threads), MOST_THREADS as u64),
        ];
        let slip = |(key, n, most): (&str, Option<u64>, u64)| {
            let n = n.filter(|&n| n > most)?;
            Some(Problem::new(key, format!("expected at most {most}, got {n}")).help("give a smaller number"))
        };
        counts.into_iter().filter_map(slip).collect()
    }

    /// These settings, and `base`'s where these say nothing.
    pub fn over(self, base: Self) -> Self {
        let (flags, mut merged) = (self.to_table(), base.to_table());
        for (one, other) in [("control", "no_control"), ("no_control", "control")] {
            if flags.contains_key(one) {
                merged.remove(other);
            }
        }
        merged.extend(flags);
        merged.try_into().expect("settings: what was written reads back")
    }

    /// A file for `--config` that says the same from any folder: paths in it are absolute.
    pub fn to_toml(&self) -> String {
        let text = toml::to_string(&self.anywhere()).expect("settings: every value is a TOML value");
        format!("# Effective settings; the same run again: ltrain --config THIS_FILE\n{text}")
    }

    /// The same settings with absolute paths.
    pub(super) fn anywhere(&self) -> Self {
        let mut settings = self.clone();
        settings.each_path(|path| {
            // Without a current folder a relative path stays what it is.
            if let Ok(absolute) = std::path::absolute(&*path) {
                *path = absolute;
            }
        });
        settings
    }

    /// Keys and values of what is set.
    pub(crate) fn to_table(&self) -> Table {
        Table::try_from(self).expect("settings: every value is a TOML value")
    }

    /// Visits every path of the file system.
    fn each_path(&mut self, mut visit: impl FnMut(&mut PathBuf)) {
        let plain =
            [&mut self.init, &mut self.tokenizer, &mut self.eval_data, &mut self.chat_template, &mut self.cache, &mut self.out];
        plain.into_iter().flatten().for_each(&mut visit);
        if let Some(ModelSource::Folder(path)) = &mut self.model {
            visit(path);
        }
        if let Some(Resume::From(path)) = &mut self.resume {
            visit(path);
        }
        for source in self.data.iter_mut().flatten() {
            if let Source::Path(path) = source {
                visit(path);
            }
        }
    }
}

/// Reads one key at a time, so that every bad one is reported.
fn from_table(table: Table, at: impl Fn(&str) -> Option<String>) -> Result<Settings, ConfigError> {
    let known = keys();
    let (mut good, mut problems) = (Table::new(), Vec::new());
    for (key, value) in table {
        let problem = if known.contains(&key) {
            let alone = Table::from_iter([(key.clone(), value.clone())]);
            match alone.try_into::<Settings>() {
                Ok(_) => {
                    good.insert(key, value);
                    continue;
                }
                Err(e) => Problem::new(&key, in_our_words(e.message())),
            }
        } else {
            let problem = Problem::new(&key, "unknown key");
            match suggest(&key) {
                Some(ours) => problem.help(format!("{key}: did you mean {ours}?")),
                None => problem.help("`ltrain --help` lists every option; its name is its key"),
            }
        };
        problems.push(Problem { at: at(&key), ..problem });
    }
    match problems.is_empty() {
        true => Ok(good.try_into().expect("settings: keys that are good one by one are good together")),
        false => Err(ConfigError::Problems(problems)),
    }
}

/// Serde's `invalid type: string "x", expected f64` as `expected a number, got string "x"`.
fn in_our_words(message: &str) -> String {
    let kinds = ["invalid type: ", "invalid value: "];
    let Some((got, expected)) = kinds.iter().find_map(|kind| message.strip_prefix(kind)?.rsplit_once(", expected ")) else {
        return message.to_owned();
    };
    let expected = match expected {
        "f32" | "f64" => "a number",
        "u64" | "usize" => "a whole number from 0",
        "a boolean" => "true or false",
        other => other,
    };
    format!("expected {expected}, got {got}")
}
