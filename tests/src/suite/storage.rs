//! Where the run directories of a suite go.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use std::{fs, io};

use super::programs::own_target_dir;

/// Makes a new directory for a suite: `explicit`, or `DATE-N` below `$PINCUSHION_RUNS`, else below cargo's target directory where cargo
/// built this program, else below `./pincushion-runs`.
///
/// # Errors
/// It cannot be made, or `explicit` exists and is not empty.
pub fn suite_dir(explicit: Option<&Path>) -> io::Result<PathBuf> {
    if let Some(dir) = explicit {
        fs::create_dir_all(dir)?;
        if fs::read_dir(dir)?.next().is_some() {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "it is not empty; name a new directory",
            ));
        }
        return std::path::absolute(dir);
    }
    let root = std::env::var_os("PINCUSHION_RUNS").map(PathBuf::from);
    let root = root.or_else(|| own_target_dir().map(|dir| dir.join("pincushion-runs")));
    let root = std::path::absolute(root.unwrap_or_else(|| "pincushion-runs".into()))?;
    fs::create_dir_all(&root)?;
    number(&root, &date(unix_seconds()))
}

/// The first `DATE-N` that does not exist yet.
fn number(root: &Path, date: &str) -> io::Result<PathBuf> {
    for n in 1_u32.. {
        let dir = root.join(format!("{date}-{n}"));
        match fs::create_dir(&dir) {
            Ok(()) => return Ok(dir),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    unreachable!("a directory does not hold 2^32 suites")
}

/// Today in UTC, `YYYY-MM-DD`.
#[must_use]
pub fn today() -> String {
    date(unix_seconds())
}

/// Seconds since 1970.
pub(super) fn unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// `YYYY-MM-DD` in UTC, by counting days from the first of March of the year 0, so that the leap day is a year's last.
fn date(unix_seconds: u64) -> String {
    let days = unix_seconds / 86_400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "1970-01-01"),
            (951_782_400, "2000-02-29"),
            (951_868_800, "2000-03-01"),
            (1_735_689_599, "2024-12-31"),
        ] {
            assert_eq!(date(seconds), expected);
        }
    }

    #[test]
    fn a_suite_gets_the_next_number_and_a_full_directory_is_refused() {
        let root = tempfile::tempdir().unwrap();
        assert!(number(root.path(), "d").unwrap().ends_with("d-1"));
        assert!(number(root.path(), "d").unwrap().ends_with("d-2"));
        assert!(suite_dir(Some(root.path())).is_err());
        assert!(suite_dir(Some(&root.path().join("new"))).is_ok());
    }
}
