//! Which method a row takes: usually the one that was named, or one of several by their shares.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::registry::{MethodError, names};
use super::{Natural, Plan, PositionPlan};
use crate::rng::{Rng, Stream};

/// A method and how many of the rows it gets.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share {
    /// Its name in the registry.
    pub method: &'static str,
    /// Its weight among the others', above 0.
    pub weight: f64,
}

/// `--positions`: the name of a method, or `mix:NAME=WEIGHT,…`.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec(Vec<Share>);

impl Spec {
    /// One method alone.
    pub fn only(method: &'static str) -> Self {
        Self(vec![Share { method, weight: 1.0 }])
    }

    /// The methods with their weights; at least one, each once.
    pub fn shares(&self) -> &[Share] {
        &self.0
    }

    /// Whether some rows take `method`.
    pub fn has(&self, method: &str) -> bool {
        self.0.iter().any(|share| share.method == method)
    }

    /// Whether all rows take `method`.
    pub fn is(&self, method: &str) -> bool {
        self.0.len() == 1 && self.has(method)
    }

    /// One word for folders and tables.
    pub fn name(&self) -> &'static str {
        match self.0.as_slice() {
            [only] => only.method,
            _ => "mix",
        }
    }

    /// The same methods, but `given` ones have exactly their shares (0 to 1, together at most 1) and the others what is left.
    pub fn with(&self, given: &[(&'static str, f64)]) -> Self {
        let others: Vec<Share> =
            self.0.iter().filter(|share| given.iter().all(|(name, _)| *name != share.method)).copied().collect();
        let total: f64 = others.iter().map(|share| share.weight).sum();
        let left = 1.0 - given.iter().map(|(_, part)| part).sum::<f64>();
        // In per cent, so that the text is what people would write.
        let percent = |part: f64| (part * 1e8).round() / 1e6;
        let others = others.into_iter().map(|share| Share { weight: percent(left * share.weight / total), ..share });
        let given = given.iter().map(|&(method, part)| Share { method, weight: percent(part) });
        let shares: Vec<Share> = others.chain(given).filter(|share| share.weight > 0.0).collect();
        // Everything was taken away from everybody: nothing was asked for.
        if shares.is_empty() { self.clone() } else { Self(shares) }
    }
}

impl FromStr for Spec {
    type Err = MethodError;

    fn from_str(text: &str) -> Result<Self, MethodError> {
        let known = |name: &str| names().find(|known| *known == name);
        let Some(list) = text.strip_prefix("mix:") else {
            return known(text).map(Self::only).ok_or_else(|| MethodError::Unknown { given: text.to_owned() });
        };
        let refused = || MethodError::Mix { given: text.to_owned() };
        let mut shares: Vec<Share> = Vec::new();
        for item in list.split(',') {
            let (name, weight) = item.split_once('=').ok_or_else(refused)?;
            let method = known(name.trim()).ok_or_else(|| MethodError::Unknown { given: name.trim().to_owned() })?;
            let weight = weight.trim();
            let weight = weight.strip_suffix('%').unwrap_or(weight).parse().ok().filter(|w| (0.0..=1e6).contains(w) && *w > 0.0);
            if shares.iter().any(|share| share.method == method) {
                return Err(refused());
            }
            shares.push(Share { method, weight: weight.ok_or_else(refused)? });
        }
        Ok(Self(shares))
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [only] = self.0.as_slice() {
            return f.write_str(only.method);
        }
        f.write_str("mix:")?;
        self.0.iter().enumerate().try_for_each(|(i, share)| {
            let comma = if i > 0 { "," } else { "" };
            write!(f, "{comma}{}={}", share.method, share.weight)
        })
    }
}

/// Methods with their shares of the rows.
#[derive(Debug, Clone)]
pub struct Mix {
    methods: Vec<(f64, Arc<dyn PositionPlan>)>,
    /// Scale of rows whose method has none of its own.
    scale: f32,
    /// Consecutive rows that share a drawn scale.
    rows_per_scale: u64,
}

impl Mix {
    /// A mix by weights. Rows whose method leaves scaling to the run are divided by `scale`.
    pub(super) fn new(methods: Vec<(f64, Arc<dyn PositionPlan>)>, scale: f32, rows_per_scale: u64) -> Self {
        assert!(!methods.is_empty() && rows_per_scale > 0, "mix: at least one method, at least one row");
        Self { methods, scale, rows_per_scale }
    }

    /// One method for all rows, without a scale of the run's.
    pub fn only(method: impl PositionPlan + 'static) -> Self {
        Self::new(vec![(1.0, Arc::new(method))], 1.0, 1)
    }

    /// Contiguous positions: the control.
    pub fn natural() -> Self {
        Self::only(Natural)
    }

    /// Rows of a span: the most that a method wants.
    pub fn span_rows(&self) -> usize {
        self.methods.iter().map(|(_, method)| method.span_rows()).max().unwrap_or(1)
    }

    /// The run's row number `counter`: a pure function of the seed and the number.
    ///
    /// One generator draws the method, where there are several, and then plans the row's documents in their order. The weights lie end
    /// to end, and a number in `[0, 1)` of their sum falls into the method's.
    pub fn row(&self, seed: u64, counter: u64) -> Row<'_> {
        let mut rng = Rng::at(seed, Stream::Positions, counter);
        let method = match self.methods.as_slice() {
            [(_, only)] => only,
            methods => {
                let total: f64 = methods.iter().map(|m| m.0).sum();
                let mut left = total * rng.uniform();
                let drawn = methods.iter().find(|(weight, _)| {
                    left -= weight;
                    left < 0.0
                });
                // Rounding can leave a sliver behind the last one.
                &drawn.unwrap_or(&methods[methods.len() - 1]).1
            }
        };
        let scale = method.rope_scale(&mut Rng::at(seed, Stream::Scale, counter / self.rows_per_scale));
        Row { method: &**method, scale: scale.unwrap_or(self.scale), rng }
    }
}

/// What was drawn for one row.
#[derive(Debug)]
pub struct Row<'a> {
    method: &'a dyn PositionPlan,
    /// Its positions are divided by this.
    pub scale: f32,
    rng: Rng,
}

impl Row<'_> {
    /// The share of one document of the row: `want` places for its tokens `text`.
    ///
    /// # Panics
    /// If the method breaks its promise.
    pub fn plan(&mut self, text: &[u32], want: usize) -> Plan {
        let plan = self.method.plan(text, want, self.scale, &mut self.rng);
        let chosen: usize = plan.parts.iter().map(super::Part::len).sum();
        assert!(
            chosen == want && plan.positions.len() == want,
            "{}: planned {chosen} tokens at {} positions, asked for {want} of {}",
            self.method.name(),
            plan.positions.len(),
            text.len(),
        );
        plan
    }
}
