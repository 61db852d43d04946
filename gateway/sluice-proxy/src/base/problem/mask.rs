//! Hides what a line of a config may hold in clear: the value of a `secret:`, a `password:` and
//! the like, and the user part of an address. Every hidden character becomes a star, so that the mark under a cell stays in place.

/// The line as it may be shown and logged.
pub(super) fn masked(line: &str) -> String {
    let mut shown: Vec<char> = line.chars().collect();
    hide_secrets(&mut shown);
    hide_users(&mut shown);
    shown.into_iter().collect()
}

/// What the names of secrets end with; `secret_file` names a file and is none.
const SECRET: [&str; 9] = [
    "secret",
    "password",
    "passwd",
    "token",
    "credential",
    "private_key",
    "api_key",
    "session_key",
    "authorization",
];

fn hide_secrets(line: &mut [char]) {
    let mut at = 0;
    while let Some(colon) = line.get(at..).and_then(|rest| rest.iter().position(|c| *c == ':')) {
        let colon = at + colon;
        at = colon + 1;
        if !is_secret(line.get(..colon).unwrap_or(&[])) {
            continue;
        }
        let value = colon + 1;
        let end = line.get(value..).unwrap_or(&[]).iter().position(|c| matches!(c, ',' | '}'));
        let end = end.map_or(line.len(), |end| value + end);
        // What is substituted stands elsewhere; its name is no secret.
        let is_name = line.get(value..end).is_some_and(|value| find(value, 0, "${").is_some());
        if !is_name {
            hide(line, value, end);
        }
    }
}

/// Whether the name that ends here is that of a secret.
fn is_secret(before: &[char]) -> bool {
    let name = before.iter().rev().skip_while(|c| matches!(c, '"' | '\'' | ' '));
    let mut name: Vec<char> =
        name.take_while(|c| c.is_alphanumeric() || matches!(c, '_' | '-')).copied().collect();
    name.reverse();
    let name: String = name.into_iter().collect::<String>().to_lowercase().replace('-', "_");
    SECRET.iter().any(|secret| name.ends_with(secret))
}

fn hide_users(line: &mut [char]) {
    let mut at = 0;
    while let Some(found) = find(line, at, "://") {
        at = found + 3;
        let rest = line.get(at..).unwrap_or(&[]);
        let end =
            rest.iter().position(|c| matches!(c, '"' | '\'' | ' ' | '/')).unwrap_or(rest.len());
        if let Some(user) = rest.get(..end).and_then(|host| host.iter().rposition(|c| *c == '@')) {
            hide(line, at, at + user);
        }
    }
}

fn hide(line: &mut [char], from: usize, to: usize) {
    for c in line.get_mut(from..to).unwrap_or(&mut []) {
        if !matches!(c, ' ' | '"' | '\'') {
            *c = '*';
        }
    }
}

fn find(line: &[char], from: usize, text: &str) -> Option<usize> {
    let wanted: Vec<char> = text.chars().collect();
    let tail = line.get(from..)?;
    tail.windows(wanted.len()).position(|window| window == wanted).map(|at| from + at)
}

#[cfg(test)]
mod tests {
    use super::masked;

    #[test]
    fn secrets_are_hidden_and_everything_else_stays_in_place() {
        for (line, shown) in [
            ("  secret: hunter2", "  secret: *******"),
            ("{ secret: \"hunter2\", paths: /x }", "{ secret: \"*******\", paths: /x }"),
            ("{ secret_file: jwt.key }", "{ secret_file: jwt.key }"),
            ("{ my_secret: x }", "{ my_secret: * }"),
            ("\"x-api-key\": abc, limit: 5", "\"x-api-key\": ***, limit: 5"),
            ("key: \"header:x-token\"", "key: \"header:x-token\""),
            ("secret: ${JWT_SECRET}", "secret: ${JWT_SECRET}"),
            ("url: redis://me:pw@host:6379/0", "url: redis://*****@host:6379/0"),
            (
                "origins: [https://a.example, https://b.example]",
                "origins: [https://a.example, https://b.example]",
            ),
            ("日本 secret: ключ", "日本 secret: ****"),
        ] {
            assert_eq!(masked(line), shown);
        }
    }
}
