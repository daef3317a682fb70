//! Does the document make sense as a whole? Rules that look at more than one key.

mod calls;
mod dependencies;
mod doubt;
mod order;
mod pipelines;
mod services;
mod triggers;

use super::model::Document;
use super::problem::Problem;

/// Reports every rule that the document breaks.
pub(super) fn check(document: &Document, problems: &mut Vec<Problem>) {
    dependencies::check(document, problems);
    services::check(document, problems);
    pipelines::check(document, problems);
    if document.services.is_empty() && document.pipelines.is_empty() && problems.is_empty() {
        problems.push(
            Problem::warning("config::nothing_watched", "there is no service: nothing is watched")
                .help("add `services:` with a name, and under it `checks:`"),
        );
    }
}
