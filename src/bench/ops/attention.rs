//! Attention: every pattern in training, and one query over a long cache.

use crate::backend::selftest::{F32, ROUNDING};
use crate::bench::Dims;
use crate::bench::op::{Cost, Op};
use crate::data::Attend;
use crate::data::attend::Group;
use crate::ops::attention::{AttentionSaved, Segments};

/// Lengths of packed documents: the sixteenths of a log-normal distribution with mean 2048 and sigma 1, shuffled.
/// `benches/peers/torch_gpu.py` has the same list.
const DOCUMENTS: [usize; 16] = [1038, 352, 4915, 880, 1967, 204, 2858, 605, 8474, 1422, 737, 3611, 479, 2347, 1217, 1668];
/// Rows shorter than this get documents of a thirty-second of these lengths, so that there is more than one.
const SHORT: usize = 2048;

#[derive(Debug, Clone, Copy)]
enum Pattern {
    Full,
    Packed,
    /// S²-Attn with groups of a quarter of the row.
    Shifted,
}

impl Pattern {
    fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Packed => "packed",
            Self::Shifted => "s2",
        }
    }

    fn segments(self, tokens: usize) -> Segments {
        match self {
            Self::Full => Attend::Full.segments(&[vec![0]], tokens),
            Self::Packed => Attend::Full.segments(&[documents(tokens)], tokens),
            Self::Shifted => Attend::Shifted { group: Group::Parts(4) }.segments(&[vec![0]], tokens),
        }
    }
}

/// Where documents begin.
fn documents(tokens: usize) -> Vec<usize> {
    let divisor = if tokens < SHORT { 32 } else { 1 };
    let ends = DOCUMENTS.iter().cycle().scan(0, |at, len| {
        *at += len / divisor;
        Some(*at)
    });
    std::iter::once(0).chain(ends.take_while(|&at| at < tokens)).collect()
}

/// Pairs of query and visible key, the mean of both halves of the heads.
fn pairs(segments: &Segments) -> f64 {
    let seen = |starts: &Vec<u32>| starts.iter().enumerate().map(|(i, &s)| (i + 1 - s as usize) as f64).sum::<f64>();
    segments.starts.iter().map(seen).sum::<f64>() / 2.0
}

fn scale(d: &Dims) -> f32 {
    1.0 / (d.head_dim as f32).sqrt()
}

fn heads(d: &Dims) -> String {
    format!("T={} H={}/{} D={}", d.tokens, d.heads, d.kv_heads, d.head_dim)
}

/// Two products forward, five backward.
fn flops(pattern: Pattern, per_pair: f64) -> impl Fn(&Dims) -> Cost {
    move |d| Cost::Flops(per_pair * (d.heads * d.head_dim) as f64 * pairs(&pattern.segments(d.tokens)))
}

fn forward(pattern: Pattern) -> Op {
    let name = format!("attention fwd {}", pattern.name());
    // Probabilities and the result are rounded.
    Op::new(name, heads, flops(pattern, 4.0), [2.0 * ROUNDING + F32, F32], move |i, d| {
        let (segments, scale) = (i.kernels().place_integers(&pattern.segments(d.tokens).table())?, scale(d));
        let [q, k, v] = [d.heads, d.kv_heads, d.kv_heads].map(|heads| i.normal([1, d.tokens, heads, d.head_dim], 1.0));
        let (q, k, v) = (q?, k?, v?);
        Ok(Box::new(move |on| {
            let (o, lse) = on.attention_fwd(&q, &k, &v, &segments, scale)?;
            Ok(vec![o, lse])
        }))
    })
}

fn backward(pattern: Pattern) -> Op {
    let name = format!("attention bwd {}", pattern.name());
    // As forward, whose rounded result this starts from, and the scores' gradients.
    Op::new(name, heads, flops(pattern, 10.0), [4.0 * ROUNDING + F32; 3], move |i, d| {
        let (segments, scale) = (i.kernels().place_integers(&pattern.segments(d.tokens).table())?, scale(d));
        let [q, k, v, dout] =
            [d.heads, d.kv_heads, d.kv_heads, d.heads].map(|heads| i.normal([1, d.tokens, heads, d.head_dim], 1.0));
        let (qkv, dout) = ([q?, k?, v?], dout?);
        let (o, lse) = i.kernels().attention_fwd(&qkv[0], &qkv[1], &qkv[2], &segments, scale)?;
        let saved = AttentionSaved { qkv, o, lse, segments, scale };
        Ok(Box::new(move |on| Ok(on.attention_bwd(&dout, &saved)?.into())))
    })
}

/// One query over a cache of keys and values, which are read once.
fn decode() -> Op {
    let bytes = |d: &Dims| Cost::Bytes((2 * d.tokens * d.kv_width() * d.element) as f64);
    Op::new("attention decode", heads, bytes, [2.0 * ROUNDING + F32, F32], |i, d| {
        let (segments, scale) = (i.kernels().place_integers(&Segments { starts: [vec![0], vec![0]] }.table())?, scale(d));
        let q = i.normal([1, 1, d.heads, d.head_dim], 1.0)?;
        let [k, v] = [0, 1].map(|_| i.normal([1, d.tokens, d.kv_heads, d.head_dim], 1.0));
        let (k, v) = (k?, v?);
        Ok(Box::new(move |on| {
            let (o, lse) = on.attention_fwd(&q, &k, &v, &segments, scale)?;
            Ok(vec![o, lse])
        }))
    })
}

pub fn ops() -> Vec<Op> {
    let patterns = [Pattern::Full, Pattern::Packed, Pattern::Shifted];
    let mut ops: Vec<Op> = patterns.into_iter().flat_map(|p| [forward(p), backward(p)]).collect();
    ops.push(decode());
    ops
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_counted_in_visible_pairs() {
        let n = 4096.0;
        let count = |p: Pattern| pairs(&p.segments(4096));
        assert_eq!(count(Pattern::Full), n * (n + 1.0) / 2.0);
        let packed: f64 = [1038.0, 352.0, 2706.0].iter().map(|l| l * (l + 1.0) / 2.0).sum();
        assert_eq!(count(Pattern::Packed), packed);
        // Four groups of a quarter; the shifted half has half a group at both ends.
        let groups = |lengths: &[f64]| lengths.iter().map(|l| l * (l + 1.0) / 2.0).sum::<f64>();
        let halves = [groups(&[1024.0; 4]), groups(&[512.0, 1024.0, 1024.0, 1024.0, 512.0])];
        assert_eq!(count(Pattern::Shifted), (halves[0] + halves[1]) / 2.0);
    }

    #[test]
    fn documents_have_their_mean_length_and_short_rows_hold_several() {
        assert_eq!(documents(1 << 17).len(), 64);
        assert!(documents(203).len() > 2);
    }
}
