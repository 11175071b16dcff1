//! From what a model wrote to a number.

use super::longbench::Metric;

/// How an output is compared with the answers; scores are from 0 to 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// The share of the answers that occur in it, in any case (RULER's `string_match_all`).
    All,
    /// Whether any answer occurs in it (RULER's `string_match_part`).
    Part,
    /// The best of a metric over the answers.
    Best {
        /// The metric.
        metric: Metric,
        /// Every class there is, for [`Metric::Classification`].
        classes: Vec<String>,
        /// How much of the output counts.
        counts: Counts,
    },
}

/// Which part of an output is scored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counts {
    /// All of it.
    Everything,
    /// Its first line that is not empty.
    FirstLine,
}

impl Rule {
    /// The score of an output.
    pub fn score(&self, output: &str, answers: &[String]) -> f64 {
        match self {
            Self::All => occurring(output, answers) as f64 / answers.len().max(1) as f64,
            Self::Part => f64::from(u8::from(occurring(output, answers) > 0)),
            Self::Best { metric, classes, counts } => {
                let output = match counts {
                    Counts::Everything => output,
                    Counts::FirstLine => first_line(output),
                };
                answers.iter().map(|answer| metric.score(output, answer, classes)).fold(0.0, f64::max)
            }
        }
    }

    /// Whether nothing that may still follow changes the score of an output.
    pub fn settled(&self, output: &str, answers: &[String]) -> bool {
        match self {
            Self::All => occurring(output, answers) == answers.len(),
            Self::Part => occurring(output, answers) > 0,
            Self::Best { counts: Counts::FirstLine, .. } => output.trim_start_matches('\n').contains('\n'),
            Self::Best { .. } => false,
        }
    }
}

fn occurring(output: &str, answers: &[String]) -> usize {
    let output = output.to_lowercase();
    answers.iter().filter(|answer| output.contains(&answer.to_lowercase())).count()
}

fn first_line(output: &str) -> &str {
    output.trim_start_matches('\n').split('\n').next().unwrap_or_default()
}

/// Mean of scores and its standard error, `s/√n` with the sample's deviation; NaN for fewer than two.
pub fn mean_and_error(scores: &[f64]) -> (f64, f64) {
    let n = scores.len() as f64;
    let mean = scores.iter().sum::<f64>() / n;
    let squares: f64 = scores.iter().map(|s| (s - mean).powi(2)).sum();
    (mean, (squares / (n - 1.0) / n).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(all: &[&str]) -> Vec<String> {
        all.iter().map(|a| (*a).to_string()).collect()
    }

    #[test]
    fn rulers_scores_are_shares_of_occurring_answers() {
        let wanted = answers(&["1234567", "AbC"]);
        assert_eq!(Rule::All.score("it is 1234567 and abc.", &wanted), 1.0);
        assert_eq!(Rule::All.score("it is 12345670", &wanted), 0.5);
        assert_eq!(Rule::All.score("123456", &wanted), 0.0);
        assert_eq!(Rule::Part.score("ABC", &wanted), 1.0);
        assert_eq!(Rule::Part.score("", &wanted), 0.0);
    }

    #[test]
    fn an_output_is_settled_when_no_more_words_can_matter() {
        let wanted = answers(&["one", "two"]);
        let lines = Rule::Best { metric: Metric::F1, classes: Vec::new(), counts: Counts::FirstLine };
        assert!(!Rule::All.settled("One", &wanted) && Rule::All.settled("One TWO", &wanted));
        assert!(!Rule::Part.settled("on", &wanted) && Rule::Part.settled("two", &wanted));
        assert!(!lines.settled("\n\none", &wanted) && lines.settled("\none\nt", &wanted));
        assert_eq!(lines.score("\n\none\ntwo", &wanted), 1.0);
    }

    #[test]
    fn the_error_of_a_mean_is_the_samples_deviation_by_the_root_of_their_number() {
        // statistics.stdev([0, 0.5, 1, 1]) / 2, by Python.
        let (mean, error) = mean_and_error(&[0.0, 0.5, 1.0, 1.0]);
        assert!((mean - 0.625).abs() < 1e-12 && (error - 0.239_356_776_939_084_9).abs() < 1e-12, "{mean} {error}");
        assert!(mean_and_error(&[1.0]).1.is_nan());
    }
}
