//! "Did you mean": the candidate with the fewest edits.

/// The candidate nearest to `name`, if at most a third of `name` would have to change.
pub(crate) fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = name.len() / 3;
    candidates
        .into_iter()
        .filter(|c| c.len().abs_diff(name.len()) <= limit)
        .map(|c| (edits(name.as_bytes(), c.as_bytes()), c))
        .min_by_key(|&(n, _)| n)
        .filter(|&(n, _)| n <= limit)
        .map(|(_, c)| c)
}

/// Levenshtein distance, one row at a time.
fn edits(a: &[u8], b: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_found_and_a_far_one_is_not() {
        let names = ["model.norm.weight", "lm_head.weight"];
        assert_eq!(nearest("model.nrm.weight", names), Some("model.norm.weight"));
        assert_eq!(nearest("tokenizer", names), None);
        assert_eq!(edits(b"kitten", b"sitting"), 3);
    }
}
