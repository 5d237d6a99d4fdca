//! Sections about the kernels themselves: what they keep for each page, what their answers were worth, and what they counted.

use super::{Section, Shown, heads, name_of, text, thousands};
use crate::designs::table::{Row, Table};

/// Pages of 4 KiB in a GiB.
const PAGES_PER_GIB: u64 = 1 << 18;

/// sizeof(struct page), and what a GiB of memory takes of it and of page_ext.
pub(super) fn memory(row: &Row) -> [Shown; 2] {
    let size = row
        .tracking
        .as_ref()
        .and_then(|tracking| tracking.struct_page_size);
    let Some(size) = size else {
        return [text(""), text("")];
    };
    let ext = row.memmap.and_then(|memmap| memmap.page_ext_bytes(size));
    let per_gib = |bytes: u64| (bytes * PAGES_PER_GIB) >> 20;
    let all = match ext {
        None => format!("{} MiB and what page_ext takes", per_gib(size)),
        Some(0) => format!("{} MiB", per_gib(size)),
        Some(ext) => format!("{} + {} MiB", per_gib(size), per_gib(ext)),
    };
    [text(format!("{size} bytes")), text(all)]
}

/// Answers to "is this folio pinned?" that were compared with an exact count.
pub(super) fn answers(table: &Table) -> Section {
    let rows = table.rows.iter().filter_map(|row| {
        let told = row.answers?;
        let wrong = |count: u64, tone| Shown {
            tone: if count > 0 { tone } else { "" },
            ..text(thousands(count))
        };
        Some(vec![
            name_of(row),
            text(thousands(told.no)),
            wrong(told.wrong_no, "broken"),
            text(thousands(told.yes)),
            wrong(told.wrong_yes, "inconclusive"),
        ])
    });
    Section {
        title: "What their answers are worth",
        note: "Under random races on xfs, with `pin_check=1`: each answer to \u{201c}is this folio pinned?\u{201d} is compared with an exact \
               count in page_ext. A wrong \u{201c}no\u{201d} loses data. A wrong \u{201c}yes\u{201d} costs a copy or a wait, and is counted \
               high: a pin that comes or goes while it is asked may be among them."
            .into(),
        head: heads(&["design+policy", "no", "wrong", "yes", "wrong, at most"]),
        rows: rows.collect(),
    }
}

/// The counters of kernels, those that are not 0 everywhere.
pub(super) fn counters(table: &Table) -> Section {
    let told = || {
        table
            .rows
            .iter()
            .filter_map(|row| Some((row, row.tracking.as_ref()?)))
    };
    let mut names: Vec<&str> = Vec::new();
    for (name, count) in told().flat_map(|(_, tracking)| &tracking.counters) {
        if *count != 0 && name != "wait_limit_ms" && !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    let mut head = heads(&["design+policy", "carrier"]);
    head.extend(names.iter().map(|name| name.replace('_', " ")));
    let rows = told().map(|(row, tracking)| {
        let mut cells = vec![name_of(row), text(&tracking.carrier)];
        let count = |name: &&str| tracking.counters.get(*name).copied();
        cells.extend(
            names
                .iter()
                .map(|name| text(count(name).map_or(String::new(), |count| count.to_string()))),
        );
        cells
    });
    Section {
        title: "What the kernels told of themselves",
        note: "/sys/kernel/debug/pin_tracking at the end of a scenario that measures; counters that are 0 everywhere are left out.".into(),
        head,
        rows: rows.collect(),
    }
}

#[cfg(test)]
mod tests {
    use crate::designs::Answers;
    use crate::designs::testing::table;

    use super::*;

    #[test]
    fn a_wrong_no_is_broken_and_a_wrong_yes_is_not() {
        let mut table = table();
        table.rows[1].answers = Some(Answers {
            no: 1000,
            wrong_no: 1,
            yes: 50,
            wrong_yes: 2,
        });
        let section = answers(&table);
        let cells = section.rows[0].iter();
        let cells: Vec<_> = cells.map(|cell| (cell.text.as_str(), cell.tone)).collect();
        assert_eq!(section.rows.len(), 1);
        assert_eq!(
            cells,
            [
                ("bias+bounce", ""),
                ("1,000", ""),
                ("1", "broken"),
                ("50", ""),
                ("2", "inconclusive")
            ]
        );
    }
}
