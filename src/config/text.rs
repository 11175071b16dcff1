//! Values as people write them: one spelling for flags and for configuration files.

mod scalar;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::data::synthetic::{Stage, SyntheticError};
use crate::data::{Columns, Holdout};
use crate::model::LoraTarget;
use crate::model::rope::RopeKind;
use crate::units::{format_length, format_size, parse_length, parse_size};

use super::choices::{Preset, Shapes, Task};
use super::defaults::MODEL;

pub(super) use scalar::one_or_many;
pub use scalar::{Item, List};

/// A number of tokens: `4096`, `128k`, `1m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Length(pub usize);

impl FromStr for Length {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse_length(text).map(Self)
    }
}

impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format_length(self.0))
    }
}

/// A number of bytes: `80g`, `512m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size(pub u64);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse_size(text).map(Self)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format_size(self.0))
    }
}

/// A place in a text: `0.5`, `50%`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Depth(pub f64);

impl FromStr for Depth {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let share = percent(text).or_else(|| text.parse().ok()).filter(|share: &f64| (0.0..=1.0).contains(share));
        share.map(Self).ok_or_else(|| format!("expected a share from 0 to 1 or a percentage from 0% to 100%, got {text:?}"))
    }
}

impl fmt::Display for Depth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", in_percent(self.0))
    }
}

impl Item for Depth {}
impl Item for Length {}
impl Item for Shapes {}
impl Item for Task {}
impl Item for RopeKind {}
impl Item for f64 {}
impl Item for LoraTarget {
    fn all() -> Option<Vec<Self>> {
        Some(Self::ALL.to_vec())
    }
}

/// `--warmup`: steps, or a share of all steps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Warmup {
    /// This many steps.
    Steps(u64),
    /// This share of `--steps`, in `[0, 1)`.
    Share(f64),
}

impl Warmup {
    /// Steps of warm-up in a run of `total` steps.
    pub fn steps(self, total: u64) -> u64 {
        match self {
            Self::Steps(n) => n,
            Self::Share(share) => (share * total as f64).round() as u64,
        }
    }
}

impl FromStr for Warmup {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let share = || percent(text).filter(|share| *share < 1.0).map(Self::Share);
        let steps = || text.parse().ok().map(Self::Steps);
        share().or_else(steps).ok_or_else(|| format!("expected a number of steps or a share such as 3%, got {text:?}"))
    }
}

impl fmt::Display for Warmup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Steps(n) => write!(f, "{n}"),
            Self::Share(share) => write!(f, "{}%", in_percent(*share)),
        }
    }
}

impl fmt::Display for Holdout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Docs(n) => write!(f, "{n}"),
            Self::Share(share) => write!(f, "{}%", in_percent(*share)),
        }
    }
}

/// `--model`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ModelSource {
    /// The model in the program.
    #[default]
    Builtin,
    /// A Hugging Face folder.
    Folder(PathBuf),
}

impl ModelSource {
    /// Where its configuration is, for messages.
    pub fn config_file(&self) -> String {
        match self {
            Self::Builtin => self.to_string(),
            Self::Folder(path) => path.join("config.json").display().to_string(),
        }
    }
}

impl FromStr for ModelSource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("builtin:") {
            Some(_) if text == MODEL => Ok(Self::Builtin),
            Some(_) => Err(format!("expected a folder or {MODEL}, got {text:?}")),
            None if text.is_empty() => Err(format!("expected a folder or {MODEL}, got nothing")),
            None => Ok(Self::Folder(text.into())),
        }
    }
}

impl fmt::Display for ModelSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Builtin => f.write_str(MODEL),
            Self::Folder(path) => path.display().fmt(f),
        }
    }
}

/// Training text: files, or documents made up as they are needed.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    /// `synthetic:STAGE`.
    Synthetic(Stage),
    /// A file or a folder.
    Path(PathBuf),
}

impl Source {
    /// The stage of synthetic text.
    pub fn stage(&self) -> Option<Stage> {
        match self {
            Self::Synthetic(stage) => Some(*stage),
            Self::Path(_) => None,
        }
    }
}

impl FromStr for Source {
    type Err = SyntheticError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.starts_with("synthetic:") {
            true => text.parse().map(Self::Synthetic),
            false => Ok(Self::Path(text.into())),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Synthetic(stage) => stage.fmt(f),
            Self::Path(path) => path.display().fmt(f),
        }
    }
}

impl fmt::Display for Columns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "text={}", self.text)
    }
}

/// `--method`: a preset, with or without its paper's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recipe {
    /// The method.
    pub preset: Preset,
    /// Whether the paper's hyper-parameters come with it.
    pub paper: bool,
}

impl FromStr for Recipe {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, paper) = text.strip_suffix(":paper").map_or((text, false), |name| (name, true));
        if paper && name == Preset::Uniform.name() {
            return Err("uniform is our own and has no paper: leave out :paper".into());
        }
        let preset = name.parse().map_err(|e| format!("{e}; and :paper behind one for its paper's numbers"))?;
        Ok(Self { preset, paper })
    }
}

impl fmt::Display for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.preset, if self.paper { ":paper" } else { "" })
    }
}

/// A part of a whole: `15%`, `0.15`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Portion(pub f64);

impl FromStr for Portion {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let plain = || text.parse().ok().filter(|x: &f64| (0.0..=1.0).contains(x));
        let value = percent(text).or_else(plain).map(Self);
        value.ok_or_else(|| format!("expected a share such as 15% or 0.15, got {text:?}"))
    }
}

impl fmt::Display for Portion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", in_percent(self.0))
    }
}

/// `--weight` of a merge.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum BlendWeight {
    /// How much of the model that is mixed in, from 0 to 1.
    Fixed(f64),
    /// Whatever measures best.
    Search,
}

impl Default for BlendWeight {
    /// LongRecipe's (arXiv 2409.00509, appendix A).
    fn default() -> Self {
        Self::Fixed(0.5)
    }
}

impl FromStr for BlendWeight {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let weight = || text.parse().ok().filter(|w| (0.0..=1.0).contains(w)).map(Self::Fixed);
        let search = (text == "search").then_some(Self::Search);
        search.or_else(weight).ok_or_else(|| format!("expected a number from 0 to 1 or search, got {text:?}"))
    }
}

/// `3%` as 0.03; nothing without a per cent sign or outside `0..=100`.
fn percent(text: &str) -> Option<f64> {
    let value: f64 = text.strip_suffix('%')?.trim().parse().ok()?;
    (0.0..=100.0).contains(&value).then_some(value / 100.0)
}

/// A share in per cent, without the digits that the division by 100 added.
fn in_percent(share: f64) -> f64 {
    (share * 1e10).round() / 1e8
}

/// `--resume`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Resume {
    /// Continue an unfinished run with the same configuration in the output folder, if there is one.
    #[default]
    Auto,
    /// Continue this run or checkpoint.
    From(PathBuf),
    /// Start anew.
    Never,
}

impl FromStr for Resume {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "auto" => Self::Auto,
            "never" => Self::Never,
            path => Self::From(path.into()),
        })
    }
}

impl fmt::Display for Resume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Never => f.write_str("never"),
            Self::From(path) => path.display().fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_and_counts_read_back() {
        for text in ["0", "20", "3%", "0.5%", "12.3%"] {
            assert_eq!(text.parse::<Warmup>().unwrap().to_string(), text);
        }
        for text in ["none", "64", "1%", "2.5%"] {
            assert_eq!(text.parse::<Holdout>().unwrap().to_string(), text);
        }
        for bad in ["", "-1", "100%", "3 %%", "x"] {
            assert!(bad.parse::<Warmup>().is_err(), "{bad:?} was accepted");
        }
        assert_eq!(Warmup::Share(0.03).steps(200), 6);
    }

    #[test]
    fn lists_read_back() {
        for text in ["256,1k,2k", "none"] {
            assert_eq!(text.parse::<List<Length>>().unwrap().to_string(), text);
        }
        assert_eq!("all".parse::<List<LoraTarget>>().unwrap().0.len(), 7);
        assert!("all".parse::<List<Length>>().is_err());
        assert!("1k,,2k".parse::<List<Length>>().is_err());
    }
}
