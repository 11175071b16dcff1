//! Values as people write them: one spelling for flags and for configuration files.

use std::fmt;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::str::FromStr;

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::backend::gpu::Gpus;
use crate::data::synthetic::{Stage, SyntheticError};
use crate::data::{Columns, Holdout};
use crate::io::Storage;
use crate::model::rope::RopeKind;
use crate::model::{LoraTarget, Recompute};
use crate::optim::Shape;
use crate::positions::{self, MethodError};
use crate::train::TrainMode;
use crate::units::{format_length, parse_length};

use super::defaults::MODEL;
use super::choices::{Attention, Export, NanPolicy, Preset, Progress, Task};

/// Reads a scalar of a configuration file as if it had been typed as a flag.
struct Scalar<T>(PhantomData<T>);

impl<T: FromStr> Visitor<'_> for Scalar<T>
where
    T::Err: fmt::Display,
{
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or a number")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_i64<E: serde::de::Error>(self, n: i64) -> Result<T, E> {
        self.visit_str(&n.to_string())
    }

    fn visit_u64<E: serde::de::Error>(self, n: u64) -> Result<T, E> {
        self.visit_str(&n.to_string())
    }

    fn visit_f64<E: serde::de::Error>(self, n: f64) -> Result<T, E> {
        self.visit_str(&n.to_string())
    }
}

/// Writes a value as it is typed: whole numbers and decimals bare, all else as a string.
fn write<S: Serializer>(value: &impl fmt::Display, s: S) -> Result<S::Ok, S::Error> {
    let text = value.to_string();
    match (text.parse::<i64>(), text.parse::<f64>()) {
        (Ok(n), _) if n.to_string() == text => s.serialize_i64(n),
        (_, Ok(x)) if x.is_finite() && x.to_string() == text => s.serialize_f64(x),
        _ => s.serialize_str(&text),
    }
}

/// Serde through `Display` and `FromStr`.
macro_rules! as_text {
    ($($ty:ty),* $(,)?) => {$(
        impl Serialize for $ty {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                write(self, s)
            }
        }

        impl<'de> Deserialize<'de> for $ty {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                d.deserialize_any(Scalar(PhantomData))
            }
        }
    )*};
}

as_text!(
    Attention, Columns, Export, Gpus, Holdout, Length, LoraTarget, ModelSource, NanPolicy, PositionMethod, Preset, Progress,
    Recompute, Resume, RopeKind, Shape, Source, Storage, Task, TrainMode, Warmup,
);

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

/// Values separated by commas (an array in a file); `none` is the empty list, `all` every value of a type that can
/// list them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List<T>(pub Vec<T>);

/// What a [`List`] holds.
pub trait Item: FromStr + fmt::Display {
    /// What `all` stands for.
    fn all() -> Option<Vec<Self>> {
        None
    }
}

impl Item for Length {}
impl Item for Task {}
impl Item for RopeKind {}
impl Item for f64 {}
impl Item for LoraTarget {
    fn all() -> Option<Vec<Self>> {
        Some(Self::ALL.to_vec())
    }
}

impl<T: Item> FromStr for List<T>
where
    T::Err: fmt::Display,
{
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text.trim(), T::all()) {
            ("none", _) => Ok(Self(Vec::new())),
            ("all", Some(all)) => Ok(Self(all)),
            (text, _) => text.split(',').map(|item| item.trim().parse().map_err(|e: T::Err| e.to_string())).collect::<Result<_, _>>().map(Self),
        }
    }
}

impl<T: fmt::Display> fmt::Display for List<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        self.0.iter().enumerate().try_for_each(|(i, item)| write!(f, "{}{item}", if i > 0 { "," } else { "" }))
    }
}

impl<T: fmt::Display> Serialize for List<T> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        /// One item, written as a scalar is.
        struct Written<'a, T>(&'a T);

        impl<T: fmt::Display> Serialize for Written<'_, T> {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                write(self.0, s)
            }
        }

        s.collect_seq(self.0.iter().map(Written))
    }
}

impl<'de, T: Item> Deserialize<'de> for List<T>
where
    T::Err: fmt::Display,
{
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Items<T>(PhantomData<T>);

        impl<'de, T: Item> Visitor<'de> for Items<T>
        where
            T::Err: fmt::Display,
        {
            type Value = List<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list, or a string with commas")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<List<T>, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_i64<E: serde::de::Error>(self, n: i64) -> Result<List<T>, E> {
                self.visit_str(&n.to_string())
            }

            fn visit_f64<E: serde::de::Error>(self, n: f64) -> Result<List<T>, E> {
                self.visit_str(&n.to_string())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<List<T>, A::Error> {
                let mut items = Vec::new();
                while let Some(Word(text)) = seq.next_element::<Word>()? {
                    items.push(text.parse().map_err(A::Error::custom)?);
                }
                Ok(List(items))
            }
        }

        d.deserialize_any(Items(PhantomData))
    }
}

/// Any scalar, as text.
struct Word(String);

impl<'de> Deserialize<'de> for Word {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(Scalar(PhantomData)).map(Self)
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

/// `--positions`: the name of a registered method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PositionMethod(pub &'static str);

impl FromStr for PositionMethod {
    type Err = MethodError;

    fn from_str(text: &str) -> Result<Self, MethodError> {
        let known = positions::names().find(|name| *name == text);
        known.map(Self).ok_or_else(|| MethodError::Unknown { given: text.to_owned() })
    }
}

impl fmt::Display for PositionMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
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
