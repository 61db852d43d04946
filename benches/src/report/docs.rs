//! The tables of `docs/performance.md`, which stand between two marks and are replaced as a whole.

use crate::failure::{Failure, Outcome};

const BEGIN: &str = "<!-- begin: cargo xtask bench --write-docs -->\n";
const END: &str = "<!-- end -->\n";

/// The page with other tables.
pub(super) fn replace(page: &str, tables: &str) -> Outcome<String> {
    let parts = page.split_once(BEGIN).and_then(|(before, rest)| {
        let (_, after) = rest.split_once(END)?;
        Some((before, after))
    });
    let Some((before, after)) = parts else {
        return Err(Failure(format!("the page lacks the marks `{}`", BEGIN.trim())));
    };
    Ok(format!("{before}{BEGIN}\n{tables}\n{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stands_between_the_marks_is_replaced() {
        let page = format!("before\n{BEGIN}old\n{END}after\n");
        let new = replace(&page, "new").unwrap();
        assert_eq!(new, format!("before\n{BEGIN}\nnew\n{END}after\n"));
        assert_eq!(replace(&new, "new").unwrap(), new);
        assert!(replace("no marks", "new").is_err());
    }
}
