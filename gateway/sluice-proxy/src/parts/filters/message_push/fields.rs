//! The fields of a message, in XML or JSON, as far as they are needed to know it. No document is built.
//!
//! The one rule: of XML nothing is understood that could mean something else: no document types, no entities
//! of one's own, no instructions, no elements that end in another order than they began in. What has them is
//! no message.

use serde_json::Value;

/// Fields of a message that are looked at, and how deep elements stand in each other within one.
const MOST: usize = 128;
const DEPTH: usize = 32;
/// What is blank in XML (section 2.3), which is less than in Unicode.
const BLANK: [char; 4] = [' ', '\t', '\r', '\n'];

/// A message's fields at the top, by name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fields(Vec<(String, String)>);

impl Fields {
    /// Reads a message in either form.
    pub(super) fn read(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text).trim_matches(BLANK);
        if text.starts_with('{') { Self::json(text) } else { Self::xml(text) }
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let mut found = self.0.iter().filter(|(known, _)| known == name);
        let (_, value) = found.next()?;
        // Of two nobody knows which counts.
        found.next().is_none().then_some(value.as_str())
    }

    /// All of them, as they stand.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn into_pairs(self) -> Vec<(String, String)> {
        self.0
    }

    fn json(text: &str) -> Option<Self> {
        let Ok(Value::Object(members)) = serde_json::from_str(text) else { return None };
        let scalar = |(name, value)| match value {
            Value::String(text) => Some((name, text)),
            Value::Number(number) => Some((name, number.to_string())),
            _ => None,
        };
        Some(Self(members.into_iter().filter_map(scalar).take(MOST).collect()))
    }

    fn xml(text: &str) -> Option<Self> {
        let mut rest = text;
        if rest.starts_with("<?xml ") {
            rest = rest.split_once("?>")?.1.trim_start_matches(BLANK);
        }
        let (root, mut rest) = opening(rest)?;
        if root.1 {
            return None;
        }
        let mut fields = Vec::new();
        loop {
            rest = rest.trim_start_matches(BLANK);
            if let Some(after) = rest.strip_prefix("</") {
                let (name, after) = after.split_once('>')?;
                return (name.trim_end_matches(BLANK) == root.0 && after.is_empty())
                    .then_some(Self(fields));
            }
            let ((name, empty), after) = opening(rest)?;
            let value = if empty {
                rest = after;
                Some(String::new())
            } else {
                let (value, after) = content(name, after)?;
                rest = after;
                value
            };
            if fields.len() >= MOST {
                return None;
            }
            // What has more elements inside is no text.
            fields.extend(value.map(|value| (name.to_owned(), value)));
        }
    }
}

/// An element's name and whether it is empty, and what follows.
fn opening(text: &str) -> Option<((&str, bool), &str)> {
    let (tag, rest) = text.strip_prefix('<')?.split_once('>')?;
    let (name, empty) = tag.strip_suffix('/').map_or((tag, false), |name| (name, true));
    let name = name.trim_end_matches(BLANK);
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    (!name.is_empty() && name.bytes().all(plain)).then_some(((name, empty), rest))
}

/// What stands in an element, if that is text, and what follows the element. Blanks alone between markup are
/// not part of it.
fn content<'a>(name: &str, text: &'a str) -> Option<(Option<String>, &'a str)> {
    let (mut value, mut rest, mut inner, mut nested) = (String::new(), text, Vec::new(), false);
    loop {
        let at = rest.find('<')?;
        let (plain, markup) = rest.split_at(at);
        if inner.is_empty() && !plain.trim_matches(BLANK).is_empty() {
            unescape(plain, &mut value)?;
        }
        if let Some(after) = markup.strip_prefix("<![CDATA[") {
            let (plain, after) = after.split_once("]]>")?;
            if inner.is_empty() {
                value.push_str(plain);
            }
            rest = after;
        } else if let Some(after) = markup.strip_prefix("</") {
            let (tag, after) = after.split_once('>')?;
            let outermost = inner.is_empty();
            if tag.trim_end_matches(BLANK) != inner.pop().unwrap_or(name) {
                return None;
            }
            if outermost {
                return Some(((!nested).then_some(value), after));
            }
            rest = after;
        } else {
            let ((tag, empty), after) = opening(markup)?;
            nested = true;
            if !empty {
                inner.push(tag);
            }
            if inner.len() > DEPTH {
                return None;
            }
            rest = after;
        }
    }
}

/// The five entities that XML itself knows (section 4.6); no others.
fn unescape(text: &str, out: &mut String) -> Option<()> {
    let mut parts = text.split('&');
    out.push_str(parts.next()?);
    for part in parts {
        let (name, rest) = part.split_once(';')?;
        out.push(match name {
            "amp" => '&',
            "lt" => '<',
            "gt" => '>',
            "quot" => '"',
            "apos" => '\'',
            _ => return None,
        });
        out.push_str(rest);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_in_both_forms() {
        let xml = "<xml><ToUserName><![CDATA[gh_1]]></ToUserName>\n<MsgId>12</MsgId>\
            <Content><![CDATA[<!DOCTYPE a> & ]] > </MsgId>]]></Content><Empty/><E></E>\
            <Pic><Item><MsgId>7</MsgId></Item></Pic><Text>a &lt;b&gt; &amp;</Text></xml>\n";
        let fields = Fields::read(xml.as_bytes()).unwrap();
        for (name, value) in [
            ("ToUserName", Some("gh_1")),
            ("MsgId", Some("12")),
            ("Content", Some("<!DOCTYPE a> & ]] > </MsgId>")),
            ("Empty", Some("")),
            ("E", Some("")),
            ("Text", Some("a <b> &")),
            ("Pic", None),
            ("Item", None),
            ("Other", None),
        ] {
            assert_eq!(fields.get(name), value, "{name}");
        }
        let json =
            "\u{feff}{\"MsgId\":6054768590064713728,\"Event\":\"e\",\"List\":[1],\"O\":{\"a\":1}}";
        let fields = Fields::read(json.as_bytes()).unwrap();
        assert_eq!(fields.get("MsgId"), Some("6054768590064713728"));
        assert_eq!((fields.get("Event"), fields.get("List")), (Some("e"), None));
        assert!(Fields::read(b"<?xml version=\"1.0\"?>\n<xml><A>1</A></xml>").is_some());
        let twice = Fields::read(b"<xml><A>1</A><A>2</A></xml>").unwrap();
        assert_eq!(twice.get("A"), None);
    }

    #[test]
    fn what_could_mean_something_else_is_no_message() {
        let many = format!("<xml>{}</xml>", "<a>1</a>".repeat(MOST + 1));
        let deep = format!("<xml>{}", "<a>".repeat(100_000));
        for text in [
            "",
            "x",
            "<xml>",
            "<xml/>",
            "<xml></xml>x",
            "<xml><a></xml>",
            "<xml><a></b></xml>",
            "<xml><a><b></a></b></a></xml>",
            "<xml><a><b><c></b></c></a></xml>",
            "\u{a0}<xml><a>1</a></xml>",
            "\u{feff}\u{feff}<xml><a>1</a></xml>",
            "<xml><a>1</a>",
            "<xml>text</xml>",
            "<xml><a b=\"c\">1</a></xml>",
            "<xml><!-- x --><a>1</a></xml>",
            "<xml><?php x ?></xml>",
            "<xml><a><![CDATA[1</a></xml>",
            "<xml><a>&x;</a></xml>",
            "<xml><a>&#65;</a></xml>",
            "<!DOCTYPE x [<!ENTITY a \"b\">]><xml><a>&a;</a></xml>",
            "<?xml version=\"1.0\"?><!DOCTYPE x SYSTEM \"file:///etc/passwd\"><xml><a>1</a></xml>",
            "{\"a\":",
            "[1]",
            &many,
            &deep,
        ] {
            assert_eq!(Fields::read(text.as_bytes()), None, "{}", &text[..text.len().min(60)]);
        }
        assert_eq!(Fields::read(b"<xml><a>\xff</a></xml>"), None);
        let nested = |depth: usize| {
            let (open, close) = ("<b>".repeat(depth), "</b>".repeat(depth));
            Fields::read(format!("<xml><a>{open}{close}</a></xml>").as_bytes()).is_some()
        };
        assert!(nested(DEPTH) && !nested(DEPTH + 1));
        let spaced = Fields::read("<xml><a>\u{3000}</a></xml>".as_bytes()).unwrap();
        assert_eq!(spaced.get("a"), Some("\u{3000}"), "a blank of Unicode is a letter of XML");
    }
}
