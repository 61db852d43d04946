//! Messages in XML: what is read of one is what a slow reading into pieces finds, and what was read is read
//! again when it is written anew.

use serde_json::{Map, Value};

use crate::parts::filters::message_push;

/// As far as the quick reader goes.
const FIELDS: usize = 128;
const DEPTH: usize = 32;

pub(super) fn check(data: &[u8]) {
    let quick = message_push::fields(data);
    let text = std::str::from_utf8(data).unwrap_or_default();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.chars().find(|letter| !is_blank(*letter)) == Some('{') {
        return json(text, quick);
    }
    assert_eq!(quick, slow(text), "{text:?}");
    let Some(fields) = quick else { return };
    let element = |(name, value): &(String, String)| {
        // The end of a section cannot stand in one.
        let sections = value.split("]]>").collect::<Vec<_>>().join("]]]]><![CDATA[>");
        format!("<{name}><![CDATA[{sections}]]></{name}>")
    };
    let written: String = fields.iter().map(element).collect();
    let again = message_push::fields(format!("<x>{written}</x>").as_bytes());
    assert_eq!(again, Some(fields), "{written:?}");
}

/// The other form: every field is one of the object's.
fn json(text: &str, quick: Option<Vec<(String, String)>>) {
    let object = serde_json::from_str::<Map<String, Value>>(text).ok();
    assert_eq!(quick.is_some(), object.is_some(), "{text:?}");
    for (name, value) in quick.into_iter().flatten() {
        let meant = &object.as_ref().unwrap()[&name];
        assert_eq!(meant.as_str().map_or_else(|| meant.to_string(), str::to_owned), value);
    }
}

#[derive(Debug)]
enum Piece {
    Open(String),
    Empty(String),
    Close(String),
    /// As it is written.
    Text(String),
    Section(String),
}

/// Reads letter by letter into pieces, and follows them.
fn slow(text: &str) -> Option<Vec<(String, String)>> {
    let mut letters: Vec<char> = text.chars().collect();
    while letters.last().is_some_and(|letter| is_blank(*letter)) {
        letters.pop();
    }
    let first = letters.iter().position(|letter| !is_blank(*letter)).unwrap_or(letters.len());
    letters.drain(..first);
    if starts(&letters, 0, "<?xml ") {
        let end = find(&letters, 0, "?>")?;
        letters.drain(..end + 2);
    }
    let mut pieces = pieces(&letters)?;
    pieces.reverse();
    let mut next = move || pieces.pop();
    let root = loop {
        match next()? {
            Piece::Text(text) if text.chars().all(is_blank) => {}
            Piece::Open(name) => break name,
            _ => return None,
        }
    };
    let mut fields = Vec::new();
    loop {
        let field = match next()? {
            Piece::Text(text) if text.chars().all(is_blank) => continue,
            Piece::Text(_) | Piece::Section(_) => return None,
            Piece::Close(name) => return (name == root && next().is_none()).then_some(fields),
            Piece::Empty(name) => Some((name, String::new())),
            Piece::Open(name) => leaf(&name, &mut next)?.map(|value| (name, value)),
        };
        if fields.len() == FIELDS {
            return None;
        }
        fields.extend(field);
    }
}

/// What stands in an element: nothing but text, or something else.
fn leaf(name: &str, next: &mut impl FnMut() -> Option<Piece>) -> Option<Option<String>> {
    let (mut inside, mut value, mut is_leaf) = (vec![name.to_owned()], String::new(), true);
    while !inside.is_empty() {
        let outermost = inside.len() == 1;
        match next()? {
            Piece::Text(text) if outermost && !text.chars().all(is_blank) => {
                value.push_str(&unescaped(&text)?);
            }
            Piece::Section(text) if outermost => value.push_str(&text),
            Piece::Text(_) | Piece::Section(_) => {}
            Piece::Empty(_) => is_leaf = false,
            Piece::Open(name) => {
                is_leaf = false;
                inside.push(name);
            }
            Piece::Close(name) => {
                if inside.pop()? != name {
                    return None;
                }
            }
        }
        if inside.len() > DEPTH + 1 {
            return None;
        }
    }
    Some(is_leaf.then_some(value))
}

fn pieces(letters: &[char]) -> Option<Vec<Piece>> {
    let (mut at, mut pieces) = (0, Vec::new());
    let text = |from: usize, to: usize| letters[from..to].iter().collect::<String>();
    while at < letters.len() {
        if starts(letters, at, "<![CDATA[") {
            let end = find(letters, at + 9, "]]>")?;
            pieces.push(Piece::Section(text(at + 9, end)));
            at = end + 3;
        } else if letters[at] == '<' {
            let end = find(letters, at, ">")?;
            pieces.push(tag(&text(at + 1, end))?);
            at = end + 1;
        } else {
            let end = find(letters, at, "<").unwrap_or(letters.len());
            pieces.push(Piece::Text(text(at, end)));
            at = end;
        }
    }
    Some(pieces)
}

fn tag(inside: &str) -> Option<Piece> {
    let is_name = |name: &str| {
        let fine = |letter: char| letter.is_ascii_alphanumeric() || "_-.".contains(letter);
        !name.is_empty() && name.chars().all(fine)
    };
    let name = |text: &str| text.trim_end_matches(is_blank).to_owned();
    if let Some(ends) = inside.strip_prefix('/') {
        return Some(Piece::Close(name(ends)));
    }
    let (name, piece): (String, fn(String) -> Piece) = match inside.strip_suffix('/') {
        Some(empty) => (name(empty), Piece::Empty),
        None => (name(inside), Piece::Open),
    };
    is_name(&name).then(|| piece(name))
}

fn unescaped(text: &str) -> Option<String> {
    let (mut out, mut letters) = (String::new(), text.chars());
    while let Some(letter) = letters.next() {
        if letter != '&' {
            out.push(letter);
            continue;
        }
        let mut name = String::new();
        loop {
            match letters.next()? {
                ';' => break,
                letter => name.push(letter),
            }
        }
        let known = [("amp", '&'), ("lt", '<'), ("gt", '>'), ("quot", '"'), ("apos", '\'')];
        out.push(known.iter().find(|(known, _)| *known == name)?.1);
    }
    Some(out)
}

fn is_blank(letter: char) -> bool {
    matches!(letter, '\u{20}' | '\u{9}' | '\u{d}' | '\u{a}')
}

fn starts(letters: &[char], at: usize, word: &str) -> bool {
    word.chars().enumerate().all(|(n, letter)| letters.get(at + n) == Some(&letter))
}

fn find(letters: &[char], from: usize, word: &str) -> Option<usize> {
    (from..letters.len()).find(|at| starts(letters, *at, word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slow_reading_reads() {
        let text = "\n<?xml version=\"1.0\"?>\n<xml>\n<A> <![CDATA[<b>]]> &lt;</A><B/><C><D>1</D></C></xml>";
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(slow(text), Some(vec![pair("A", "<b> <"), pair("B", "")]));
        assert_eq!(slow("<xml><a></b></xml>"), None);
    }
}
