//! The page for a repository or a mail.

use std::fmt::Write as _;

use super::table::Table;
use super::view::{Section, Shown, sections};
use crate::report::markdown::plain;

/// The whole file.
#[must_use]
pub fn markdown(table: &Table) -> String {
    let about = &table.about;
    // Writing to a String cannot fail.
    let mut text = format!(
        "# The table of designs\n\nMade on {} by commit `{}`:\n\n```text\n{}\n```\n\n{}.\n",
        about.date, about.commit, about.command, about.made
    );
    for by in &about.runs_by {
        let _ = write!(text, "\n- {by}");
    }
    if !about.runs_by.is_empty() {
        text += "\n";
    }
    for absent in &table.absent {
        let _ = write!(text, "\n`{}` did not run: {}.\n", absent.design, absent.why);
    }
    for section in sections(table) {
        write_section(&mut text, &section);
    }
    text += "\n## How rows differ\n\nMade of the cells.\n\n";
    for sentence in &table.differences {
        let _ = writeln!(text, "- {sentence}");
    }
    text += "\n## In plain words\n\n";
    text += &table.words.join("\n\n");
    text += "\n";
    text
}

fn write_section(text: &mut String, section: &Section) {
    let _ = write!(text, "\n## {}\n\n{}\n\n|", section.title, section.note);
    for name in &section.head {
        let _ = write!(text, " {} |", plain(name));
    }
    *text += "\n|";
    *text += &" --- |".repeat(section.head.len());
    *text += "\n";
    for row in &section.rows {
        *text += "|";
        for Shown {
            text: said, tone, ..
        } in row
        {
            let said = plain(said);
            let said = if *tone == "broken" {
                format!("**{said}**")
            } else {
                said
            };
            let _ = write!(text, " {said} |");
        }
        *text += "\n";
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::Absent;
    use super::super::testing::table;
    use super::*;

    #[test]
    fn the_file_says_when_by_what_and_what_came_of_it() {
        let mut table = table();
        table.put_into_words();
        table.words = vec!["One.".into(), "Two.".into()];
        table.absent = vec![Absent {
            design: "field".into(),
            why: "run `pincushion image kernel build --design field`".into(),
        }];
        let text = markdown(&table);
        for part in [
            "Made on 2026-01-02 by commit `abc`:\n\n```text\npincushion test designs\n```",
            "`field` did not run: run `pincushion image kernel build --design field`.",
            "| bias+none | **broken 1 of 1** |",
            "## What it costs",
            "| bias+bounce | 2.00 (2.00 to 2.00), quickest 2.00 |",
            "## How rows differ\n\nMade of the cells.\n\n- O1 is kept",
            "\n## In plain words\n\nOne.\n\nTwo.\n",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
        for line in text.lines().filter(|line| line.starts_with('|')) {
            assert!(line.ends_with('|'), "{line}");
        }
    }
}
