//! The explain page: one [`Explanation`], or several of one image side by side, with the scripts that show them.
//!
//! Unlike the reports it runs a script, its own, which is all that its content security policy lets it do. They are parts of
//! one function, `radiogradExplain(root, data)`, which needs nothing but `explain.css`, so that other pages can show the same view:
//! `web/build.sh` joins the same parts for the browser lab.

use std::sync::LazyLock;

use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use serde::Serialize;

use super::ReportError;
use super::html::NOTICE;
use crate::explain::Explanation;

/// Style sheet of the view.
pub const STYLE: &str = include_str!("templates/explain/explain.css");
/// Script of the view: its parts in one scope, of which the page sees `radiogradExplain` alone. `web/build.sh` reads this list.
pub const SCRIPT: &str = concat!(
    "globalThis.radiogradExplain = (() => {\n\"use strict\";\n",
    include_str!("templates/explain/numbers.js"),
    include_str!("templates/explain/colours.js"),
    include_str!("templates/explain/parts.js"),
    include_str!("templates/explain/answer.js"),
    include_str!("templates/explain/network.js"),
    include_str!("templates/explain/panels.js"),
    include_str!("templates/explain/sums.js"),
    include_str!("templates/explain/stepping.js"),
    include_str!("templates/explain/story.js"),
    include_str!("templates/explain/view.js"),
    "return radiogradExplain;\n})();\n",
);

/// What the script is given.
#[derive(Serialize)]
#[serde(untagged)]
enum DataView<'a> {
    One(&'a Explanation),
    Several { compare: &'a [Explanation] },
}

#[derive(Serialize)]
struct PageView<'a> {
    title: String,
    notice: &'a str,
    style: &'a str,
    script: &'a str,
    data: String,
}

static ENVIRONMENT: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut env = Environment::new();
    env.set_undefined_behavior(UndefinedBehavior::Strict);
    env.set_auto_escape_callback(|_| AutoEscape::Html);
    let _ = env.add_template("page.html", include_str!("templates/explain/page.html"));
    env
});

/// The explanations as the script takes them: that of one network as it is, several as `{"compare": [...]}`.
///
/// # Errors
/// [`ReportError::Json`] for a fault of the program.
pub fn explain_json(explanations: &[Explanation]) -> Result<String, ReportError> {
    let data = match explanations {
        [one] => DataView::One(one),
        several => DataView::Several { compare: several },
    };
    Ok(serde_json::to_string(&data)?)
}

/// A self-contained page.
///
/// # Errors
/// [`ReportError::Template`] or [`ReportError::Json`] for a fault of the program.
pub fn explain_page(explanations: &[Explanation]) -> Result<String, ReportError> {
    let names: Vec<&str> = explanations.iter().map(|e| e.model.text.as_str()).collect();
    let image = explanations.first().map_or("", |e| e.image.name.as_str());
    let page = PageView {
        title: format!("{} on {image}", names.join(", ")),
        notice: NOTICE,
        style: STYLE,
        script: SCRIPT,
        // Nothing in it can end the element that holds it.
        data: explain_json(explanations)?.replace('<', "\\u003c"),
    };
    Ok(ENVIRONMENT.get_template("page.html")?.render(Serde(&page))?)
}
