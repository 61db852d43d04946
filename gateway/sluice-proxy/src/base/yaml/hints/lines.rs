//! Looking at the lines around a syntax error. Nothing here parses YAML: each question is answered
//! from the look of a line or two, and answered with `None` when the look is not clear. Positions
//! count from 1, columns in characters.

use super::super::build::small;

/// The lines of a file.
pub(super) struct Lines<'a> {
    lines: Vec<&'a str>,
}

/// How far up a bracket or quote that was never closed is looked for.
const LOOK_BACK: u32 = 50;
/// Characters of the file repeated in a message.
const CLIP: usize = 40;

impl<'a> Lines<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { lines: text.lines().collect() }
    }

    /// The character at a position.
    pub(super) fn at(&self, (line, column): (u32, u32)) -> Option<char> {
        self.line(line).chars().nth(offset(column))
    }

    /// The first tab before the first word of a line.
    pub(super) fn tab_in_indentation(&self, line: u32) -> Option<(u32, u32)> {
        let text = self.line(line);
        let indentation = text.chars().take_while(|c| c.is_whitespace());
        let tab = indentation.into_iter().position(|c| c == '\t')?;
        (!text.trim().is_empty()).then_some((line, small(tab + 1)))
    }

    /// Whether the first word of its line is at this position.
    pub(super) fn begins_at(&self, (line, column): (u32, u32)) -> bool {
        let text = self.line(line);
        !text.trim().is_empty() && indent(text) == offset(column)
    }

    /// Whether some line above begins at the same column, itself or after its `- `.
    pub(super) fn lines_up(&self, (line, column): (u32, u32)) -> bool {
        (1..line).rev().any(|above| levels(self.line(above)).contains(&offset(column)))
    }

    /// `key` and `value` of a line such as `key:value`.
    pub(super) fn glued_colon(&self, (line, column): (u32, u32)) -> Option<(&'a str, &'a str)> {
        let (key, value) = self.rest((line, column)).trim_end().split_once(':')?;
        let word = !key.is_empty() && key.chars().all(|c| c.is_alphanumeric() || "_-.".contains(c));
        let url = value.starts_with("//");
        let glued = !value.is_empty() && !value.starts_with([' ', ':']) && !url;
        (word && glued).then_some((key, value))
    }

    /// Where the key begins whose colon is at the position, if nothing but the key stands before it
    /// and the line above already has a value.
    pub(super) fn key_ending_at(&self, (line, column): (u32, u32)) -> Option<u32> {
        let text = self.line(line);
        let start = indent(text);
        let key: String = text.chars().take(offset(column)).skip(start).collect();
        let alone = !key.is_empty() && !key.contains(": ") && !key.starts_with(['-', '?']);
        (line > 1 && alone).then(|| small(start + 1))
    }

    /// The position of a `-` that touches a word, on this line or the one above, with what follows.
    pub(super) fn glued_dash(&self, line: u32) -> Option<((u32, u32), &'a str)> {
        (line.saturating_sub(1).max(1)..=line).find_map(|line| {
            let text = self.line(line);
            let rest = text.trim_start().strip_prefix('-')?;
            let glued = rest.starts_with(char::is_alphabetic) && rest.contains(": ");
            glued.then(|| ((line, small(indent(text) + 1)), rest.trim_end()))
        })
    }

    /// The line above, if it is one word at a lower indentation, with its position.
    pub(super) fn word_above(&self, line: u32) -> Option<((u32, u32), &'a str)> {
        let above = line.checked_sub(1).filter(|above| *above > 0)?;
        let (text, below) = (self.line(above), self.line(line));
        let word = text.trim();
        let is_word = word.starts_with(char::is_alphabetic)
            && word.chars().all(|c| c.is_alphanumeric() || "_-.".contains(c));
        let holds = is_word && indent(text) < indent(below);
        holds.then(|| ((above, small(indent(text) + 1)), word))
    }

    /// The bracket that was opened before the position and is open at the end of its line.
    pub(super) fn unclosed_bracket(&self, at: (u32, u32)) -> Option<(char, (u32, u32))> {
        let first = at.0.saturating_sub(LOOK_BACK).max(1);
        (first..=at.0).rev().find_map(|line| {
            let (open, column) = open_bracket(self.line(line))?;
            // On the line of the error itself only what stands no further right counts.
            (line < at.0 || column <= at.1).then_some((open, (line, column)))
        })
    }

    /// The bracket that begins this line's value, if the position is right after what it closes.
    pub(super) fn value_in_brackets(&self, at: (u32, u32)) -> Option<(char, (u32, u32))> {
        let before = at.1.checked_sub(1)?;
        matches!(self.at((at.0, before))?, ']' | '}').then_some(())?;
        let mut starts = value_starts(self.line(at.0)).into_iter();
        let (column, open) = starts.find(|(_, c)| matches!(c, '[' | '{'))?;
        Some((open, (at.0, small(column + 1))))
    }

    /// The quote that begins a value and has no partner on its line.
    pub(super) fn unclosed_quote(&self, at: (u32, u32)) -> Option<(u32, u32)> {
        let first = at.0.saturating_sub(LOOK_BACK).max(1);
        (first..=at.0).rev().find_map(|line| {
            let text = self.line(line);
            let (column, _) = value_starts(text).into_iter().find(|(column, quote)| {
                matches!(quote, '"' | '\'') && !text.chars().skip(column + 1).any(|c| c == *quote)
            })?;
            Some((line, small(column + 1)))
        })
    }

    /// The first backslash at or after the position that begins no escape of YAML 1.2 (5.7).
    pub(super) fn unknown_escape(&self, at: (u32, u32)) -> Option<(char, (u32, u32))> {
        let mut characters = self.line(at.0).chars().enumerate().skip(offset(at.1));
        while let Some((column, character)) = characters.next() {
            if character == '\\' {
                let (_, escape) = characters.next()?;
                if !"0abt\tnvfre \"/\\N_LPxuU".contains(escape) {
                    return Some((escape, (at.0, small(column + 1))));
                }
            }
        }
        None
    }

    /// The value from the position to the end of its line, without a comment.
    pub(super) fn rest_of_value(&self, at: (u32, u32)) -> String {
        let rest = self.rest(at);
        let value = rest.split_once(" #").map_or(rest, |(value, _)| value);
        clip(value.trim_end()).replace('"', "\\\"")
    }

    fn rest(&self, (line, column): (u32, u32)) -> &'a str {
        let text = self.line(line);
        let start = text.char_indices().nth(offset(column)).map_or(text.len(), |(at, _)| at);
        text.get(start..).unwrap_or_default()
    }

    fn line(&self, line: u32) -> &'a str {
        self.lines.get(offset(line)).copied().unwrap_or_default()
    }
}

/// The text, or as much of it as a message bears.
pub(in crate::base::yaml) fn clip(text: &str) -> String {
    match text.char_indices().nth(CLIP) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

fn offset(from_one: u32) -> usize {
    usize::try_from(from_one.saturating_sub(1)).unwrap_or(usize::MAX)
}

fn indent(text: &str) -> usize {
    text.chars().take_while(|c| *c == ' ').count()
}

/// The columns, from 0, at which something begins on a line: its first word, and what follows `- `.
fn levels(text: &str) -> Vec<usize> {
    if text.trim().is_empty() || text.trim_start().starts_with('#') {
        return Vec::new();
    }
    let mut level = indent(text);
    let mut levels = vec![level];
    let mut rest = text.trim_start();
    while let Some(item) = rest.strip_prefix("- ") {
        rest = item.trim_start_matches(' ');
        level += 2 + indent(item);
        levels.push(level);
    }
    levels
}

/// The first character of everything on a line that could be a value, with its column from 0.
fn value_starts(text: &str) -> Vec<(usize, char)> {
    let mut starts = Vec::new();
    let mut before = None;
    let mut spaced = true;
    for (column, character) in text.chars().enumerate() {
        if character == ' ' {
            spaced = true;
            continue;
        }
        if character == '#' && spaced {
            break;
        }
        let starts_here = match before {
            None | Some('[' | '{' | ',') => true,
            Some(':' | '-') => spaced,
            Some(_) => false,
        };
        if starts_here {
            starts.push((column, character));
        }
        before = Some(character);
        spaced = false;
    }
    starts
}

/// The first bracket that begins a value and is not closed on its line, with its column from 1.
fn open_bracket(text: &str) -> Option<(char, u32)> {
    let mut starts = value_starts(text).into_iter().peekable();
    let mut open: Vec<(char, usize)> = Vec::new();
    for (column, character) in text.chars().enumerate() {
        let starts_here = starts.next_if(|(start, _)| *start == column).is_some();
        match character {
            '[' | '{' if starts_here => open.push((character, column)),
            ']' | '}' => {
                open.pop();
            }
            _ => {}
        }
    }
    open.first().map(|(character, column)| (*character, small(column + 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_begin_after_separators() {
        let starts = |text| value_starts(text).into_iter().map(|(at, _)| at).collect::<Vec<_>>();
        assert_eq!(starts("  - id: [a, b-c] # [x"), [2, 4, 8, 9, 12]);
        assert_eq!(starts("a:b: c"), [0, 5]);
    }

    #[test]
    fn lists_make_two_levels_of_one_line() {
        assert_eq!(levels("  - - a: 1"), [2, 4, 6]);
        assert!(levels("  # - a").is_empty());
    }

    #[test]
    fn a_url_is_no_glued_colon() {
        let glued = |text| Lines::new(text).glued_colon((1, 1));
        assert_eq!(glued("timeout:3s"), Some(("timeout", "3s")));
        assert_eq!(glued("path:/users"), Some(("path", "/users")));
        assert_eq!(glued("http://x"), None);
        assert_eq!(glued("a b:c"), None);
    }

    #[test]
    fn long_pieces_of_the_file_are_clipped() {
        assert_eq!(clip(&"x".repeat(50)).len(), CLIP + 3);
    }
}
