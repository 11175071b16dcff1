//! The curriculum and the long documents.

use anyhow::Result;
use ltrain::data::synthetic::{STAGES, Stage, recalls};

use crate::CONTEXT;

#[test]
fn stages_read_back_as_they_are_written() -> Result<()> {
    for stage in STAGES {
        assert_eq!(stage.to_string().parse::<Stage>()?, stage);
        let sum: f64 = stage.mix.iter().map(|m| m.0).sum();
        assert!((sum - 1.0).abs() < 1e-12, "{stage}");
    }
    for wrong in ["synthetic:", "synthetic:facts", "repeat", "synthetic:repeat "] {
        let message = wrong.parse::<Stage>().unwrap_err().to_string();
        assert!(message.contains(wrong) && message.contains("synthetic:facts-64"), "{message}");
    }
    Ok(())
}

#[test]
fn recalls_reach_back_over_every_distance() -> Result<()> {
    for (stage, latest) in [("facts-256", 256), ("long-2048", 2048), ("long-8192", 8192)] {
        let stage: Stage = format!("synthetic:{stage}").parse()?;
        let mut quarters = [0; 4];
        for index in 0..60 {
            for recall in recalls(&stage.document(11, index)?.tokens) {
                quarters[recall.first * 4 / latest] += 1;
                assert!(recall.back <= recall.first);
            }
        }
        let share = |n: i32| f64::from(n) / f64::from(quarters.iter().sum::<i32>());
        assert!(share(quarters[0]) < 0.6, "{stage}: {quarters:?}");
        assert!(share(quarters[2] + quarters[3]) > 0.1, "{stage}: {quarters:?}");
        assert!(quarters[3] > 0, "{stage}: {quarters:?}");
    }
    Ok(())
}

#[test]
fn beyond_the_short_context_most_answers_of_long_documents_are_out_of_its_reach() -> Result<()> {
    for stage in ["synthetic:long-2048", "synthetic:long-8192"] {
        let stage: Stage = stage.parse()?;
        let (mut far, mut all) = (0, 0);
        for index in 0..20 {
            for recall in recalls(&stage.document(4, index)?.tokens) {
                far += usize::from(recall.at > CONTEXT && recall.back > CONTEXT);
                all += usize::from(recall.at > CONTEXT);
            }
        }
        assert!(5 * far > 3 * all, "{stage}: {far} of {all}");
    }
    Ok(())
}
