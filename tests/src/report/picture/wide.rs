//! A scene from left to right: one row per lane, one column per event.

use super::lanes::{Bar, BarKind, Lane, LaneKind};
use super::scene::Scene;
use super::svg::{Anchor, Svg, cut, units};

const GUTTER: i32 = 150;
const COLUMN: i32 = 48;
const LANE: i32 = 46;
const BAR: i32 = 26;
const HEAD: i32 = 128;
const FOOT: i32 = 84;
/// Width of a character of the label font, rounded up.
const CHARACTER: i32 = 7;

/// The drawing.
pub(in crate::report) fn wide(scene: &Scene, label: &str) -> String {
    let columns = scene.columns.len().max(2);
    let width = GUTTER + units(columns, COLUMN) + 90;
    let lanes_end = HEAD + units(scene.lanes.len(), LANE);
    let mut svg = Svg::new(width, lanes_end + FOOT);
    let right = x(columns - 1) + COLUMN / 2;
    for (row, _) in scene
        .lanes
        .iter()
        .enumerate()
        .filter(|(row, _)| row % 2 == 0)
    {
        svg.rect("stripe", (0, HEAD + units(row, LANE)), (right, LANE), "");
    }
    if let Some((from, to)) = scene.band {
        let (left, wide) = (x(from), x(to).max(x(from) + COLUMN / 2) - x(from));
        svg.rect(
            "band",
            (left, HEAD - 4),
            (wide, lanes_end - HEAD + 24),
            "two devices own the page at once",
        );
        let at = (left + wide / 2).clamp(GUTTER + 80, right - 80);
        svg.text(
            "band-label",
            (at, lanes_end + 15),
            Anchor::Middle,
            "both own the page",
        );
    }
    for (number, column) in scene.columns.iter().enumerate() {
        svg.line("tick", (x(number), HEAD - 6), (x(number), lanes_end));
        svg.slanted(
            "when-what",
            (x(number) + 2, HEAD - 12),
            -38,
            &cut(&column.label, 26),
        );
        svg.slanted(
            "when",
            (x(number) - 2, lanes_end + 32),
            38,
            &scene.when(number),
        );
    }
    for (row, lane) in scene.lanes.iter().enumerate() {
        let top = HEAD + units(row, LANE);
        svg.text("lane-name", (4, top + 20), Anchor::Start, &lane.name);
        svg.text(
            "lane-detail",
            (4, top + 36),
            Anchor::Start,
            &cut(&lane.detail, 22),
        );
        draw(&mut svg, lane, top + (LANE - BAR) / 2, right);
    }
    svg.finish("picture wide", label)
}

fn x(column: usize) -> i32 {
    GUTTER + COLUMN / 2 + units(column, COLUMN)
}

fn draw(svg: &mut Svg, lane: &Lane, top: i32, right: i32) {
    for bar in &lane.bars {
        let (left, end) = (x(bar.from), bar.to.map_or(right, x));
        let class = format!("bar {} {}", class_of(lane.kind), kind_of(bar.kind));
        let inset = if bar.kind == BarKind::Held || bar.kind == BarKind::Step {
            0
        } else {
            4
        };
        let size = ((end - left).max(COLUMN / 4), BAR - 2 * inset);
        svg.rect(&class, (left, top + inset), size, &bar.title);
        if let Some((label, at)) = label(bar, lane, left, size.0) {
            let class = if bar.kind == BarKind::Touch {
                "bar-label on-solid"
            } else {
                "bar-label"
            };
            svg.text(class, (at, top + BAR / 2 + 4), Anchor::Middle, &label);
        }
    }
    for (index, mark) in lane.marks.iter().enumerate() {
        // Several hashes may be of one column: side by side.
        let same = lane.marks[..index]
            .iter()
            .filter(|other| other.column == mark.column)
            .count();
        let class = if mark.changed { "mark changed" } else { "mark" };
        svg.diamond(
            class,
            (
                x(mark.column) + units(same, 13) + beside(lane, mark.column, 9, 22),
                top - 3,
            ),
            &mark.title,
        );
    }
}

/// Where marks of a column stand: after it, but before the end of the hold, so that they lie over its bar.
pub(super) fn beside(lane: &Lane, column: usize, after: i32, before: i32) -> i32 {
    let at_the_end = lane
        .bars
        .iter()
        .any(|bar| bar.kind == BarKind::Held && bar.to == Some(column));
    if at_the_end { -before } else { after }
}

/// The bar's own words where they fit. A hold is labelled only where nothing else lies on it.
fn label(bar: &Bar, lane: &Lane, left: i32, width: i32) -> Option<(String, i32)> {
    if bar.kind == BarKind::Held && lane.bars.iter().any(|other| other.kind != BarKind::Held) {
        return None;
    }
    let room = usize::try_from((width - 8) / CHARACTER)
        .ok()
        .filter(|room| *room >= 4)?;
    // A word that is cut to a stump tells nothing; the pointer and the axis tell it.
    let readable = room >= bar.label.chars().count().min(12);
    readable.then(|| (cut(&bar.label, room), left + width / 2))
}

pub(super) fn class_of(kind: LaneKind) -> &'static str {
    match kind {
        LaneKind::FromDevice => "from-device",
        LaneKind::ToDevice => "to-device",
        LaneKind::Guest => "guest",
    }
}

pub(super) fn kind_of(kind: BarKind) -> &'static str {
    match kind {
        BarKind::Held => "held",
        BarKind::Parked => "parked",
        BarKind::Touch => "touch",
        BarKind::Step => "step",
    }
}
