//! Names many rows in few words: by design where they share a policy, and by what is not among them where that is less.

use super::{list, short};
use crate::designs::table::Row;

/// "All but" is said of at most so many.
const MOST_EXCEPTIONS: usize = 2;

/// `mapping+bounce`; `mapping and tree with bounce`; `all designs with none, skip and wait; bias and lru with bounce`.
pub(super) fn named(some: &[&Row], all: &[Row]) -> String {
    if let [one] = some {
        return short(one);
    }
    // Each phrase for designs, with the policies that it is so with.
    let mut phrases: Vec<(String, Vec<String>)> = Vec::new();
    for policy in crate::each_once(some.iter().map(|row| &row.policy)) {
        let of = |row: &&Row| row.policy == *policy;
        let designs: Vec<String> = some
            .iter()
            .filter(|row| of(row))
            .map(|row| row.design.clone())
            .collect();
        let others: Vec<String> = all
            .iter()
            .filter(of)
            .map(|row| row.design.clone())
            .filter(|design| !designs.contains(design))
            .collect();
        let phrase = match others.len() {
            0 if designs.len() > 1 => "all designs".to_owned(),
            1..=MOST_EXCEPTIONS if designs.len() > MOST_EXCEPTIONS + 1 => {
                format!("all designs but {}", list(&others))
            }
            _ => list(&designs),
        };
        match phrases.iter_mut().find(|(known, _)| *known == phrase) {
            Some((_, policies)) => policies.push(policy.clone()),
            None => phrases.push((phrase, vec![policy.clone()])),
        }
    }
    let said: Vec<String> = phrases
        .iter()
        .map(|(designs, policies)| format!("{designs} with {}", list(policies)))
        .collect();
    if said.is_empty() {
        list(&said)
    } else {
        said.join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::table::{About, Table};
    use super::super::super::testing::{parts_of, row};
    use super::*;

    #[test]
    fn many_rows_are_named_in_few_words() {
        let designs = ["none", "bias", "mapping", "tree", "lru"];
        let rows: Vec<_> = ["none", "skip", "bounce"]
            .into_iter()
            .flat_map(|policy| designs.map(|design| row(design, policy)))
            .collect();
        let table = Table::of(
            &parts_of(&rows, &[], &[], &[]),
            About::default(),
            Vec::new(),
        );
        let said = |wanted: fn(&Row) -> bool| {
            let some: Vec<&Row> = table.rows.iter().filter(|row| wanted(row)).collect();
            named(&some, &table.rows)
        };
        assert_eq!(said(|_| false), "nothing that ran");
        assert_eq!(said(|row| row.kernel == "design:bias+none"), "bias+none");
        assert_eq!(said(|_| true), "all designs with none, skip and bounce");
        assert_eq!(
            said(|row| row.policy != "bounce" || row.design == "tree"),
            "all designs with none and skip; tree with bounce"
        );
        assert_eq!(
            said(|row| row.policy == "bounce" && row.design != "none"),
            "all designs but none with bounce"
        );
        assert_eq!(
            said(|row| ["tree", "lru"].contains(&row.design.as_str()) && row.policy == "none"),
            "tree and lru with none"
        );
    }
}
