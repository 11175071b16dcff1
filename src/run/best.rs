//! The best state of a training by what was measured while it ran, which is not always the last.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::checkpoint;
use crate::config::choices::Best as Criterion;
use crate::error::{IoContext, Result};
use crate::io::atomic::write_bytes_atomically;
use crate::report::record::ValidationRecord;

/// Folder of the best checkpoint, beside the others.
const FOLDER: &str = "best";
/// What was measured of it.
const MEASURED: &str = "best.json";

/// Keeps the best state.
pub struct Best {
    folder: PathBuf,
    by: Criterion,
    /// What was measured with: only like is compared with like.
    with: String,
    so_far: Option<ValidationRecord>,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    by: String,
    with: String,
    measured: ValidationRecord,
}

impl Best {
    /// The best state of the training in `run` so far; `None` where the last one is wanted. `with` names everything that a measurement
    /// depends on besides the state.
    pub fn open(run: &Path, by: Criterion, with: String) -> Result<Option<Self>> {
        if by == Criterion::Last {
            return Ok(None);
        }
        let folder = run.join(FOLDER);
        let path = folder.join(MEASURED);
        let kept = match path.exists() {
            true => serde_json::from_slice::<Kept>(&std::fs::read(&path).context("read", &path)?).ok(),
            false => None,
        };
        let kept = kept.filter(|kept| kept.by == by.name() && kept.with == with);
        let mut best = Self { folder, by, with, so_far: kept.map(|kept| kept.measured) };
        // A run that was killed between the two files has another checkpoint here than was measured; it measures that one again.
        if best.checkpoint()?.is_none() {
            best.so_far = None;
        }
        Ok(Some(best))
    }

    /// Takes note of a measurement; `save` writes a checkpoint of the state into the folder that it is given. The checkpoint comes
    /// first: what is said of it is never said of another.
    pub fn consider(&mut self, new: &ValidationRecord, save: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        if !self.so_far.as_ref().is_none_or(|old| is_better(self.by, new, old)) {
            return Ok(());
        }
        save(&self.folder)?;
        let kept = Kept { by: self.by.to_string(), with: self.with.clone(), measured: new.clone() };
        let text = serde_json::to_vec_pretty(&kept).expect("best: numbers serialise");
        write_bytes_atomically(&self.folder.join(MEASURED), &text)?;
        self.so_far = Some(new.clone());
        Ok(())
    }

    /// The checkpoint to go back to at the end, and what was measured of it.
    pub fn checkpoint(&self) -> Result<Option<(PathBuf, &ValidationRecord)>> {
        let Some(measured) = &self.so_far else { return Ok(None) };
        let path = self.folder.join(checkpoint::folder_name(measured.step));
        Ok(if path.exists() { checkpoint::newest(&path)?.0.map(|path| (path, measured)) } else { None })
    }
}

/// Whether `new` is better than `old`; among equals the earlier one stays. Of states that retrieve as much, the one of less loss is
/// better. What is no number is worse than any.
fn is_better(by: Criterion, new: &ValidationRecord, old: &ValidationRecord) -> bool {
    let gain = |at: &ValidationRecord| if at.loss.is_nan() { f64::NEG_INFINITY } else { -at.loss };
    let found = |at: &ValidationRecord| at.retrieval.filter(|x| !x.is_nan()).unwrap_or(f64::NEG_INFINITY);
    match by {
        Criterion::Last => true,
        Criterion::Loss => gain(new) > gain(old),
        Criterion::Retrieval => (found(new), gain(new)) > (found(old), gain(old)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(step: u64, loss: f64, retrieval: Option<f64>) -> ValidationRecord {
        ValidationRecord { step, loss, retrieval }
    }

    #[test]
    fn retrieval_decides_then_loss_then_time() {
        let by = Criterion::Retrieval;
        assert!(is_better(by, &at(2, 9.0, Some(0.6)), &at(1, 1.0, Some(0.5))));
        assert!(!is_better(by, &at(2, 1.0, Some(0.4)), &at(1, 9.0, Some(0.5))));
        assert!(is_better(by, &at(2, 1.0, Some(0.5)), &at(1, 2.0, Some(0.5))));
        assert!(!is_better(by, &at(2, 1.0, Some(0.5)), &at(1, 1.0, Some(0.5))));
        assert!(!is_better(by, &at(2, 1.0, Some(f64::NAN)), &at(1, 1.0, Some(0.0))));
        assert!(is_better(Criterion::Loss, &at(2, 1.0, Some(0.0)), &at(1, 2.0, Some(1.0))));
        assert!(!is_better(Criterion::Loss, &at(2, f64::NAN, None), &at(1, 2.0, None)));
        assert!(is_better(Criterion::Loss, &at(2, 2.0, None), &at(1, f64::NAN, None)));
    }

    #[test]
    fn only_a_better_state_is_saved() {
        let dir = tempfile::tempdir().unwrap();
        let mut saved = Vec::new();
        let mut best = Best::open(dir.path(), Criterion::Loss, "a".into()).unwrap().unwrap();
        for (step, loss) in [(10, 3.0), (20, 2.0), (30, 2.5)] {
            let save = |folder: &Path| {
                std::fs::create_dir_all(folder).unwrap();
                saved.push(step);
                Ok(())
            };
            best.consider(&at(step, loss, None), save).unwrap();
        }
        assert_eq!(saved, [10, 20]);
        // What was said of a checkpoint that is not there is not believed.
        let again = Best::open(dir.path(), Criterion::Loss, "a".into()).unwrap().unwrap();
        assert!(again.so_far.is_none());
        assert!(Best::open(dir.path(), Criterion::Last, "a".into()).unwrap().is_none());
    }
}
