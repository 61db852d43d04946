//! What callgrind wrote about one thread: instructions in all, and calls of the allocator.
//!
//! The format is told in Valgrind's manual, chapter "Callgrind Format Specification". Only the lines
//! `summary`, `fn`, `cfn` and `calls` are read.

use std::collections::HashMap;

/// Functions that allocate. What they call among themselves is not counted twice, since only calls
/// from elsewhere count.
const ALLOCATORS: [&str; 7] =
    ["malloc", "calloc", "realloc", "posix_memalign", "aligned_alloc", "mallocx", "rallocx"];
/// How jemalloc's functions are called where it stands beside the C library's.
const PREFIX: &str = "_rjem_";

/// What a run cost, or one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) instructions: u64,
    /// Of a run these are whole allocations, ten for each.
    pub(super) tenths_of_allocations: u64,
}

impl Counts {
    /// Reads a file of callgrind.
    pub(super) fn read(text: &str) -> Self {
        let mut names: HashMap<&str, &str> = HashMap::new();
        let (mut caller, mut callee) = ("", "");
        let mut counts = Self::default();
        for line in text.lines() {
            if let Some(said) = line.strip_prefix("fn=") {
                caller = name(said, &mut names);
            } else if let Some(said) = line.strip_prefix("cfn=") {
                callee = name(said, &mut names);
            } else if let Some(said) = line.strip_prefix("calls=") {
                let calls = said.split(' ').next().and_then(|calls| calls.parse::<u64>().ok());
                if allocates(callee) && !allocates(caller) {
                    counts.tenths_of_allocations += 10 * calls.unwrap_or_default();
                }
            } else if let Some(said) = line.strip_prefix("summary: ") {
                counts.instructions += said.trim().parse::<u64>().unwrap_or_default();
            }
        }
        counts
    }

    /// The cost of one request, of which this run had `requests` more than `less`.
    pub(super) fn per_request(&self, less: &Self, requests: u64) -> Self {
        let each = |more: u64, less: u64| more.saturating_sub(less) / requests.max(1);
        Self {
            instructions: each(self.instructions, less.instructions),
            tenths_of_allocations: each(self.tenths_of_allocations, less.tenths_of_allocations),
        }
    }
}

fn allocates(function: &str) -> bool {
    ALLOCATORS.contains(&function.strip_prefix(PREFIX).unwrap_or(function))
}

/// `(12) name` defines a number, `(12)` uses it.
fn name<'t>(said: &'t str, names: &mut HashMap<&'t str, &'t str>) -> &'t str {
    let (number, name) = said.split_once(' ').unwrap_or((said, ""));
    if name.is_empty() {
        return names.get(number).copied().unwrap_or(said);
    }
    names.insert(number, name);
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_of_the_allocator_are_counted_by_number_and_by_name() {
        let text = "fn=(1) main\n5 7\ncfn=(2) _rjem_malloc\ncalls=3 0\n5 90\ncfn=(3) other\ncalls=9 0\n5 1\n\
            fn=(4) realloc\ncfn=(2)\ncalls=50 0\n5 1\nfn=(1)\ncfn=(4)\ncalls=2 0\n1 1\nsummary: 1234\n";
        let counts = Counts::read(text);
        assert_eq!(counts, Counts { instructions: 1234, tenths_of_allocations: 50 });
    }

    #[test]
    fn a_request_costs_the_difference() {
        let short = Counts { instructions: 1_500, tenths_of_allocations: 200 };
        let long = Counts { instructions: 11_500, tenths_of_allocations: 1_150 };
        let each = long.per_request(&short, 10);
        assert_eq!(each, Counts { instructions: 1_000, tenths_of_allocations: 95 });
    }
}
