//! A schedule as text: `a3b2a1` lets the first actor take three steps, the second two, the first one more.

use std::iter::repeat_n;

/// A text that is no schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no schedule: it is letters, a for the first actor, each with its number of steps, as in a3b2a1"
)]
pub struct NoSchedule(String);

/// Most steps that a text may ask for; models take about fifty.
const MAX_STEPS: usize = 10_000;

/// Who goes on for how many steps.
#[must_use]
pub fn runs_of(schedule: &[u8]) -> Vec<(u8, usize)> {
    let mut runs: Vec<(u8, usize)> = Vec::new();
    for actor in schedule {
        match runs.last_mut() {
            Some((last, count)) if last == actor => *count += 1,
            _ => runs.push((*actor, 1)),
        }
    }
    runs
}

/// The text of a schedule.
#[must_use]
pub fn encode(schedule: &[u8]) -> String {
    runs_of(schedule)
        .iter()
        .map(|(actor, count)| format!("{}{count}", char::from(b'a' + actor)))
        .collect()
}

/// The schedule of a text.
///
/// # Errors
///
/// If it is none.
pub fn decode(text: &str) -> Result<Vec<u8>, NoSchedule> {
    let wrong = || NoSchedule(text.to_owned());
    let mut schedule = Vec::new();
    let mut rest = text;
    while let Some(letter) = rest.chars().next() {
        let actor = u8::try_from(letter)
            .ok()
            .filter(u8::is_ascii_lowercase)
            .ok_or_else(wrong)?;
        let digits = rest[1..].len()
            - rest[1..]
                .trim_start_matches(|digit: char| digit.is_ascii_digit())
                .len();
        let count: usize = rest[1..=digits].parse().map_err(|_| wrong())?;
        if schedule.len().saturating_add(count) > MAX_STEPS {
            return Err(wrong());
        }
        schedule.extend(repeat_n(actor - b'a', count));
        rest = &rest[1 + digits..];
    }
    Ok(schedule)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_comes_back_from_its_text() {
        let schedule = [0, 0, 0, 1, 1, 0];
        assert_eq!(encode(&schedule), "a3b2a1");
        assert_eq!(decode("a3b2a1"), Ok(schedule.to_vec()));
        assert_eq!(decode(""), Ok(vec![]));
    }

    #[test]
    fn what_is_no_schedule_is_refused() {
        for text in [
            "3a",
            "a",
            "A3",
            "a3-",
            "a99999999999999999999",
            "a20000",
            "ü1",
        ] {
            assert_eq!(decode(text), Err(NoSchedule(text.to_owned())));
        }
    }
}
