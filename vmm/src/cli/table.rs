//! Tables for people.

/// Rows of text under a head, in columns as wide as they need to be.
#[derive(Debug)]
pub(super) struct Table {
    rows: Vec<Vec<String>>,
    /// Columns of numbers, which end at the same place instead of beginning there.
    numbers: Vec<bool>,
}

impl Table {
    /// The head. A name that begins with `#` is of a column of numbers, and is shown without it.
    pub(super) fn new(head: &[&str]) -> Self {
        Self {
            numbers: head.iter().map(|name| name.starts_with('#')).collect(),
            rows: vec![
                head.iter()
                    .map(|name| name.trim_start_matches('#').to_owned())
                    .collect(),
            ],
        }
    }

    /// One more row.
    pub(super) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into());
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.numbers.len()).map(width).collect();
        for row in &self.rows {
            let mut line = String::new();
            for ((cell, width), is_number) in row.iter().zip(&widths).zip(&self.numbers) {
                line += &match is_number {
                    true => format!("{cell:>width$}  "),
                    false => format!("{cell:<width$}  "),
                };
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// A duration as short as it can be said.
pub(super) fn duration_ns(ns: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let value = ns as f64;
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => format!("{:.1} us", value / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} ms", value / 1e6),
        1_000_000_000..120_000_000_000 => format!("{:.1} s", value / 1e9),
        _ => format!("{:.1} min", value / 6e10),
    }
}

/// A number of bytes as short as it can be said.
pub(super) fn bytes(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let value = bytes as f64;
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..0x10_0000 => format!("{:.1} KiB", value / 1024.0),
        0x10_0000..0x4000_0000 => format!("{:.1} MiB", value / 1_048_576.0),
        _ => format!("{:.1} GiB", value / 1_073_741_824.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["NAME", "#COUNT"]);
        table.row(["a".into(), "1234567".into()]);
        table.row(["longer".into(), "8".into()]);
        assert_eq!(
            table.to_string(),
            "NAME      COUNT\na       1234567\nlonger        8\n"
        );
    }

    #[test]
    fn quantities_are_short() {
        let said = [0, 999, 1_500, 2_000_000, 61_000_000_000, 600_000_000_000].map(duration_ns);
        assert_eq!(
            said,
            ["0 ns", "999 ns", "1.5 us", "2.0 ms", "61.0 s", "10.0 min"]
        );
        assert_eq!(
            [512, 4096, 3 << 20].map(bytes),
            ["512 B", "4.0 KiB", "3.0 MiB"]
        );
    }
}
