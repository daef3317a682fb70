//! Does a run survive a cut at every point, and would the matrix notice if it did not?

use lidless_sim::matrix::{Extent, Matrix, Mutation, matrix};

fn play(mutation: Mutation) -> Matrix {
    matrix(Extent::Quick, mutation, &|_| {})
}

#[test]
fn a_run_that_is_cut_off_at_any_point_ends_and_does_nothing_twice() {
    let found = play(Mutation::None);
    assert_eq!(found.broken, Vec::<String>::new());
    let end = |name| found.ends.get(name).copied().unwrap_or_default();
    let enough = found.cases > 30_000 && end("done") > 5_000 && end("undone") > 5_000 && found.held > 5_000;
    assert!(enough, "a matrix in which nothing happens proves nothing: {found:?}");
}

#[test]
fn a_step_that_is_declared_repeatable_and_is_not_is_caught_by_the_matrix() {
    let found = play(Mutation::Repeatable);
    assert!(found.broken.iter().any(|what| what.contains("took effect 2 times")), "{found:?}");
}

#[test]
fn a_handle_that_is_durable_too_late_is_caught_by_the_matrix() {
    let found = play(Mutation::HandleLast);
    assert!(found.broken.iter().any(|what| what.contains("has handles")), "{found:?}");
}
