//! Problems as text for a terminal, each with the lines of the file around its cell. The lines are
//! those of the file itself, before any `${...}` was replaced, with secrets in clear hidden: that is
//! why they may be shown.

use std::fmt::Write as _;

use super::mask::masked;
use super::{Problem, Problems};
use crate::base::yaml::Source;

/// All kept problems in order, each with its help; a snippet where the problem is about `source`.
pub(crate) fn render(problems: &Problems, source: Option<&Source>) -> String {
    let mut out = String::new();
    // Split once: a big file with a hundred problems is not walked a hundred times.
    let lines: Vec<&str> = source.map_or_else(Vec::new, |source| source.text.lines().collect());
    for problem in problems.sorted() {
        let _ = writeln!(out, "{problem}");
        if source.is_some_and(|source| *source.name == *problem.file) {
            snippet(&mut out, problem, &lines);
        }
        if let Some(help) = &problem.help {
            let _ = writeln!(out, "  help: {help}");
        }
    }
    if problems.more() > 0 {
        let _ = writeln!(out, "and {} more", problems.more());
    }
    out
}

/// Source lines shown, the last of them being the one with the cell.
const SHOWN_LINES: u32 = 3;
/// Characters of a source line shown.
const SHOWN_WIDTH: usize = 120;
/// Characters kept in front of the cell when a long line is cut.
const BEFORE_CELL: usize = 60;
const TAB: &str = "    ";

fn snippet(out: &mut String, problem: &Problem, lines: &[&str]) {
    let last = problem.line;
    let first = last.saturating_sub(SHOWN_LINES - 1).max(1);
    let margin = last.to_string().len();
    // The file may have been read at another time than the snippet; then there is nothing to show.
    if line_at(lines, last).is_none() {
        return;
    }
    let cell = usize::try_from(problem.column.saturating_sub(1)).unwrap_or(0);
    let skipped = cut(line_at(lines, last).unwrap_or_default(), cell);
    for number in first..=last {
        let text = masked(line_at(lines, number).unwrap_or_default());
        let skip = if number == last { skipped } else { 0 };
        let line = format!("{number:>margin$} | {}", show(&text, skip));
        let _ = writeln!(out, "{}", line.trim_end());
    }
    if problem.column != 0 {
        let text = line_at(lines, last).unwrap_or_default();
        let lead = usize::from(skipped > 0);
        let before = text.chars().skip(skipped).take(cell.saturating_sub(skipped));
        let indent = lead + before.map(width).sum::<usize>();
        let _ = writeln!(out, "{:margin$} | {:indent$}^", "", "");
    }
}

fn line_at<'a>(lines: &[&'a str], number: u32) -> Option<&'a str> {
    let line = lines.get(usize::try_from(number.checked_sub(1)?).ok()?)?;
    // The mark at the start of a file takes no column.
    Some(if number == 1 { line.trim_start_matches('\u{feff}') } else { line })
}

/// How many characters to leave out at the start, so that the cell is within the shown part.
fn cut(text: &str, cell: usize) -> usize {
    if text.chars().nth(SHOWN_WIDTH).is_none() || cell < SHOWN_WIDTH - 20 {
        return 0;
    }
    cell - BEFORE_CELL
}

fn show(text: &str, skip: usize) -> String {
    let mut shown = String::new();
    if skip > 0 {
        shown.push('…');
    }
    let mut rest = text.chars().skip(skip);
    for character in rest.by_ref().take(SHOWN_WIDTH) {
        match character {
            '\t' => shown.push_str(TAB),
            // Whatever would move the cursor or colour the terminal is shown as a blot.
            hidden if hidden.is_control() || is_invisible(hidden) => shown.push('\u{fffd}'),
            plain => shown.push(plain),
        }
    }
    if rest.next().is_some() {
        shown.push('…');
    }
    shown
}

fn is_invisible(character: char) -> bool {
    matches!(character, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// Terminal cells a character takes, after the blocks that UAX #11 lists as wide.
fn width(character: char) -> usize {
    match character {
        '\t' => TAB.len(),
        '\u{300}'..='\u{36f}' => 0,
        '\u{1100}'..='\u{115f}'
        | '\u{2e80}'..='\u{a4cf}'
        | '\u{ac00}'..='\u{d7a3}'
        | '\u{f900}'..='\u{faff}'
        | '\u{fe30}'..='\u{fe6f}'
        | '\u{ff00}'..='\u{ff60}'
        | '\u{ffe0}'..='\u{ffe6}'
        | '\u{1f300}'..='\u{1f64f}'
        | '\u{1f900}'..='\u{1f9ff}'
        | '\u{20000}'..='\u{3fffd}' => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source { name: "routes.yaml".to_owned(), text: text.to_owned().into() }
    }

    fn rendered(text: &str, line: u32, column: u32) -> String {
        let mut problems = Problems::new("routes.yaml");
        problems.error_at(line, column, "wrong").help("mend it");
        render(&problems, Some(&source(text)))
    }

    #[test]
    fn shows_three_lines_and_a_caret() {
        let text = "one: 1\ntwo: 2\nthree: 3\nfour: 4\n";
        assert_eq!(
            rendered(text, 3, 8),
            "routes.yaml:3:8: error: wrong\n\
             1 | one: 1\n\
             2 | two: 2\n\
             3 | three: 3\n  \
               |        ^\n  \
               help: mend it\n"
        );
    }

    #[test]
    fn tabs_and_wide_characters_keep_the_caret_in_place() {
        assert!(rendered("\tx", 1, 2).contains("1 |     x\n  |     ^\n"));
        assert!(rendered("名: x", 1, 4).contains("1 | 名: x\n  |     ^\n"));
        assert!(rendered("\u{feff}a: x", 1, 4).contains("1 | a: x\n  |    ^\n"));
    }

    #[test]
    fn long_lines_are_cut_around_the_cell() {
        let text = format!("key: {}!{}", "a".repeat(500), "b".repeat(500));
        let out = rendered(&text, 1, 506);
        let lines: Vec<_> = out.lines().collect();
        assert_eq!(lines[1].chars().count(), "1 | ".len() + 122);
        let caret = lines[2].chars().position(|c| c == '^').unwrap();
        assert_eq!(lines[1].chars().nth(caret), Some('!'));
    }

    #[test]
    fn terminal_codes_in_a_file_stay_harmless() {
        assert!(!rendered("a: \u{1b}[31mred", 1, 1).contains('\u{1b}'));
    }

    #[test]
    fn shows_no_snippet_for_another_file_or_a_line_that_is_not_there() {
        let mut problems = Problems::new("other.yaml");
        problems.error_at(1, 1, "wrong");
        assert_eq!(render(&problems, Some(&source("a"))), "other.yaml:1:1: error: wrong\n");
        assert_eq!(rendered("a: 1\n", 9, 1), "routes.yaml:9:1: error: wrong\n  help: mend it\n");
    }

    #[test]
    fn tells_how_many_are_left_out() {
        let mut problems = Problems::new("x");
        for line in 1..=103 {
            problems.error_at(line, 1, "w");
        }
        assert!(render(&problems, None).ends_with("and 3 more\n"));
    }
}
