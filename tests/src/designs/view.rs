//! The page as sections of plain cells, the same for Markdown and HTML.

use serde::Serialize;

mod kernels;

use self::kernels::{answers, counters, memory};
use super::knowledge::{self, Known};
use super::table::{Cell, Cost, PromiseCell, Row, Table, Times};
use super::words::times;
use crate::report::CellState;

/// A table with its heading.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Section {
    pub(super) title: &'static str,
    /// How it is to be read.
    pub(super) note: String,
    pub(super) head: Vec<String>,
    pub(super) rows: Vec<Vec<Shown>>,
}

/// A cell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Shown {
    pub(super) text: String,
    /// `broken`, `kept`, `inconclusive`, or nothing.
    pub(super) tone: &'static str,
    /// More, for who points at it.
    pub(super) title: String,
}

fn text(text: impl Into<String>) -> Shown {
    Shown {
        text: text.into(),
        tone: "",
        title: String::new(),
    }
}

/// All sections that have something to say.
pub(super) fn sections(table: &Table) -> Vec<Section> {
    let all = [
        promises(table),
        scenarios(table),
        answers(table),
        facts(table),
        infeasible(),
        costs(table),
        counters(table),
    ];
    let is_full = |section: &Section| section.head.len() > 1 && !section.rows.is_empty();
    all.into_iter().filter(is_full).collect()
}

fn heads(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn promises(table: &Table) -> Section {
    let rows = table.rows.iter().map(|row| {
        let mut cells = vec![name_of(row)];
        cells.extend(row.promises.iter().map(promise));
        cells.push(match row.looked_pinned {
            None => text(""),
            Some(true) => text("stays in memory"),
            Some(false) => Shown {
                tone: "kept",
                ..text("swapped out")
            },
        });
        cells.push(text(match row.most_pins {
            None => String::new(),
            Some(most) if most.then_refused => format!("{}, then refused", thousands(most.reached)),
            Some(most) => format!("more than {}", thousands(most.reached)),
        }));
        cells.extend(memory(row));
        cells
    });
    Section {
        title: "What is kept",
        note: "Over all scenarios that ran: \u{201c}kept 5\u{201d}, five put the promise to the test and it held; \u{201c}broken 2 of 7\u{201d}, \
               two of seven broke it; \u{201c}unclear\u{201d}, as many could say nothing. Empty: not run, or not tested. The size of struct page is \
               the booted kernel's; memory is that of struct page and, behind the \u{201c}+\u{201d}, of page_ext, as /proc/vmstat counts them there."
            .into(),
        head: heads(&[
            "design+policy",
            "O1",
            "O2",
            "O3",
            "a page with 1,100 sharers",
            "pins of one page",
            "struct page",
            "memory per GiB",
        ]),
        rows: rows.collect(),
    }
}

fn name_of(row: &Row) -> Shown {
    let name = row.kernel.strip_prefix("design:").unwrap_or(&row.kernel);
    match &row.odd {
        None => Shown {
            title: row.release.clone(),
            ..text(name)
        },
        Some(odd) => Shown {
            text: format!("{name} ({odd})"),
            tone: "broken",
            title: row.release.clone(),
        },
    }
}

fn promise(cell: &PromiseCell) -> Shown {
    let (broken, kept, unclear) = (cell.broken.len(), cell.kept.len(), cell.unclear.len());
    let mut said = match (broken, kept) {
        (0, 0) => String::new(),
        (0, kept) => format!("kept {kept}"),
        (broken, kept) => format!("broken {broken} of {}", broken + kept + unclear),
    };
    if unclear > 0 {
        said += if said.is_empty() { "" } else { ", " };
        said += &format!("unclear {unclear}");
    }
    Shown {
        text: said,
        tone: match (broken, unclear, kept) {
            (1.., _, _) => "broken",
            (_, 1.., _) => "inconclusive",
            (_, _, 1..) => "kept",
            (0, 0, 0) => "",
        },
        title: [&cell.broken[..], &cell.unclear[..]].concat().join(", "),
    }
}

fn scenarios(table: &Table) -> Section {
    let mut head = heads(&["design+policy"]);
    head.extend(table.scenarios.iter().map(|column| {
        let number = column.number.as_deref().unwrap_or_default();
        let with_number = format!("{number} {}", column.scenario);
        with_number.trim().to_owned()
    }));
    let rows = table.rows.iter().map(|row| {
        let cells = row.scenarios.iter().map(scenario);
        std::iter::once(name_of(row)).chain(cells).collect()
    });
    Section {
        title: "Scenario by scenario",
        note: "The worst that a scenario says of any promise. In brackets: it asks for the tracking alone, and ran with another policy of the \
               design. \u{201c}!\u{201d}: not what the scenario expects of that kernel. Empty: not run there."
            .into(),
        head,
        rows: rows.collect(),
    }
}

fn scenario(cell: &Option<Cell>) -> Shown {
    let Some(cell) = cell else { return text("") };
    let mut said = cell.state.word().to_owned();
    if !cell.broken.is_empty() {
        said = format!("broken {}", cell.broken.join(" "));
    }
    if !cell.as_expected {
        said += " !";
    }
    if cell.seen_with.is_some() {
        said = format!("({said})");
    }
    Shown {
        text: said,
        tone: match cell.state {
            CellState::Broken => "broken",
            CellState::Kept | CellState::Ok => "kept",
            CellState::Inconclusive => "inconclusive",
            CellState::NotApplicable | CellState::NotTested => "",
        },
        title: cell.why.clone(),
    }
}

fn facts(table: &Table) -> Section {
    let mut designs: Vec<&str> = table.rows.iter().map(|row| row.design.as_str()).collect();
    designs.extend(table.absent.iter().map(|absent| absent.design.as_str()));
    designs.dedup();
    let rows = designs.into_iter().map(|design| {
        let mut cells = vec![text(design)];
        let Some(facts) = knowledge::of(design) else {
            cells.extend(std::iter::repeat_n(text("?"), 6));
            return cells;
        };
        let all = [
            facts.folio,
            facts.file,
            facts.who,
            facts.most_pins,
            facts.gup_fast,
            facts.atomics,
        ];
        cells.extend(all.map(|Known { says, source }| Shown {
            title: source,
            ..text(says)
        }));
        cells
    });
    Section {
        title: "What is known without running",
        note: "From tests/src/designs/knowledge.toml, where each has its source. \u{201c}?\u{201d}: nothing is written down there. Atomics: \
               for a pin \
               and an unpin of a small page, beside a counter per CPU."
            .into(),
        head: heads(&[
            "design",
            "is this folio pinned?",
            "is any page of this file pinned?",
            "who pinned it?",
            "most pins of a small page",
            "GUP-fast",
            "atomics, pin + unpin",
        ]),
        rows: rows.collect(),
    }
}

/// In red, whatever ran.
fn infeasible() -> Section {
    let rows = knowledge::infeasible().into_iter().map(|design| {
        let fails = design
            .fails
            .iter()
            .map(|known| format!("{}: {}", known.source, known.says));
        let broken = Shown {
            tone: "broken",
            ..text(fails.collect::<Vec<_>>().join("; "))
        };
        vec![
            text(design.name),
            text(design.is),
            broken,
            text(design.takes),
        ]
    });
    Section {
        title: "Designs without a kernel",
        note: "From tests/src/designs/knowledge.toml: read off Linux 6.12.117, with the code in docs/designs.md.".into(),
        head: heads(&["design", "what it is", "where it fails", "what it would take"]),
        rows: rows.collect(),
    }
}

fn costs(table: &Table) -> Section {
    let mut head = heads(&["design+policy"]);
    head.extend(table.costs.iter().cloned());
    let mut rows: Vec<Vec<Shown>> = Vec::new();
    let base = &table.baseline_costs;
    for row in table
        .rows
        .iter()
        .filter(|row| row.costs.iter().any(Option::is_some))
    {
        let cells = row
            .costs
            .iter()
            .enumerate()
            .map(|(index, cell)| cost(cell.as_ref(), base[index].as_ref()));
        rows.push(std::iter::once(name_of(row)).chain(cells).collect());
    }
    if base.iter().any(Option::is_some) {
        let time =
            |cell: &Option<Cost>| text(cell.as_ref().map_or(String::new(), |cell| clock(cell.ns)));
        let name = table.baseline.strip_prefix("design:");
        let name = name.unwrap_or(&table.baseline);
        let first = text(format!("{name}, by the guest's clock"));
        rows.push(
            std::iter::once(first)
                .chain(base.iter().map(time))
                .collect(),
        );
    }
    let mut note = format!(
        "Times what `{}` takes in the same boot set: the median of all rounds, in brackets the two quarters \
         around it, and the quickest round to the quickest. Where all runs told how quick the machine was around each round, a round is taken in \
         units of that. The pins are those of the kernel's gup_test: all of 2 MiB are \
         pinned, so many pages a call, and unpinned by one call; a \
         page's share of both is shown.",
        table.baseline
    );
    note += match table.about.times {
        Times::Hardware => "",
        Times::Instructions => {
            " The guests ran in a nested machine that is emulated (QEMU TCG), whose clock counts instructions: a nanosecond is one that was \
             executed, by the guest, by Pincushion or by the nested kernel between them, and what else the host did is not in it. So these are \
             ratios of instructions; caches, contended lines and the true price of an exit are not in them. `--place host` on a machine with \
             usable KVM gives nanoseconds of hardware."
        }
        Times::Emulated => {
            " The guests ran in a nested machine whose processor is emulated (QEMU TCG): an emulated processor takes about as long for any \
             instruction and knows no cache lines, so these are ratios of instructions, more or less, and of emulated device accesses; they are \
             not nanoseconds of hardware, and an atomic on a contended line costs here what any other costs. \
             What else this host ran meanwhile is in the times. `--place host` on a machine with \
             usable KVM gives real ones."
        }
    };
    Section {
        title: "What it costs",
        note,
        head,
        rows,
    }
}

fn cost(cell: Option<&Cost>, base: Option<&Cost>) -> Shown {
    let Some(cell) = cell else { return text("") };
    let Some(ratio) = cell.ratio else {
        return Shown {
            title: "the baseline was not measured".into(),
            ..text(clock(cell.ns))
        };
    };
    let base = base.and_then(|base| base.ratio);
    let is_dear = base.is_some_and(|base| ratio.is_surely_above(&base));
    Shown {
        text: times(&ratio),
        tone: if is_dear { "inconclusive" } else { "" },
        title: format!(
            "{} in {} rounds of {} boots",
            clock(cell.ns),
            cell.rounds,
            cell.boots
        ),
    }
}

/// `2,097,152`.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut said = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            said.push(',');
        }
        said.push(digit);
    }
    said
}

/// `410 ns`, `12.3 us`, `600 ms`.
fn clock(ns: f64) -> String {
    match ns {
        ns if ns < 1e3 => format!("{ns:.0} ns"),
        ns if ns < 1e6 => format!("{:.1} us", ns / 1e3),
        ns => format!("{:.1} ms", ns / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::super::measured::MostPins;
    use super::super::testing::table;
    use super::super::told::{Memmap, Tracking};
    use super::*;

    fn texts(section: &Section, row: usize) -> Vec<&str> {
        section.rows[row]
            .iter()
            .map(|cell| cell.text.as_str())
            .collect()
    }

    #[test]
    fn a_row_shows_promises_memory_and_limits_of_its_own_kernel() {
        let mut table = table();
        table.rows[1].tracking = Some(Tracking::parse(
            "design bias\npolicy bounce\nstruct_page_size 80\n",
        ));
        table.rows[1].memmap = Some(Memmap {
            boot_pages: 2560,
            later_pages: 256,
        });
        table.rows[1].looked_pinned = Some(true);
        table.rows[1].most_pins = Some(MostPins {
            reached: 2_097_152,
            then_refused: true,
        });
        let section = promises(&table);
        assert_eq!(
            texts(&section, 1),
            [
                "bias+bounce",
                "kept 1",
                "",
                "",
                "stays in memory",
                "2,097,152, then refused",
                "80 bytes",
                "20 + 2 MiB"
            ]
        );
        assert_eq!(texts(&section, 0)[1], "broken 1 of 1");
        assert_eq!(section.rows[0][1].tone, "broken");
    }

    #[test]
    fn a_cost_shows_its_ratio_and_stands_out_where_it_is_surely_dear() {
        let section = costs(&table());
        assert_eq!(
            texts(&section, 0),
            ["bias+none", "1.00 (1.00 to 1.00), quickest 1.00"]
        );
        assert_eq!(
            texts(&section, 1),
            ["bias+bounce", "2.00 (2.00 to 2.00), quickest 2.00"]
        );
        assert_eq!(
            texts(&section, 2),
            ["bias+none, by the guest's clock", "10 ns"]
        );
        assert_eq!(
            (section.rows[0][1].tone, section.rows[1][1].tone),
            ("", "inconclusive")
        );
        assert!(section.note.contains("emulated") && section.note.contains("--place host"));
        let mut other = table();
        other.about.times = Times::Hardware;
        assert!(!costs(&other).note.contains("emulated"));
        other.about.times = Times::Instructions;
        let note = costs(&other).note;
        assert!(note.contains("counts instructions") && !note.contains("is in the times"));
    }

    #[test]
    fn a_design_of_which_nothing_is_known_has_question_marks() {
        let mut table = table();
        table.rows[1].design = "new".into();
        let section = facts(&table);
        assert!(texts(&section, 1)[1..].iter().all(|text| *text == "?"));
        assert_eq!(section.rows[0].len(), section.head.len());
        assert_eq!(section.rows[1].len(), section.head.len());
    }

    #[test]
    fn numbers_are_for_people() {
        assert_eq!(thousands(1100), "1,100");
        assert_eq!(thousands(2_097_152), "2,097,152");
        assert_eq!(thousands(7), "7");
        assert_eq!(
            [clock(412.4), clock(36_100.0), clock(6e8)],
            ["412 ns", "36.1 us", "600.0 ms"]
        );
    }
}
