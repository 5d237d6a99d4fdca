//! The report card as the template shows it.

use serde::Serialize;

use crate::report::RunSummary;
use crate::report::card::{Card, CellState, cell_text};

#[derive(Serialize)]
pub(super) struct CardView {
    kernels: Vec<String>,
    groups: Vec<GroupView>,
}

#[derive(Serialize)]
struct GroupView {
    name: &'static str,
    what: &'static str,
    rows: Vec<RowView>,
}

#[derive(Serialize)]
struct RowView {
    scenario: String,
    number: Option<String>,
    file_systems: String,
    cells: Vec<Option<CellView>>,
}

#[derive(Serialize)]
struct CellView {
    state: CellState,
    text: String,
    why: String,
    /// Of the article that tells of the run.
    anchor: String,
}

impl CardView {
    /// `order` says which run each article of the page is about. `None`: the list of runs says it all.
    pub(super) fn of(runs: &[RunSummary], order: &[usize]) -> Option<Self> {
        let card = Card::of(runs);
        let says_more = card.says_more_than(runs);
        let anchor = |run: usize| {
            let place = order.iter().position(|shown| *shown == run);
            format!("run-{}", place.map_or(0, |place| place + 1))
        };
        let groups = card.groups.into_iter().map(|group| GroupView {
            name: group.name,
            what: group.what,
            rows: group
                .rows
                .into_iter()
                .map(|row| RowView {
                    scenario: row.scenario,
                    number: row.number,
                    file_systems: row.file_systems,
                    cells: row
                        .cells
                        .into_iter()
                        .map(|cell| {
                            cell.map(|cell| CellView {
                                state: cell.state,
                                text: cell_text(&cell),
                                anchor: anchor(cell.run),
                                why: cell.why,
                            })
                        })
                        .collect(),
                })
                .collect(),
        });
        says_more.then(|| Self {
            groups: groups.collect(),
            kernels: card.kernels,
        })
    }
}
