//! An interleaving as a table that a person reads: a column for each actor, a row for each step, the page beside it.

use crate::explore::Found;
use crate::scene::Scene;

/// Widest a line may be.
const WIDTH: usize = 148;
/// Widest an actor's column may be.
const ACTOR_WIDTH: usize = 40;

/// Writes the table, and what broke below it.
#[must_use]
pub fn table(scene: &Scene, found: &Found) -> String {
    let mut lines: Vec<Vec<String>> = vec![heads(scene)];
    lines.extend(found.rows.iter().enumerate().map(|(index, row)| {
        let mut cells = vec![(index + 1).to_string()];
        cells.extend((0..scene.actors.len()).map(|actor| {
            if actor == row.actor {
                row.what.clone()
            } else {
                String::new()
            }
        }));
        cells.push(row.page.refs.to_string());
        cells.push(row.page.mapcount.to_string());
        cells.push(row.own.clone());
        cells.push(row.page.flags());
        cells.push(row.page.contents());
        cells.push(
            row.held_by
                .iter()
                .map(|actor| scene.actors[*actor].name)
                .collect::<Vec<_>>()
                .join(" + "),
        );
        cells
    }));
    let widths = widths(&lines, scene.actors.len());
    let mut text = String::new();
    for (index, cells) in lines.iter().enumerate() {
        text.push_str(&format_row(cells, &widths));
        if index == 0 {
            let rule: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
            text.push_str(&format!("{}\n", rule.join("-+-")));
        }
    }
    text.push_str(&format!(
        "=> {}: {}\n",
        found.violation.invariant, found.violation.how
    ));
    text
}

fn heads(scene: &Scene) -> Vec<String> {
    let mut heads = vec!["#".to_owned()];
    heads.extend(scene.actors.iter().map(|actor| actor.name.to_owned()));
    heads.extend(
        [
            "refs",
            "map",
            "count",
            "pte, flags",
            "page>media",
            "held by",
        ]
        .map(str::to_owned),
    );
    heads
}

/// As wide as the widest cell, but actors share what the page leaves.
fn widths(lines: &[Vec<String>], actors: usize) -> Vec<usize> {
    let columns = lines[0].len();
    let mut widths: Vec<usize> = (0..columns)
        .map(|column| {
            lines
                .iter()
                .map(|cells| cells[column].chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let of_page: usize = widths[..1].iter().chain(&widths[1 + actors..]).sum();
    let left = WIDTH.saturating_sub(of_page + 3 * (columns - 1)) / actors.max(1);
    for width in &mut widths[1..=actors] {
        *width = (*width).min(left.clamp(16, ACTOR_WIDTH));
    }
    widths
}

fn format_row(cells: &[String], widths: &[usize]) -> String {
    let wrapped: Vec<Vec<String>> = cells
        .iter()
        .zip(widths)
        .map(|(cell, width)| wrap(cell, *width))
        .collect();
    let height = wrapped.iter().map(Vec::len).max().unwrap_or(1);
    let mut text = String::new();
    for line in 0..height {
        let parts: Vec<String> = wrapped
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{:<width$}", cell.get(line).map_or("", String::as_str)))
            .collect();
        text.push_str(parts.join(" | ").trim_end());
        text.push('\n');
    }
    text
}

/// Breaks at spaces; a word that is too long stands alone.
fn wrap(cell: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = vec![String::new()];
    for word in cell.split(' ') {
        let line = lines.last_mut().expect("there is always one");
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_step_is_broken_at_spaces() {
        assert_eq!(wrap("lock folio again", 10), ["lock folio", "again"]);
        assert_eq!(wrap("", 10), [""]);
    }
}
