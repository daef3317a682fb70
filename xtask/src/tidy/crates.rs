//! Do the arrows between crates point down, is core alone with serde, and is no banned crate in the lock file?

use std::collections::BTreeSet;

use serde_json::Value;

use super::{File, Findings};
use crate::shell;

/// Our crates, what each may use of ours, and what its tests may use besides.
const ARROWS: [(&str, &[&str], &[&str]); 7] = [
    ("lidless-core", &[], &[]),
    ("lidless-store", &["lidless-core"], &[]),
    ("lidless-drivers", &["lidless-core"], &[]),
    ("lidless-sim", &["lidless-core", "lidless-store"], &[]),
    ("lidless", &["lidless-core", "lidless-store", "lidless-drivers"], &["lidless-sim"]),
    ("lidless-bench", &["lidless", "lidless-core", "lidless-store", "lidless-drivers", "lidless-sim"], &[]),
    ("xtask", &[], &[]),
];

/// All that core may lean on: serde, and what serde's derive is made of at build time.
const CORE_TREE: [&str; 8] =
    ["lidless-core", "proc-macro2", "quote", "serde", "serde_core", "serde_derive", "syn", "unicode-ident"];

/// One TLS stack (rustls on ring), one HTTP client (hyper); deny.toml says the same to cargo-deny.
const BANNED: [&str; 6] = ["aws-lc-rs", "aws-lc-sys", "native-tls", "openssl", "openssl-sys", "reqwest"];

/// Looks at the manifests, the lock file and core's tree.
pub(super) fn check(files: &[File], found: &mut Findings) {
    match manifests() {
        Ok(metadata) => arrows(&metadata, found),
        Err(problem) => found.error("Cargo.toml", 0, problem),
    }
    match core_tree() {
        Ok(tree) => {
            for stranger in tree.iter().filter(|name| !CORE_TREE.contains(&name.as_str())) {
                found.error(
                    "crates/lidless-core/Cargo.toml",
                    0,
                    format!("core has serde and nothing else, not `{stranger}`"),
                );
            }
        }
        Err(problem) => found.error("crates/lidless-core/Cargo.toml", 0, problem),
    }
    if let Some(lock) = files.iter().find(|file| file.path == "Cargo.lock") {
        banned(lock, found);
    }
}

fn manifests() -> Result<Value, String> {
    let text = shell::output("cargo", &["metadata", "--no-deps", "--offline", "--format-version", "1"])?;
    serde_json::from_str(&text).map_err(|err| format!("`cargo metadata` printed no JSON: {err}"))
}

/// The names in core's tree of normal and build dependencies.
fn core_tree() -> Result<BTreeSet<String>, String> {
    let edges =
        ["tree", "--offline", "-p", "lidless-core", "-e", "normal,build", "--prefix", "none", "-f", "{p}"];
    let text = shell::output("cargo", &edges)?;
    Ok(text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect())
}

fn arrows(metadata: &Value, found: &mut Findings) {
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or_default();
        let Some((_, may, tests_may)) = ARROWS.iter().find(|(known, _, _)| *known == name) else {
            found.error(
                "xtask/src/tidy/crates.rs",
                0,
                format!("say in ARROWS which of our crates `{name}` may use"),
            );
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            // Ours are the ones that have a path.
            let (Some(uses), true) = (dependency["name"].as_str(), dependency["path"].is_string()) else {
                continue;
            };
            let in_tests_only = dependency["kind"] == "dev";
            let allowed = may.contains(&uses) || (in_tests_only && tests_may.contains(&uses));
            if !allowed {
                found.error("Cargo.toml", 0, format!("arrows point down: `{name}` must not use `{uses}`"));
            }
        }
    }
}

fn banned(lock: &File, found: &mut Findings) {
    for (at, line) in lock.lines() {
        let name = line.strip_prefix("name = \"").and_then(|rest| rest.strip_suffix('"'));
        if let Some(name) = name.filter(|name| BANNED.contains(name)) {
            found.error(
                &lock.path,
                at,
                format!("`{name}` is banned; `cargo tree -i {name}` says who brings it"),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn errors(name: &str, uses: &str, kind: Option<&str>) -> usize {
        let dependency = json!({ "name": uses, "kind": kind, "path": "/somewhere" });
        let mut found = Findings::default();
        arrows(&json!({ "packages": [{ "name": name, "dependencies": [dependency] }] }), &mut found);
        found.errors.len()
    }

    #[test]
    fn arrows_point_down_only() {
        assert_eq!(errors("lidless", "lidless-core", None), 0);
        assert_eq!(errors("lidless-core", "lidless-store", None), 1);
        assert_eq!(errors("lidless-store", "lidless-drivers", None), 1);
        assert_eq!(errors("lidless", "lidless-sim", None), 1);
        assert_eq!(errors("lidless", "lidless-sim", Some("dev")), 0);
        assert_eq!(errors("lidless-new", "lidless-core", None), 1);
    }

    #[test]
    fn core_depends_on_serde_and_nothing_else() {
        let tree = core_tree().expect("cargo can list the tree it has just built");
        let strangers: Vec<_> = tree.iter().filter(|name| !CORE_TREE.contains(&name.as_str())).collect();
        assert!(strangers.is_empty(), "core's tree has {strangers:?}");
        assert!(tree.contains("serde"));
    }

    #[test]
    fn a_banned_crate_is_found_in_the_lock_file() {
        let text = "[[package]]\nname = \"openssl-sys\"\n[[package]]\nname = \"openssl-probe\"\n";
        let mut found = Findings::default();
        banned(&File { path: "Cargo.lock".to_owned(), text: text.to_owned() }, &mut found);
        assert_eq!(found.errors.len(), 1);
    }
}
