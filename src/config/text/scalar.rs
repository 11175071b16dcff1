//! Serde through `Display` and `FromStr`: a value of a file reads as if it had been typed as a flag.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Length, ModelSource, Portion, Recipe, Resume, Size, Source, Warmup};
use crate::backend::gpu::Gpus;
use crate::config::choices::{Attention, Best, Export, NanPolicy, Progress, ScalePer, Task};
use crate::data::attend::Group;
use crate::data::{Columns, Format, Holdout, Long, Loss};
use crate::io::Storage;
use crate::model::rope::RopeKind;
use crate::model::{LoraTarget, Recompute};
use crate::optim::Shape;
use crate::positions::Spec;
use crate::train::TrainMode;

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
    Attention,
    Best,
    Columns,
    Export,
    Format,
    Gpus,
    Group,
    Holdout,
    Length,
    Long,
    LoraTarget,
    Loss,
    ModelSource,
    NanPolicy,
    Portion,
    Progress,
    Recipe,
    Recompute,
    Resume,
    RopeKind,
    ScalePer,
    Shape,
    Size,
    Source,
    Spec,
    Storage,
    Task,
    TrainMode,
    Warmup,
);

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

impl<T: Item> FromStr for List<T>
where
    T::Err: fmt::Display,
{
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text.trim(), T::all()) {
            ("none", _) => Ok(Self(Vec::new())),
            ("all", Some(all)) => Ok(Self(all)),
            (text, _) => text
                .split(',')
                .map(|item| item.trim().parse().map_err(|e: T::Err| e.to_string()))
                .collect::<Result<_, _>>()
                .map(Self),
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

/// Reads a list where a single value needs no brackets; unlike in a [`List`], a comma is part of a value.
pub(in crate::config) fn one_or_many<'de, T: Deserialize<'de>, D: Deserializer<'de>>(d: D) -> Result<Option<Vec<T>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        Many(Vec<toml::Value>),
        One(toml::Value),
    }

    let values = match OneOrMany::deserialize(d)? {
        OneOrMany::Many(values) => values,
        OneOrMany::One(value) => vec![value],
    };
    values
        .into_iter()
        .map(|value| value.try_into().map_err(|e: toml::de::Error| D::Error::custom(e.message())))
        .collect::<Result<_, _>>()
        .map(Some)
}

/// Any scalar, as text.
struct Word(String);

impl<'de> Deserialize<'de> for Word {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(Scalar(PhantomData)).map(Self)
    }
}
