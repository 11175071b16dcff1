//! What the terminal shows while work goes on: a bar, or plain lines.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::config::choices::Progress;
use crate::train::StepReport;
use crate::units::{format_count, format_duration};

/// How progress is shown, decided once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ui {
    /// A bar on stderr.
    Bar,
    /// A line on stderr per logged step.
    Plain,
    /// Results and errors only.
    Quiet,
}

impl Ui {
    /// `auto` is a bar on a terminal.
    pub fn new(progress: Progress) -> Self {
        match progress {
            Progress::Bar => Self::Bar,
            Progress::Plain => Self::Plain,
            Progress::Quiet => Self::Quiet,
            Progress::Auto if std::io::stderr().is_terminal() => Self::Bar,
            Progress::Auto => Self::Plain,
        }
    }

    /// A remark on stderr.
    pub fn say(self, text: &str) {
        if self != Self::Quiet {
            // Nobody is left to tell when stderr is closed.
            let _ = writeln!(std::io::stderr(), "{text}");
        }
    }

    /// A bar over `total` units of work; invisible unless bars are shown.
    pub fn bar(self, what: &str, total: u64) -> Bar {
        let target = if self == Self::Bar { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(total.max(1)), target);
        let template = "{prefix:<22} {bar:28.cyan/black.dim} {percent:>3}%  {msg}";
        let style = ProgressStyle::with_template(template).expect("ui: the template is constant and valid");
        bar.set_style(style.progress_chars("━━╌"));
        bar.set_prefix(what.to_string());
        if self == Self::Bar {
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        Bar(bar)
    }
}

/// One piece of work in progress. It disappears when dropped.
pub struct Bar(ProgressBar);

impl Bar {
    /// Units done of all, and what to say beside the bar.
    pub fn at(&self, done: u64, total: u64, message: String) {
        self.0.set_length(total.max(1));
        self.0.set_position(done.min(total));
        self.0.set_message(message);
    }

    /// A line above the bar.
    pub fn say(&self, ui: Ui, text: &str) {
        self.0.suspend(|| ui.say(text));
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// The human line of a step, always the same fields in the same order.
pub fn step_line(report: &StepReport, steps: u64, tokens_per_second: f64, remaining: f64) -> String {
    let width = steps.to_string().len();
    let mut line = format!(
        "step {:>width$}/{steps} | loss {:.4} | norm {:.3} | lr {:.2e} | {:>7} tok/s | eta {}",
        report.step,
        report.loss,
        report.grad_norm,
        report.lr,
        format_count(tokens_per_second as u64),
        format_duration(remaining),
    );
    if report.skipped > 0 {
        line += &format!(" | {} skipped", report.skipped);
    }
    line
}

/// What stands beside the bar of a training.
pub fn bar_message(report: &StepReport, steps: u64, tokens_per_second: f64, remaining: f64) -> String {
    format!(
        "{}/{steps}  loss {:.3}  {} tok/s  eta {}",
        report.step,
        report.loss,
        format_count(tokens_per_second as u64),
        format_duration(remaining)
    )
}
