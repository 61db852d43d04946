//! Configs: whatever the text, compiling ends, with a snapshot that serves or with errors that have
//! places in the text.

use super::world::{Outcome, World, compiled, read};
use crate::base::problem::render;
use crate::base::yaml::Source;

/// Requests for whatever was compiled.
const REQUESTS: [&str; 4] = [
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST /a/b?c=d HTTP/1.1\r\nHost: a.b:80\r\nContent-Length: 3\r\nCookie: e=f\r\n\r\n",
    "OPTIONS /api/x HTTP/1.1\r\nHost: x\r\nOrigin: https://x\r\nAccess-Control-Request-Method: GET\r\n\r\n",
    "GET /%2e/x;y/ HTTP/1.0\r\nAuthorization: Bearer a.b.c\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n",
];

pub(super) fn check(data: &[u8]) {
    let source =
        Source { name: "r".to_owned(), text: String::from_utf8_lossy(data).into_owned().into() };
    // What the text names must not be read but from folders that are not there.
    if names_a_file(&source.text) {
        return;
    }
    match compiled(&source) {
        Ok((snapshot, warnings)) => {
            assert!(!warnings.has_errors());
            let _ = render(&warnings, Some(&source));
            let again = compiled(&source).expect("the same text again").0;
            assert_eq!(again.router.order(), snapshot.router.order());
            let world = World::of(snapshot);
            for request in REQUESTS {
                if let Outcome::Forwarded { target, .. } =
                    world.ask(read(request.as_bytes()).unwrap())
                {
                    assert!(target.path().starts_with('/'), "{target}");
                }
            }
        }
        Err(problems) => {
            assert!(problems.has_errors());
            // A lone CR ends a line for YAML and for no editor, so places are not compared then.
            let editable = !source.text.replace("\r\n", "\n").contains('\r');
            let lines: Vec<&str> = source.text.split('\n').collect();
            for problem in problems.sorted() {
                let (line, column) = (problem.line as usize, problem.column as usize);
                assert!(!problem.message.is_empty() && !problem.message.contains('\n'));
                if !editable {
                    continue;
                }
                assert!(line <= lines.len(), "{problem} in {} lines", lines.len());
                // One column behind the last is where something is missing.
                let width = line.checked_sub(1).map_or(0, |at| lines[at].chars().count());
                assert!(column <= width + 1, "{problem} in a line of {width}");
            }
            let told = render(&problems, Some(&source));
            assert!(told.contains("error"), "{told}");
        }
    }
}

/// Whether an absolute path may stand in the text: the file behind it would be read.
fn names_a_file(text: &str) -> bool {
    ["_file", "ca_file", "\\"].iter().any(|word| text.contains(word))
        && ["/dev", "/proc", "/sys", "/run", "\\"].iter().any(|folder| text.contains(folder))
}
