//! "Did you mean": the nearest of the words that would have been right. Words that differ only in
//! case, hyphens and underscores are the same to a person and win at once; otherwise the distance
//! counts insertions, deletions, replacements and swapped neighbours (optimal string alignment).

/// The nearest known word, if any is near enough to be a slip of the hand.
pub(crate) fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let typed = bare(word);
    if typed.is_empty() || typed.len() > MAX_WORD {
        return None;
    }
    let mut best: Option<(usize, &str)> = None;
    for candidate in known {
        let distance = distance(&typed, &bare(candidate));
        let longer = typed.len().max(candidate.chars().count());
        let near = distance <= (longer / 3).max(1) && distance < longer;
        if near && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, word)| word)
}

/// Longer words are not compared: nobody mistypes those by hand.
const MAX_WORD: usize = 64;

fn bare(word: &str) -> Vec<char> {
    let kept = word.chars().filter(|c| !matches!(c, '_' | '-' | ' '));
    kept.flat_map(char::to_lowercase).collect()
}

fn distance(a: &[char], b: &[char]) -> usize {
    // Three rows of the table suffice: a swap looks two rows back.
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (row, &from) in a.iter().enumerate() {
        let mut current = Vec::with_capacity(last.len());
        current.push(row + 1);
        for (column, &to) in b.iter().enumerate() {
            let at =
                |cells: &[usize], index: usize| cells.get(index).copied().unwrap_or(usize::MAX);
            let replaced = at(&last, column) + usize::from(from != to);
            let mut least = replaced.min(at(&last, column + 1) + 1).min(at(&current, column) + 1);
            let previous = |cells: &[char], index: usize| {
                index.checked_sub(1).and_then(|before| cells.get(before).copied())
            };
            let swapped = previous(a, row) == Some(to) && previous(b, column) == Some(from);
            if swapped {
                least = least.min(at(&before_last, column.saturating_sub(1)) + 1);
            }
            current.push(least);
        }
        before_last = std::mem::replace(&mut last, current);
    }
    last.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        let of = |a: &str, b: &str| distance(&bare(a), &bare(b));
        assert_eq!(of("", ""), 0);
        assert_eq!(of("timout", "timeout"), 1);
        assert_eq!(of("tiemout", "timeout"), 1);
        assert_eq!(of("kitten", "sitting"), 3);
        assert_eq!(of("ab", ""), 2);
        assert_eq!(of("ca", "ac"), 1);
    }

    #[test]
    fn suggests_slips_only() {
        let known = ["timeout", "upstream", "max_attempts", "id", "retry"];
        let near = |word| nearest(word, known);
        assert_eq!(near("timout"), Some("timeout"));
        assert_eq!(near("upstraem"), Some("upstream"));
        assert_eq!(near("maxAttempts"), Some("max_attempts"));
        assert_eq!(near("max-attempts"), Some("max_attempts"));
        assert_eq!(near("ID"), Some("id"));
        assert_eq!(near("retries"), None);
        assert_eq!(near("colour"), None);
        assert_eq!(near("xy"), None);
        assert_eq!(near(""), None);
    }
}
