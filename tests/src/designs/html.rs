//! The page for a browser: one file, nothing from the network.

use minijinja::value::{Serde, Value};
use minijinja::{AutoEscape, Environment, context};

use super::table::Table;
use super::view::sections;

/// The whole page.
#[must_use]
pub fn html(table: &Table) -> String {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment
        .add_template("page", include_str!("page.html.jinja"))
        .expect("the template is part of the program and tested");
    let values = context! {
        style => include_str!("../report/html/page.css"),
        about => Value::from(Serde(&table.about)),
        absent => Value::from(Serde(&table.absent)),
        sections => Value::from(Serde(sections(table))),
        words => Value::from(Serde(&table.words)),
        differences => Value::from(Serde(&table.differences)),
    };
    let template = environment
        .get_template("page")
        .expect("the template was just added");
    template
        .render(values)
        .expect("the template names what the values have; tested")
}

#[cfg(test)]
mod tests {
    use super::super::testing::table;
    use super::*;

    #[test]
    fn the_page_has_every_cell_needs_no_network_and_takes_text_for_text() {
        let mut table = table();
        table.words = vec!["<b> & more".into()];
        table.differences = vec!["it differs".into()];
        table.rows[0].scenarios[0].as_mut().unwrap().why = "a \"why\"".into();
        let page = html(&table);
        for part in [
            "broken 1 of 1",
            "class=\"state kept\"",
            "2.00 (2.00 to 2.00)",
            "&lt;b&gt; &amp; more",
            "<li>it differs</li>",
            "Made on 2026-01-02",
        ] {
            assert!(page.contains(part), "{part:?} is not in\n{page}");
        }
        for outside in ["http://", "https://", "src=", "@import"] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert!(!page.contains("a \"why\""), "a title is escaped");
    }
}
