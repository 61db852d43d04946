//! `${...}` inside a scalar: `${NAME}`, `${NAME:-default}`, `${NAME:?why}`, `${file:path}`, and
//! `$${` for a literal `${`. As in a shell, `:-` and `:?` count an empty variable as unset. Text is
//! put in place of text, once: what comes out is not searched again. The one rule: a refusal names
//! the variable or the file and never what it held.

use std::io::ErrorKind;

use zeroize::Zeroizing;

use super::Lookup;

/// A scalar's text with everything in its place.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Replaced {
    pub(super) text: Zeroizing<String>,
    /// False when only `$${` was taken care of.
    pub(super) substituted: bool,
}

/// Why something could not be put in place.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// Byte offset of the `${` in the scalar's text.
    pub(super) offset: usize,
    pub(super) message: String,
    pub(super) help: String,
}

/// The largest file that `${file:path}` takes in, in bytes.
pub(super) const MAX_FILE: usize = 64 * 1024;

const OPEN: &str = "${";
const LITERAL_HELP: &str = "write `$${` where a literal `${` is meant";

/// Replaces what is to be replaced; `None` when there is nothing.
pub(super) fn replace(text: &str, lookup: &dyn Lookup) -> Result<Option<Replaced>, Refusal> {
    if !text.contains(OPEN) {
        return Ok(None);
    }
    let mut out = Replaced { text: String::with_capacity(text.len()).into(), substituted: false };
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(OPEN) {
        if let Some(before) = before.strip_suffix('$') {
            out.text.push_str(before);
            out.text.push_str(OPEN);
            rest = after;
            continue;
        }
        let offset = text.len() - after.len() - OPEN.len();
        let refuse = |(message, help): Words| Refusal { offset, message, help };
        let Some((body, after)) = after.split_once('}') else {
            let message = "a `${` is not closed".to_owned();
            let help = format!(
                "close it with `}}`, in quotes if the text holds `#` or `: `; {LITERAL_HELP}"
            );
            return Err(refuse((message, help)));
        };
        out.text.push_str(before);
        out.text.push_str(&value(body, lookup).map_err(refuse)?);
        out.substituted = true;
        rest = after;
    }
    out.text.push_str(rest);
    Ok(Some(out))
}

/// Message and help.
type Words = (String, String);

fn value(body: &str, lookup: &dyn Lookup) -> Result<Zeroizing<String>, Words> {
    if body.contains(OPEN) {
        return Err((
            format!("`${{{body}}}` holds another `${{`"),
            format!("give the default as plain text; {LITERAL_HELP}"),
        ));
    }
    let found = match body.strip_prefix("file:") {
        Some(path) => file(path, lookup)?,
        None => variable(body, lookup)?,
    };
    if found.contains('\0') {
        let help = "a value is text and cannot hold a NUL byte".to_owned();
        return Err((format!("what `${{{body}}}` stands for holds a NUL byte"), help));
    }
    Ok(found)
}

fn variable(body: &str, lookup: &dyn Lookup) -> Result<Zeroizing<String>, Words> {
    let end = body.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(body.len());
    let (name, rest) = body.split_at(end);
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(unreadable(body));
    }
    let set = lookup.env(name).map(Zeroizing::new);
    if rest.is_empty() {
        return set.ok_or_else(|| unset(name, " is not set"));
    }
    let set = set.filter(|value| !value.is_empty());
    if let Some(default) = rest.strip_prefix(":-") {
        Ok(set.unwrap_or_else(|| default.to_owned().into()))
    } else if let Some(why) = rest.strip_prefix(":?") {
        set.ok_or_else(|| match why {
            "" => unset(name, " is not set or is empty"),
            why => unset(name, &format!(": {why}")),
        })
    } else {
        Err(unreadable(body))
    }
}

fn unset(name: &str, what: &str) -> Words {
    (
        format!("the environment variable `{name}`{what}"),
        format!("set `{name}`, or give a default: `${{{name}:-value}}`"),
    )
}

fn unreadable(body: &str) -> Words {
    (
        format!("`${{{body}}}` cannot be replaced"),
        format!(
            "known are ${{NAME}}, ${{NAME:-default}}, ${{NAME:?why}} and ${{file:path}}; {LITERAL_HELP}"
        ),
    )
}

fn file(path: &str, lookup: &dyn Lookup) -> Result<Zeroizing<String>, Words> {
    let refuse = |what: &str, help: &str| (format!("the file `{path}` {what}"), help.to_owned());
    if path.trim().is_empty() {
        let help = "name the file: `${file:/run/secrets/key}`".to_owned();
        return Err(("`${file:}` names no file".to_owned(), help));
    }
    let mut content =
        lookup.file(path).map(Zeroizing::new).map_err(|error| match error.kind() {
            ErrorKind::NotFound => refuse("does not exist", "create it, or mend the path"),
            ErrorKind::PermissionDenied => {
                refuse("may not be read", "let the user the gateway runs as read it")
            }
            ErrorKind::InvalidData => refuse("is not UTF-8 text", "only text can be put in place"),
            other => refuse(&format!("cannot be read: {other}"), "check the path"),
        })?;
    if content.len() > MAX_FILE {
        return Err(refuse("is larger than 64 KiB", "only keys, tokens and the like belong here"));
    }
    let end = content.trim_end_matches(['\n', '\r']).len();
    content.truncate(end);
    Ok(content)
}

#[cfg(test)]
pub(in crate::base) mod tests {
    use std::io;

    use super::*;

    /// An environment for tests: `HOST`, `EMPTY`, `SECRET`, `PORT`, and a few files.
    pub(in crate::base) struct Env;

    impl Lookup for Env {
        fn env(&self, name: &str) -> Option<String> {
            let value = match name {
                "HOST" => "api.example.com",
                "EMPTY" => "",
                "SECRET" => "hunter2: {x}",
                "PORT" => "8080",
                "ON" => "true",
                "NUL" => "a\0b",
                _ => return None,
            };
            Some(value.to_owned())
        }

        fn file(&self, path: &str) -> io::Result<String> {
            match path {
                "/key" => Ok("k3y\r\n".to_owned()),
                "/big" => Ok("x".repeat(MAX_FILE + 1)),
                "/locked" => Err(ErrorKind::PermissionDenied.into()),
                _ => Err(ErrorKind::NotFound.into()),
            }
        }
    }

    fn replaced(text: &str) -> String {
        replace(text, &Env).unwrap().unwrap().text.to_string()
    }

    fn refused(text: &str) -> Refusal {
        replace(text, &Env).unwrap_err()
    }

    #[test]
    fn puts_values_in_place() {
        assert_eq!(replace("plain $HOST {x}", &Env), Ok(None));
        assert_eq!(replaced("${HOST}"), "api.example.com");
        assert_eq!(replaced("https://${HOST}:${PORT}/x"), "https://api.example.com:8080/x");
        assert_eq!(replaced("${NOPE:-a b}"), "a b");
        assert_eq!(replaced("${EMPTY:-x}|${EMPTY}|${HOST:-x}"), "x||api.example.com");
        assert_eq!(replaced("${NOPE:-}"), "");
        assert_eq!(replaced("${HOST:?needed}"), "api.example.com");
        assert_eq!(replaced("${file:/key}"), "k3y");
    }

    #[test]
    fn what_comes_out_is_not_searched_again() {
        assert_eq!(replaced("$${HOST}"), "${HOST}");
        assert_eq!(replaced("a$${x}${PORT}"), "a${x}8080");
        assert_eq!(replaced("$$${HOST}"), "$${HOST}");
        let literal = replace("$${1}", &Env).unwrap().unwrap();
        assert!(!literal.substituted);
    }

    #[test]
    fn a_refusal_names_the_variable_and_both_ways_out() {
        let refusal = refused("ab ${NOPE}");
        assert_eq!(refusal.offset, 3);
        assert_eq!(refusal.message, "the environment variable `NOPE` is not set");
        assert_eq!(refusal.help, "set `NOPE`, or give a default: `${NOPE:-value}`");
        assert_eq!(
            refused("${EMPTY:?ask the owner}").message,
            "the environment variable `EMPTY`: ask the owner"
        );
        assert_eq!(
            refused("${NOPE:?}").message,
            "the environment variable `NOPE` is not set or is empty"
        );
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for text in ["${a.b}", "${1}", "${}", "${NOPE-x}", "${NOPE:x}", "${ HOST }"] {
            let refusal = refused(text);
            assert!(refusal.message.contains("cannot be replaced"), "{text}: {}", refusal.message);
            assert!(refusal.help.ends_with(LITERAL_HELP));
        }
        assert!(refused("${HOST").message.contains("not closed"));
        assert!(refused("${NOPE:-${HOST}}").message.contains("another `${`"));
        assert!(refused("${NUL}").message.contains("NUL"));
    }

    #[test]
    fn files_are_bounded_and_named() {
        assert_eq!(refused("${file:/gone}").message, "the file `/gone` does not exist");
        assert_eq!(refused("${file:/locked}").message, "the file `/locked` may not be read");
        assert_eq!(refused("${file:/big}").message, "the file `/big` is larger than 64 KiB");
        assert_eq!(refused("${file:}").message, "`${file:}` names no file");
    }
}
