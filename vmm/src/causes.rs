//! An error with its causes, as one line for people.

use std::error::Error;

/// The messages of `error` and its causes, each behind a colon; one that the text before holds already is left out.
#[must_use]
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Plain(#[source] std::io::Error);

    #[derive(Debug, thiserror::Error)]
    #[error("outer: {0}")]
    struct Repeats(#[source] std::io::Error);

    #[test]
    fn a_cause_is_told_once() {
        let cause = || std::io::Error::other("inner");
        assert_eq!(with_causes(&Plain(cause())), "outer: inner");
        assert_eq!(with_causes(&Repeats(cause())), "outer: inner");
    }
}
