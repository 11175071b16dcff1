//! "Did you mean": the candidate with the fewest edits.

/// The candidate nearest to `name`, if at most a third of `name` would have to change.
pub(crate) fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = name.len() / 3;
    candidates
        .into_iter()
        .filter(|c| c.len().abs_diff(name.len()) <= limit)
        .map(|c| (strsim::levenshtein(name, c), c))
        .min_by_key(|&(n, _)| n)
        .filter(|&(n, _)| n <= limit)
        .map(|(_, c)| c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_found_and_a_far_one_is_not() {
        let names = ["model.norm.weight", "lm_head.weight"];
        assert_eq!(nearest("model.nrm.weight", names), Some("model.norm.weight"));
        assert_eq!(nearest("tokenizer", names), None);
    }
}
