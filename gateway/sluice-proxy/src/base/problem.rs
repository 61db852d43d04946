//! What is wrong with a file the operator wrote, gathered so that all of it is told in one go.
//! How a problem looks on a terminal is left to [`render`](self::render::render). The one rule: a
//! message never shows a value that came out of `${...}`; every door here redacts, so callers may
//! quote what they were given.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use crate::base::yaml::Place;

mod mask;
mod render;

pub(crate) use render::render;

/// Whether the file can still be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Severity {
    /// The file is refused.
    Error,
    /// The file is used, and somebody should look at it.
    Warning,
}

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Problem {
    pub(crate) severity: Severity,
    /// The file as the operator named it.
    #[serde(serialize_with = "as_text")]
    pub(crate) file: Arc<str>,
    /// From 1; 0 when the problem is the file as a whole.
    pub(crate) line: u32,
    /// From 1, in characters; 0 when unknown.
    pub(crate) column: u32,
    /// The cell, as in `routes[3].filters[1].jwt.issuer`; empty for the whole document.
    pub(crate) path: String,
    /// What is wrong: one line, no full stop.
    pub(crate) message: String,
    /// What to do about it: one line.
    pub(crate) help: Option<String>,
}

/// Everything found so far. At most [`Problems::KEPT`] of each severity are kept, the rest counted.
#[derive(Debug, Serialize)]
pub(crate) struct Problems {
    #[serde(serialize_with = "in_order")]
    problems: Vec<Problem>,
    more: usize,
    #[serde(skip)]
    file: Arc<str>,
    #[serde(skip)]
    errors: usize,
    #[serde(skip)]
    warnings: usize,
    /// Takes the help text meant for a problem that was not kept.
    #[serde(skip)]
    unkept: Box<Problem>,
}

impl Problem {
    /// Says what to do about it.
    pub(crate) fn help(&mut self, text: impl Into<String>) -> &mut Self {
        self.help = Some(text.into());
        self
    }

    /// The line and what is wrong there, but not what stands there: the file may be another one than meant.
    pub(crate) fn brief(&self) -> String {
        let message = self.message.split(", got ").next().unwrap_or_default();
        format!("line {}: {message}", self.line)
    }

    fn by_position(&self, other: &Self) -> Ordering {
        let place = |problem: &Self| (problem.line, problem.column, problem.severity);
        self.file.cmp(&other.file).then_with(|| place(self).cmp(&place(other)))
    }

    fn says_the_same(&self, other: &Self) -> bool {
        (self.line, self.column) == (other.line, other.column)
            && self.line != 0
            && self.message == other.message
            && self.file == other.file
    }
}

/// `routes.yaml:14:9: error: unknown field (routes[2].timout)`, without the help.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line != 0 {
            write!(f, ":{}", self.line)?;
        }
        if self.line != 0 && self.column != 0 {
            write!(f, ":{}", self.column)?;
        }
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, ": {severity}: {}", self.message)?;
        if self.path.is_empty() { Ok(()) } else { write!(f, " ({})", self.path) }
    }
}

impl Problems {
    /// How many problems of each severity are kept.
    pub(crate) const KEPT: usize = 100;

    /// An empty report about `file`.
    pub(crate) fn new(file: impl Into<Arc<str>>) -> Self {
        let file = file.into();
        let unkept = Box::new(Problem {
            severity: Severity::Warning,
            file: Arc::clone(&file),
            line: 0,
            column: 0,
            path: String::new(),
            message: String::new(),
            help: None,
        });
        Self { problems: Vec::new(), more: 0, file, errors: 0, warnings: 0, unkept }
    }

    /// Reports an error at a place. The message may quote the place's value.
    pub(crate) fn error(&mut self, at: &Place<'_>, message: impl Into<String>) -> &mut Problem {
        self.at_place(Severity::Error, at, message.into())
    }

    /// Reports something worth a look at a place. The message may quote the place's value.
    pub(crate) fn warn(&mut self, at: &Place<'_>, message: impl Into<String>) -> &mut Problem {
        self.at_place(Severity::Warning, at, message.into())
    }

    /// Reports an error where there is no value to point at; `0, 0` is the file as a whole.
    pub(crate) fn error_at(
        &mut self,
        line: u32,
        column: u32,
        message: impl Into<String>,
    ) -> &mut Problem {
        let problem = self.draft(Severity::Error, (line, column), String::new(), &message.into());
        self.push(problem)
    }

    /// An error whose message is known to show nothing secret.
    pub(crate) fn error_as_is(
        &mut self,
        position: (u32, u32),
        path: String,
        message: &str,
    ) -> &mut Problem {
        let problem = self.draft(Severity::Error, position, path, message);
        self.push(problem)
    }

    pub(crate) fn has_errors(&self) -> bool {
        self.errors > 0
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.errors == 0 && self.warnings == 0
    }

    /// How many errors there are, kept or not.
    pub(crate) fn errors(&self) -> usize {
        self.errors
    }

    /// How many warnings there are, kept or not.
    pub(crate) fn warnings(&self) -> usize {
        self.warnings
    }

    /// How many problems were counted and not kept.
    pub(crate) fn more(&self) -> usize {
        self.more
    }

    /// The kept problems by file, line and column.
    pub(crate) fn sorted(&self) -> Vec<&Problem> {
        let mut sorted: Vec<_> = self.problems.iter().collect();
        sorted.sort_by(|a, b| a.by_position(b));
        sorted
    }

    fn at_place(&mut self, severity: Severity, at: &Place<'_>, message: String) -> &mut Problem {
        let message = at.redact(message);
        let problem = self.draft(severity, (at.line(), at.column()), at.path(), &message);
        self.push(problem)
    }

    fn draft(
        &self,
        severity: Severity,
        (line, column): (u32, u32),
        path: String,
        message: &str,
    ) -> Problem {
        let file = Arc::clone(&self.file);
        // A library's message may be a drawing of several lines; a problem is one.
        let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
        Problem { severity, file, line, column, path, message, help: None }
    }

    /// Keeps, counts or, where an aliased value is reported once for each use, drops a problem.
    fn push(&mut self, problem: Problem) -> &mut Problem {
        if let Some(known) = self.problems.iter().position(|other| other.says_the_same(&problem)) {
            return self.problems.get_mut(known).unwrap_or(&mut self.unkept);
        }
        let count = match problem.severity {
            Severity::Error => &mut self.errors,
            Severity::Warning => &mut self.warnings,
        };
        *count += 1;
        if *count > Self::KEPT {
            self.more += 1;
            *self.unkept = problem;
            return &mut self.unkept;
        }
        self.problems.push(problem);
        self.problems.last_mut().unwrap_or(&mut self.unkept)
    }
}

fn as_text<S: Serializer>(file: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(file)
}

fn in_order<S: Serializer>(problems: &[Problem], serializer: S) -> Result<S::Ok, S::Error> {
    let mut sorted: Vec<_> = problems.iter().collect();
    sorted.sort_by(|a, b| a.by_position(b));
    serializer.collect_seq(sorted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorts_by_position_and_keeps_severity() {
        let mut problems = Problems::new("a.yaml");
        problems.error_at(9, 1, "late");
        problems.error_at(2, 4, "early").help("do this");
        problems.error_at(0, 0, "whole");
        let said: Vec<_> = problems.sorted().iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            ["a.yaml: error: whole", "a.yaml:2:4: error: early", "a.yaml:9:1: error: late"]
        );
        assert_eq!(problems.sorted()[1].help.as_deref(), Some("do this"));
    }

    #[test]
    fn keeps_a_hundred_and_counts_the_rest() {
        let mut problems = Problems::new("a.yaml");
        for line in 1..=130 {
            problems.error_at(line, 1, "no").help("never lost on the wrong problem");
        }
        assert_eq!((problems.errors(), problems.more(), problems.sorted().len()), (130, 30, 100));
    }

    #[test]
    fn says_one_thing_once_per_cell() {
        let mut problems = Problems::new("a.yaml");
        problems.error_at(3, 3, "same");
        problems.error_at(3, 3, "same");
        problems.error_at(3, 3, "other");
        assert_eq!(problems.errors(), 2);
    }

    #[test]
    fn json_is_sorted_and_flat() {
        let mut problems = Problems::new("a.yaml");
        problems.error_at(2, 1, "b");
        problems.error_at(1, 1, "a").help("h");
        let json = serde_json::to_value(&problems).unwrap();
        assert_eq!(
            json,
            serde_json::json!({"more": 0, "problems": [
                {"severity": "error", "file": "a.yaml", "line": 1, "column": 1, "path": "", "message": "a", "help": "h"},
                {"severity": "error", "file": "a.yaml", "line": 2, "column": 1, "path": "", "message": "b", "help": null},
            ]})
        );
    }
}
