//! A scene from top to bottom: one column per lane, one row per event with its words beside it, as logs of revisions are drawn.

use super::lanes::{BarKind, Lane};
use super::scene::Scene;
use super::svg::{Anchor, Svg, cut, units};
use super::wide::{beside, class_of, kind_of};

const WIDTH: i32 = 336;
const LANE: i32 = 26;
const BAR: i32 = 16;
const ROW: i32 = 38;
const HEAD: i32 = 84;
/// Width of a character of the row font, rounded up.
const CHARACTER: i32 = 7;

/// The drawing.
pub(in crate::report) fn tall(scene: &Scene, label: &str) -> String {
    let rows = scene.columns.len().max(2);
    let height = HEAD + units(rows, ROW) + 4;
    let words_at = units(scene.lanes.len(), LANE) + 16;
    let mut svg = Svg::new(WIDTH, height);
    if let Some((from, to)) = scene.band {
        let (top, end) = (y(from) - 14, y(to).max(y(from) + ROW / 2) + 20);
        svg.rect(
            "band",
            (0, top),
            (WIDTH, end - top),
            "two devices own the page at once",
        );
        svg.slanted(
            "band-label",
            (WIDTH - 14, top + 6),
            90,
            if end - top > 120 {
                "both own the page"
            } else {
                "both"
            },
        );
    }
    for (number, lane) in scene.lanes.iter().enumerate() {
        svg.slanted(
            "lane-name",
            (x(number) - 2, HEAD - 8),
            -50,
            &cut(&lane.name, 12),
        );
        draw(&mut svg, lane, number, y(rows - 1) + ROW / 2);
    }
    for (number, column) in scene.columns.iter().enumerate() {
        let room = usize::try_from((WIDTH - words_at - 20) / CHARACTER).unwrap_or(0);
        if let Some(lane) = column.lane {
            svg.line("lead", (x(lane), y(number)), (words_at - 6, y(number)));
            svg.circle(
                &format!("dot {}", class_of(scene.lanes[lane].kind)),
                (x(lane), y(number)),
                4,
            );
        }
        svg.text(
            "row-what",
            (words_at, y(number) + 1),
            Anchor::Start,
            &cut(&column.label, room),
        );
        svg.text(
            "row-when",
            (words_at, y(number) + 15),
            Anchor::Start,
            &scene.when(number),
        );
    }
    svg.finish("picture tall", label)
}

fn x(lane: usize) -> i32 {
    14 + units(lane, LANE)
}

fn y(row: usize) -> i32 {
    HEAD + 12 + units(row, ROW)
}

fn draw(svg: &mut Svg, lane: &Lane, number: usize, bottom: i32) {
    for bar in &lane.bars {
        let (top, end) = (y(bar.from), bar.to.map_or(bottom, y));
        let class = format!("bar {} {}", class_of(lane.kind), kind_of(bar.kind));
        let inset = if bar.kind == BarKind::Held || bar.kind == BarKind::Step {
            0
        } else {
            3
        };
        let (left, wide) = (x(number) - BAR / 2 + inset, BAR - 2 * inset);
        svg.rect(
            &class,
            (left, top),
            (wide, (end - top).max(ROW / 4)),
            &bar.title,
        );
    }
    for (index, mark) in lane.marks.iter().enumerate() {
        let same = lane.marks[..index]
            .iter()
            .filter(|other| other.column == mark.column)
            .count();
        let class = if mark.changed { "mark changed" } else { "mark" };
        svg.diamond(
            class,
            (
                x(number),
                y(mark.column) + units(same, 12) + beside(lane, mark.column, 13, 24),
            ),
            &mark.title,
        );
    }
}
