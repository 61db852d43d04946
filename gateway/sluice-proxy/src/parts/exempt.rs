//! Routes and paths to which a rule of the whole gateway does not apply.

use sluice_engine::matcher::PathPattern;

use super::env::Env;
use crate::base::yaml::{Place, nearest};

/// As compiled.
#[derive(Debug, Default)]
pub(crate) struct Exempt {
    routes: Vec<usize>,
    paths: Vec<PathPattern>,
}

/// Compiles a list of route ids and paths (those begin with `/`), or records every problem. `routes` are
/// all ids in the order of the file.
pub(crate) fn build(
    texts: &[String],
    routes: &[&str],
    at: &Place<'_>,
    env: &mut Env<'_>,
) -> Option<Exempt> {
    let mut exempt = Exempt::default();
    let mut whole = true;
    for (index, text) in texts.iter().enumerate() {
        let at = at.index(index);
        if text.starts_with('/') {
            match PathPattern::parse(text) {
                Ok(path) => exempt.paths.push(path),
                Err(error) => {
                    whole = false;
                    env.problems.error(&at, error.to_string());
                }
            }
        } else if let Some(route) = routes.iter().position(|id| id == text) {
            exempt.routes.push(route);
        } else {
            whole = false;
            let problem = env.problems.error(&at, format!("there is no route `{text}`"));
            match nearest(text, routes.iter().copied()) {
                Some(near) => problem.help(format!("did you mean `{near}`? Paths begin with `/`")),
                None => problem.help("name a route by its id, or a path like /auth/**"),
            };
        }
    }
    whole.then_some(exempt)
}

impl Exempt {
    /// Whether the rule does not apply. Asked only of what the rule would refuse.
    pub(crate) fn holds(&self, route: Option<usize>, path: &str) -> bool {
        route.is_some_and(|route| self.routes.contains(&route))
            || self.paths.iter().any(|pattern| pattern.matches(path))
    }
}
