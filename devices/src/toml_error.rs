//! Says what is wrong with a TOML file in a way that a person can act on: file, line and column, and the nearest known key.

use std::path::Path;

/// `path:line:column: message`, with the nearest known key when the message is about an unknown one.
///
/// `text` is the file's text, from which the error's place is counted.
#[must_use]
pub fn describe(path: &Path, text: &str, error: &toml::de::Error) -> String {
    let (line, column) = error.span().map_or((1, 1), |span| place(text, span.start));
    format!(
        "{}:{line}:{column}: {}",
        path.display(),
        explain(error.message())
    )
}

/// The message of a deserialiser; an unknown field or variant gets its nearest known neighbour in front of the list.
#[must_use]
pub fn explain(message: &str) -> String {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let about = ["unknown field", "unknown variant"]
        .iter()
        .find(|words| message.starts_with(**words));
    let (Some(what), Some(wrong)) = (about, quoted.next()) else {
        return message.trim_end().replace('\n', ", ");
    };
    let known: Vec<&str> = quoted.collect();
    let noun = if what.ends_with("field") {
        "key"
    } else {
        "value"
    };
    match nearest(wrong, known.iter().copied()) {
        Some(near) => format!(
            "unknown {noun} `{wrong}`; did you mean `{near}`? (known: {})",
            known.join(", ")
        ),
        None => format!("unknown {noun} `{wrong}` (known: {})", known.join(", ")),
    }
}

/// The candidate with the smallest edit distance, if that is small enough to be a slip of the finger.
#[must_use]
pub fn nearest<'a>(wrong: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|candidate| (distance(wrong, candidate), candidate))
        .filter(|(distance, candidate)| {
            *distance <= 1 + candidate.chars().count().max(wrong.chars().count()) / 3
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Line and column, both from 1, of a byte offset.
fn place(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (
        before.matches('\n').count() + 1,
        before[line_start..].chars().count() + 1,
    )
}

/// Levenshtein distance.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, from) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in right.iter().enumerate() {
            let substituted = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Example {
        #[expect(dead_code, reason = "only parsed")]
        device: String,
    }

    #[test]
    fn an_unknown_key_names_its_place_and_its_neighbour() {
        let text = "# first\ndevise = \"b\"\n";
        let error = toml::from_str::<Example>(text).unwrap_err();
        assert_eq!(
            describe(Path::new("plan.toml"), text, &error),
            "plan.toml:2:1: unknown key `devise`; did you mean `device`? (known: device)"
        );
    }

    #[test]
    fn something_quite_different_gets_no_guess() {
        assert_eq!(nearest("zzzzzz", ["device", "sectors"].into_iter()), None);
        assert_eq!(
            nearest("sector", ["device", "sectors"].into_iter()),
            Some("sectors")
        );
    }

    #[test]
    fn other_errors_keep_their_words() {
        let text = "device = 3";
        let error = toml::from_str::<Example>(text).unwrap_err();
        let said = describe(Path::new("x"), text, &error);
        assert!(said.starts_with("x:1:10: invalid type"), "{said}");
    }
}
