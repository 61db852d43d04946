//! Merge keys: `<<: *defaults` and `<<: [*a, *b]`, as YAML 1.1 has them and operators expect them.
//! What a mapping says itself wins, then whatever is named first. The one rule: merged entries keep
//! the positions they were written at, for that is where a mistake in them is mended.

use std::collections::HashSet;

use crate::base::yaml::node::{Content, Entry, Mapping, Style};

/// The mapping with what its `<<` names, and the positions of what cannot be merged.
pub(super) fn merge(mapping: Mapping) -> (Mapping, Vec<(u32, u32)>) {
    if !mapping.find("<<").is_some_and(is_merge) {
        return (mapping, Vec::new());
    }
    let mut misplaced = Vec::new();
    let (merged, mut own): (Vec<_>, Vec<_>) =
        mapping.into_entries().into_iter().partition(is_merge);
    let mut known: HashSet<String> = own.iter().map(|entry| entry.name().to_owned()).collect();
    for entry in merged {
        let sources = match entry.value.content {
            Content::Sequence(items) => items,
            _ => vec![entry.value],
        };
        for source in sources {
            let Content::Mapping(source_mapping) = source.content else {
                misplaced.push((source.line, source.column));
                continue;
            };
            let new = source_mapping.into_entries().into_iter();
            own.extend(new.filter(|entry| known.insert(entry.name().to_owned())));
        }
    }
    (Mapping::new(own).0, misplaced)
}

/// In quotes, `<<` is a key like any other.
fn is_merge(entry: &Entry) -> bool {
    entry.key.style == Style::Plain && entry.name() == "<<"
}
