//! Templates and trace headers: what is written is what is read.

use proptest::prelude::*;
use sluice_engine::template::Template;
use sluice_engine::trace::{LENGTH, TraceParent};

proptest! {
    #[test]
    fn escaped_text_is_literal(text in "\\PC*") {
        let escaped = text.replace('{', "{{").replace('}', "}}");
        let template = Template::parse(&escaped, |_| None::<()>).unwrap();
        let mut out = String::new();
        template.render(&mut out, |(), _| {});
        prop_assert!(template.is_literal());
        prop_assert_eq!(out, text);
    }

    #[test]
    fn any_template_parses_or_points_into_itself(text in "[{}ab\u{e9}]{0,20}") {
        let known = |name: &str| (name == "a").then_some(());
        if let Err(error) = Template::parse(&text, known) {
            prop_assert!(text.get(error.offset..).is_some_and(|rest| !rest.is_empty()));
        }
    }

    #[test]
    fn a_trace_parent_survives_the_round(
        trace_id in any::<[u8; 16]>(),
        parent_id in any::<[u8; 8]>(),
        flags in 0_u8..4,
    ) {
        prop_assume!(trace_id != [0; 16] && parent_id != [0; 8]);
        let parent = TraceParent { trace_id, parent_id, flags };
        let written = parent.to_string();
        prop_assert_eq!(written.len(), LENGTH);
        prop_assert_eq!(TraceParent::parse(&written), Some(parent));
        prop_assert_eq!(TraceParent::parse(&written.to_uppercase()).is_some(),
            written == written.to_uppercase());
    }

    #[test]
    fn a_spoilt_trace_parent_is_refused(at in 0..LENGTH, byte in "[g-zG-Z _.]") {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let mut spoilt = good.to_owned();
        spoilt.replace_range(at..=at, &byte);
        prop_assert_eq!(TraceParent::parse(&spoilt), None);
    }

    #[test]
    fn any_value_has_an_answer(value in "\\PC{0,70}") {
        let _ = TraceParent::parse(&value);
    }
}
