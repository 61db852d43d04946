//! `scheme name="value", name="value"`, as several gateways write signatures into `Authorization`. Each
//! name stands once; a value has no escapes.

use super::Unclear;

/// Parameters at most.
const MOST: usize = 8;

/// The parameters behind `scheme`, or `None` if the field is of another scheme.
pub(super) fn parameters<'a>(
    field: &'a str,
    scheme: &str,
) -> Result<Option<Parameters<'a>>, Unclear> {
    let Some((word, mut rest)) = field.split_once(' ') else { return Ok(None) };
    if !word.eq_ignore_ascii_case(scheme) {
        return Ok(None);
    }
    let mut found = Vec::new();
    loop {
        let (name, after) = rest.split_once('=').ok_or(Unclear)?;
        let (value, after) = quoted(after).ok_or(Unclear)?;
        let name = name.trim_matches(' ');
        if found.len() == MOST || found.iter().any(|(known, _)| *known == name) {
            return Err(Unclear);
        }
        found.push((name, value));
        match after.trim_start_matches(' ').split_once(',') {
            Some(("", more)) => rest = more,
            None if after.trim_matches(' ').is_empty() => return Ok(Some(Parameters(found))),
            _ => return Err(Unclear),
        }
    }
}

fn quoted(text: &str) -> Option<(&str, &str)> {
    let (value, after) = text.strip_prefix('"')?.split_once('"')?;
    (!value.contains('\\')).then_some((value, after))
}

pub(super) struct Parameters<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Parameters<'a> {
    pub(super) fn get(&self, name: &str) -> Result<&'a str, Unclear> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| *value).ok_or(Unclear)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_stand_once_and_are_quoted() {
        let read = |text| parameters(text, "hmac");
        let good = read(r#"HMAC a="1",b="x y" , c="=""#).unwrap().unwrap();
        assert_eq!((good.get("a"), good.get("b"), good.get("c")), (Ok("1"), Ok("x y"), Ok("=")));
        assert!(good.get("d").is_err());
        assert!(read("Bearer x").unwrap().is_none());
        assert!(read("").unwrap().is_none());
        for bad in [
            "hmac ",
            "hmac a",
            "hmac a=1",
            r#"hmac a="1" b="2""#,
            r#"hmac a="1",a="2""#,
            r#"hmac a="1"#,
            r#"hmac a="\"""#,
            r#"hmac a="1","#,
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
