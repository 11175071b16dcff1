//! What a finished run writes down: the report and the files other tools look for.

use std::path::Path;

use super::best::Best;
use super::job::Job;
use super::session::LOG;
use crate::config::RunConfig;
use crate::error::{IoContext, Result};
use crate::io::atomic::write_bytes_atomically;
use crate::io::hf_config;
use crate::ops::attention::Segments;
use crate::ops::cross_entropy::IGNORE;
use crate::positions::{Coverage, CoverageBucket};
use crate::report::log::TrainerState;
use crate::report::record::{
    CoverageRecord, EvalRecord, Export as ExportRecord, MethodRecord, ModelRecord, Origin, RunRecord, Setting, StepRecord,
    ValidationRecord,
};
use crate::report::{self, clock};
use crate::units::{format_bytes, format_count};

/// Bars of the coverage plot.
const COVERAGE_BARS: usize = 64;
/// [`Coverage::work`] after which no more rows are counted. Positions in a few runs never get there; scattered ones
/// (`random`) cost the square of a row's length, and this is a second of it.
const COVERAGE_WORK: u64 = 1 << 27;

impl Job<'_> {
    /// `report.*`, plots, the model card, `trainer_state.json` and `env.json`.
    pub(super) fn write_records(&self, record: &RunRecord) -> Result<()> {
        let train = &self.config.train;
        let mut state = TrainerState {
            max_steps: train.steps,
            save_steps: self.config.output.save_every,
            eval_steps: self.config.eval.every.unwrap_or(0),
            logging_steps: self.config.output.log_every.unwrap_or(0),
            train_batch_size: train.micro_batch as u64,
            ..TrainerState::default()
        };
        record.steps.iter().for_each(|step| state.push_step(step));
        for at in &record.validation {
            state.push_validation(at);
        }
        state.save(&self.path().join("trainer_state.json"))?;
        let machine = crate::doctor::machine();
        write_bytes_atomically(&self.path().join("env.json"), machine.as_bytes())?;
        report::write(self.path(), record).map(drop)
    }

    /// Everything the run measured.
    pub(super) fn record(&self, evaluations: Vec<EvalRecord>, trainable: u64) -> Result<RunRecord> {
        let RunConfig { model, data, positions, train, .. } = self.config;
        let (steps, validation) = read_log(&self.path().join(LOG))?;
        let (merged, adapter) = self.wants();
        let at = |name: &str| self.path().join(name).display().to_string();
        let lora = train.lora.as_ref();
        let table = self.config.settings().to_table();
        let mut notes = vec![format!("Text: {}. Peak memory: {}.", self.text.summary, format_bytes(self.memory.most()))];
        let earlier = match self.folder.earlier_devices() {
            [] => String::new(),
            devices => format!("; before it was continued there: {}", devices.join(", ")),
        };
        let seen = self.rows_seen()?;
        notes.push(self.cost_note(&seen));
        let RowsSeen { coverage, uncounted, .. } = seen;
        notes.extend(uncounted);
        notes.extend(self.best_note(&validation));
        if self.config.eval.control {
            notes.push(
                "The control had the same steps, data, rotation and learning rate at contiguous positions: what it gains is the model \
                 getting used to the new rotation, what the method gains beyond it is the method's."
                    .into(),
            );
        }
        Ok(RunRecord {
            model: ModelRecord {
                name: model.name.clone(),
                parameters: self.base.dir.config().parameters(),
                trainable,
                context: positions.context,
                rope: positions.base_rope.to_string(),
            },
            method: MethodRecord {
                positions: positions.label(),
                rope: positions.target_rope.to_string(),
                mode: lora.map_or(train.mode.to_string(), |l| format!("{} r={}", train.mode, l.rank)),
                data: self.text.summary.clone(),
                target: positions.target,
                seq_len: data.seq_len,
                steps: train.steps,
                tokens: train.steps * self.config.tokens_per_step() as u64,
            },
            origin: Origin {
                command: self.command.to_string(),
                version: format!("ltrain {}", env!("CARGO_PKG_VERSION")),
                device: format!("{}, {} threads{earlier}", self.place, rayon::current_num_threads()),
                date: clock::iso(clock::now()),
                seed: train.seed,
            },
            export: ExportRecord {
                base: self.base_name(),
                merged: merged.then(|| at("merged")),
                adapter: adapter.then(|| at("adapter")),
                patched_config: adapter.then(|| at("adapter/base_config")),
                rank: lora.map(|l| l.rank),
                overrides: Some(self.overrides()),
            },
            settings: table.into_iter().map(|(key, value)| Setting { key, value: value.to_string() }).collect(),
            steps,
            validation,
            evaluations,
            covered_share: coverage.share_seen(positions.context..positions.target),
            coverage: Some(coverage_records(&coverage)),
            notes,
        })
    }

    /// Which step the result is of, where that was to be the best.
    fn best_note(&self, validation: &[ValidationRecord]) -> Option<String> {
        let best = Best::open(self.path(), self.config.eval.best, self.measured_with()).ok()??;
        let (_, at) = best.checkpoint().ok()??;
        let found = at.retrieval.map_or(String::new(), |share| format!(", retrieval {:.0} %", 100.0 * share));
        let (step, by, count) = (at.step, self.config.eval.best, validation.len());
        Some(format!("The result is step {step}, the best by {by} of {count} that were measured: loss {:.4}{found}.", at.loss))
    }

    /// What changed in `config.json`.
    fn overrides(&self) -> String {
        let extended = hf_config::extended_config(self.base.dir.raw(), &self.extended());
        let keys = ["max_position_embeddings", "rope_parameters"];
        let picked: serde_json::Map<_, _> =
            keys.iter().filter_map(|k| Some((k.to_string(), extended.get(*k)?.clone()))).collect();
        serde_json::Value::Object(picked).to_string()
    }

    /// What the run's rows contained.
    fn rows_seen(&self) -> Result<RowsSeen> {
        let train = &self.config.train;
        let rows = train.steps * (train.accum * train.micro_batch) as u64;
        let coverage = Coverage::new(self.config.positions.target, COVERAGE_BARS);
        let mut seen = RowsSeen { coverage, pairs: 0.0, tokens: 0, uncounted: None };
        for row in 0..rows {
            if seen.coverage.work() > COVERAGE_WORK {
                let (row, rows) = (format_count(row), format_count(rows));
                seen.uncounted = Some(format!("Distances seen in training were counted in the first {row} of {rows} rows."));
                break;
            }
            let batch = self.text.rows.batch(row, 1)?;
            let positions = batch.positions.as_u32()?;
            let targets = batch.targets.ids.as_u32()?;
            for piece in documents(&batch.segments) {
                // Of padding nothing is learned.
                if targets[piece.clone()].iter().any(|&id| id != IGNORE) {
                    seen.coverage.add(&positions[piece]);
                }
            }
            seen.pairs += pairs(&batch.segments);
            seen.tokens += positions.len() as u64;
        }
        Ok(seen)
    }

    /// What a step costs for its target: how long rows are, and how many pairs of tokens attention visits.
    fn cost_note(&self, seen: &RowsSeen) -> String {
        let (row, target) = (self.config.data.seq_len, self.config.positions.target);
        let of_whole_rows = (target + 1) as f64 / 2.0;
        // Rows of the base's context were not made for this target.
        let any_target =
            if row == self.config.positions.context { " Rows of this length cost the same at any target." } else { "" };
        format!(
            "A row has {} tokens, {:.0} % of the target. Attention visited {:.1} % of the pairs of tokens that as many tokens in contiguous \
             rows of the whole target have.{any_target}",
            format_count(row as u64),
            100.0 * row as f64 / target as f64,
            100.0 * seen.pairs / seen.tokens.max(1) as f64 / of_whole_rows,
        )
    }
}

/// What rows contained.
struct RowsSeen {
    /// Distances between tokens that could see each other.
    coverage: Coverage,
    /// Pairs of tokens of which one saw the other, itself among them; the mean over the heads.
    pairs: f64,
    tokens: u64,
    /// A remark when not all rows were counted.
    uncounted: Option<String>,
}

/// Pairs of a query and a key that it sees; the mean of both halves of the heads.
fn pairs(segments: &Segments) -> f64 {
    let row = |starts: &[u32]| (0u32..).zip(starts).map(|(query, start)| u64::from(query - start) + 1).sum::<u64>();
    segments.starts.iter().map(|starts| row(starts) as f64).sum::<f64>() / segments.starts.len() as f64
}

fn coverage_records(coverage: &Coverage) -> Vec<CoverageRecord> {
    let seen = coverage.rows() as f64;
    let record = |b: CoverageBucket| CoverageRecord {
        distance_lo: b.distance_lo as u64,
        distance_hi: b.distance_hi as u64,
        pairs: b.pairs as u64,
        covered_rows: (b.covered_rows * seen).round() as u64,
    };
    coverage.buckets().into_iter().map(record).collect()
}

/// Token ranges that see only themselves, from the first half of the heads' segment table of one row.
fn documents(segments: &Segments) -> impl Iterator<Item = std::ops::Range<usize>> {
    let starts = &segments.starts[0];
    let mut at = 0;
    std::iter::from_fn(move || {
        let first = at;
        let begin = *starts.get(first)?;
        at = starts[first..].iter().position(|&s| s != begin).map_or(starts.len(), |n| first + n);
        Some(first..at)
    })
}

/// Steps and validation losses of a training log.
fn read_log(path: &Path) -> Result<(Vec<StepRecord>, Vec<ValidationRecord>)> {
    let text = std::fs::read_to_string(path).context("read", path)?;
    let (mut steps, mut validation) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let Ok(value) = serde_json::from_str::<serde_json::Value>(line) else { continue };
        let number = |key: &str| value.get(key).and_then(serde_json::Value::as_f64);
        let step = value.get("current_steps").and_then(serde_json::Value::as_u64).unwrap_or(0);
        if value.get("eval_loss").is_some() {
            let loss = number("eval_loss").unwrap_or(f64::NAN);
            validation.push(ValidationRecord { step, loss, retrieval: number("eval_retrieval") });
        } else {
            let get = |key| number(key).unwrap_or(f64::NAN);
            steps.push(StepRecord {
                step,
                loss: get("loss"),
                grad_norm: get("grad_norm"),
                lr: get("lr"),
                tokens_per_second: get("throughput"),
                memory_bytes: (get("vram_peak_gib") * f64::from(1 << 30)) as u64,
                seconds: seconds_of(value.get("elapsed_time").and_then(|v| v.as_str()).unwrap_or("")),
                epoch: get("epoch"),
                total_tokens: value.get("total_tokens").and_then(serde_json::Value::as_u64).unwrap_or(0),
            });
        }
    }
    Ok((steps, validation))
}

/// `0:01:42` → 102.
fn seconds_of(clock: &str) -> f64 {
    clock.split(':').filter_map(|part| part.parse::<f64>().ok()).fold(0.0, |sum, part| sum * 60.0 + part)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Attend;
    use crate::data::attend::Group;

    #[test]
    fn shifted_groups_visit_less_than_a_quarter_of_the_pairs() {
        let n = 1024;
        let visited = |attend: Attend| pairs(&attend.segments(&[vec![0]], n));
        assert_eq!(visited(Attend::Full), (n * (n + 1) / 2) as f64);
        // 25 % of the plain half's pairs and 21.9 % of the shifted half's, as methods count them without the diagonal.
        let share = visited(Attend::Shifted { group: Group::Parts(4) }) / visited(Attend::Full);
        assert!((share - 0.2344).abs() < 1e-3, "{share}");
    }
}
