//! The few words of SVG that the pictures need.

use std::fmt::Write as _;

/// A drawing in the making. Coordinates are in units of the view box, which is shown one to one where there is room.
pub(super) struct Svg {
    body: String,
    width: i32,
    height: i32,
}

/// Where a text stands relative to its point.
#[derive(Clone, Copy)]
pub(super) enum Anchor {
    Start,
    Middle,
}

impl Svg {
    pub(super) fn new(width: i32, height: i32) -> Self {
        Self {
            body: String::new(),
            width,
            height,
        }
    }

    pub(super) fn rect(
        &mut self,
        class: &str,
        (x, y): (i32, i32),
        (width, height): (i32, i32),
        title: &str,
    ) {
        let radius = if class.contains("bar") { 5 } else { 3 };
        self.write(format_args!(
            "<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{}\" height=\"{}\" rx=\"{radius}\">",
            width.max(1),
            height.max(1)
        ));
        if !title.is_empty() {
            self.write(format_args!("<title>{}</title>", escaped(title)));
        }
        self.write(format_args!("</rect>"));
    }

    pub(super) fn line(&mut self, class: &str, (x1, y1): (i32, i32), (x2, y2): (i32, i32)) {
        self.write(format_args!(
            "<line class=\"{class}\" x1=\"{x1}\" y1=\"{y1}\" x2=\"{x2}\" y2=\"{y2}\"/>"
        ));
    }

    pub(super) fn circle(&mut self, class: &str, (x, y): (i32, i32), radius: i32) {
        self.write(format_args!(
            "<circle class=\"{class}\" cx=\"{x}\" cy=\"{y}\" r=\"{radius}\"/>"
        ));
    }

    pub(super) fn diamond(&mut self, class: &str, (x, y): (i32, i32), title: &str) {
        self.write(format_args!(
            "<path class=\"{class}\" d=\"M{x} {} l5 5 l-5 5 l-5 -5 z\"><title>{}</title></path>",
            y - 5,
            escaped(title)
        ));
    }

    pub(super) fn text(&mut self, class: &str, (x, y): (i32, i32), anchor: Anchor, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
        };
        self.write(format_args!(
            "<text class=\"{class}\" x=\"{x}\" y=\"{y}\" text-anchor=\"{anchor}\">{}</text>",
            escaped(text)
        ));
    }

    pub(super) fn slanted(&mut self, class: &str, (x, y): (i32, i32), degrees: i32, text: &str) {
        let text = escaped(text);
        self.write(format_args!(
            "<text class=\"{class}\" transform=\"translate({x} {y}) rotate({degrees})\">{text}</text>"
        ));
    }

    /// The whole element; `label` is what a screen reader says.
    pub(super) fn finish(self, class: &str, label: &str) -> String {
        format!(
            "<svg class=\"{class}\" role=\"img\" aria-label=\"{}\" viewBox=\"0 0 {} {}\" style=\"--w:{}px\" \
             xmlns=\"http://www.w3.org/2000/svg\">{}</svg>",
            escaped(label),
            self.width,
            self.height,
            self.width,
            self.body
        )
    }

    fn write(&mut self, text: std::fmt::Arguments<'_>) {
        self.body.write_fmt(text).expect("a string takes all");
    }
}

/// A length or position from a count of columns, rows or characters: pictures are small.
pub(super) fn units(count: usize, each: i32) -> i32 {
    i32::try_from(count)
        .unwrap_or(i32::MAX)
        .saturating_mul(each)
}

/// `text`, cut with an ellipsis to at most `chars` characters.
pub(super) fn cut(text: &str, chars: usize) -> String {
    if text.chars().count() <= chars {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(chars.saturating_sub(1)).collect();
    short.truncate(short.trim_end().len());
    short + "\u{2026}"
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_from_the_guest_cannot_break_the_markup() {
        let mut svg = Svg::new(10, 10);
        svg.text("t", (0, 0), Anchor::Start, "</text><script>");
        assert!(!svg.finish("s", "\"><script>").contains("<script>"));
    }

    #[test]
    fn a_long_text_is_cut_with_an_ellipsis() {
        assert_eq!(cut("write-back", 20), "write-back");
        assert_eq!(cut("write-back", 6), "write\u{2026}");
    }
}
