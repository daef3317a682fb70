//! Which files make the configuration, and how do they become one? Reading, `include`, merging.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::model::{Document, Named};
use super::node::{Place, Sp};
use super::problem::{Problem, Problems, Severity, Source};
use super::resolve::{self, Secrets};
use super::settings::Resolved;
use super::{read, validate, yaml};

/// Far more than 10,000 services need.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// A configuration that may be used.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration, every default filled in.
    pub resolved: Resolved,
    /// What is probably not meant so.
    pub warnings: Problems,
    /// Every file that was read, to be watched for changes.
    pub files: Vec<PathBuf>,
}

/// Loads files, each with what it includes, for running.
pub fn load(paths: &[PathBuf]) -> Result<Loaded, Problems> {
    load_with(paths, Secrets::Needed)
}

/// Loads files; `secrets` says whether a missing secret is an error.
pub fn load_with(paths: &[PathBuf], secrets: Secrets) -> Result<Loaded, Problems> {
    let mut loader = Loader::default();
    for path in paths {
        loader.file(path, None);
    }
    loader.finish(secrets)
}

/// Loads a text as if it were the file `name`: paths go from that name's directory, and `include` works.
pub fn from_str(name: &str, text: &str) -> Result<Loaded, Problems> {
    let mut loader = Loader::default();
    loader.text(Path::new(name), text.to_owned(), None);
    loader.finish(Secrets::Needed)
}

#[derive(Default)]
struct Loader {
    sources: Vec<Source>,
    dirs: Vec<PathBuf>,
    files: Vec<PathBuf>,
    problems: Vec<Problem>,
    document: Document,
    /// Where each name was given first.
    services: HashMap<String, Place>,
    notifiers: HashMap<String, Place>,
    plugins: HashMap<String, Place>,
    pipelines: HashMap<String, Place>,
}

impl Loader {
    /// Reads a file; `included` is where another file names it.
    fn file(&mut self, path: &Path, included: Option<Place>) {
        match read_text(path) {
            Ok(text) => {
                let canonical = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
                // The same file by two patterns is one file.
                if !self.files.contains(&canonical) {
                    self.files.push(canonical);
                    self.text(path, text, included);
                }
            }
            Err(Unread::NotUtf8 { text, at }) => {
                let place = Place::new(self.add_source(path, text), at, at);
                self.problems.push(
                    Problem::error("config::not_utf8", "the file is not UTF-8 text")
                        .at(place, "the first byte that is not")
                        .help("save it as UTF-8"),
                );
            }
            Err(Unread::Other(mut problem)) => {
                if let Some(place) = included {
                    problem = problem.at(place, "included here");
                }
                self.problems.push(problem);
            }
        }
    }

    fn add_source(&mut self, path: &Path, text: String) -> u32 {
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        self.dirs.push(absolute.parent().unwrap_or(Path::new("/")).to_owned());
        self.sources.push(Source { name: path.to_string_lossy().into_owned(), text: text.into() });
        u32::try_from(self.sources.len() - 1).unwrap_or(u32::MAX)
    }

    fn text(&mut self, path: &Path, text: String, included: Option<Place>) {
        let file = self.add_source(path, text);
        let text = Arc::clone(&self.sources[file as usize].text);
        let known = self.problems.len();
        let root = yaml::parse(file, &text, &mut self.problems);
        let Some(root) = root.filter(|root| root.value != super::node::Value::Null) else {
            if self.problems.len() == known {
                let start = Place::new(file, 0, 0);
                self.problems.push(
                    Problem::error("config::empty", "the file says nothing")
                        .at(start, "empty, or only comments")
                        .help("begin with `version: 1`, then `services:`"),
                );
            }
            return;
        };
        let document = read::document(&root, &text, &mut self.problems);
        if included.is_none() && document.version.is_none() && !has_key(&root, "version") {
            self.problems.push(
                Problem::error("config::missing_key", "the file has no `version`")
                    .at(Place { end: root.at.start, ..root.at }, "needs `version`")
                    .help("add `version: 1` as the first line"),
            );
        }
        let include = document.include.clone();
        self.merge(document);
        for pattern in include {
            match included {
                None => self.include(&pattern),
                // One level: whoever reads the main file knows all files.
                Some(place) => self.problems.push(
                    Problem::error("config::nested_include", "an included file includes another")
                        .at(pattern.at, "only the main file may")
                        .at(place, "this file is included here")
                        .help("move this into the main file's `include`"),
                ),
            }
        }
    }

    fn include(&mut self, pattern: &Sp<String>) {
        let path = self.dirs[pattern.at.file as usize].join(&pattern.value);
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let dir = path.parent().unwrap_or(Path::new("/")).to_owned();
        if dir.to_string_lossy().contains(['*', '?', '['])
            || name.contains(['[', '{'])
            || name.is_empty()
            || name == ".."
        {
            self.problems.push(
                Problem::error(
                    "config::bad_value",
                    format!("`{}` is not a pattern that lidless knows", pattern.value),
                )
                .at(pattern.at, "only `*` and `?` in the last part")
                .help("write `DIR/*.yaml`, one entry for each directory"),
            );
            return;
        }
        // The name as the user would write it from where they are, not the resolved one.
        let shown_dir = Path::new(&self.sources[pattern.at.file as usize].name)
            .parent()
            .map(|here| here.join(&pattern.value));
        let shown_dir = shown_dir.as_ref().and_then(|path| path.parent()).unwrap_or(&dir).to_owned();
        if !name.contains(['*', '?']) {
            self.file(&shown_dir.join(name), Some(pattern.at));
            return;
        }
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            // `conf.d/*.yaml` without a conf.d is an installation without extra files.
            Err(err) if err.kind() == io::ErrorKind::NotFound => return,
            Err(err) => {
                let mut problem =
                    Problem::error("config::unreadable", format!("cannot list `{}`: {err}", dir.display()))
                        .at(pattern.at, "included here")
                        .help("give lidless's user the right to read the directory");
                problem.denied = err.kind() == io::ErrorKind::PermissionDenied;
                self.problems.push(problem);
                return;
            }
        };
        let names = entries.filter_map(Result::ok).filter_map(|entry| entry.file_name().into_string().ok());
        // Hidden files are an editor's, as a shell sees it too.
        let mut names: Vec<String> = names
            .filter(|found| !found.starts_with('.') && glob(name.as_bytes(), found.as_bytes()))
            .collect();
        names.sort_unstable();
        for name in names {
            self.file(&shown_dir.join(name), Some(pattern.at));
        }
    }

    /// Adds one file's document to the whole. Maps merge by name; everything else stands in one file only.
    fn merge(&mut self, from: Document) {
        let problems = &mut self.problems;
        let to = &mut self.document;
        once(problems, "site", &mut to.site, from.site);
        once(problems, "store", &mut to.store, from.store);
        once(problems, "web", &mut to.web, from.web);
        once(problems, "limits", &mut to.limits, from.limits);
        once(problems, "defaults", &mut to.defaults, from.defaults);
        by_name(problems, "notifier", &mut self.notifiers, &mut to.notify, from.notify);
        by_name(problems, "plugin", &mut self.plugins, &mut to.plugins, from.plugins);
        by_name(problems, "service", &mut self.services, &mut to.services, from.services);
        by_name(problems, "pipeline", &mut self.pipelines, &mut to.pipelines, from.pipelines);
    }

    fn finish(mut self, secrets: Secrets) -> Result<Loaded, Problems> {
        validate::check(&self.document, &mut self.problems);
        let failed =
            |problems: &[Problem]| problems.iter().any(|problem| problem.severity == Severity::Error);
        if failed(&self.problems) {
            return Err(Problems::new(self.sources, self.problems));
        }
        let resolved = resolve::resolve(&self.document, &self.dirs, secrets, &mut self.problems);
        if failed(&self.problems) {
            return Err(Problems::new(self.sources, self.problems));
        }
        Ok(Loaded { resolved, warnings: Problems::new(self.sources, self.problems), files: self.files })
    }
}

fn has_key(root: &super::node::Node, name: &str) -> bool {
    matches!(&root.value, super::node::Value::Map(entries) if entries.iter().any(|entry| entry.key.value == name))
}

fn once<T>(problems: &mut Vec<Problem>, name: &str, to: &mut Option<Sp<T>>, from: Option<Sp<T>>) {
    match (&*to, from) {
        (_, None) => {}
        (None, Some(from)) => *to = Some(from),
        (Some(first), Some(second)) => problems.push(
            Problem::error("config::defined_twice", format!("`{name}` is given in two files"))
                .at(second.at, "the second time")
                .at(first.at, "the first time is here")
                .help("keep it in one of them"),
        ),
    }
}

fn by_name<T>(
    problems: &mut Vec<Problem>,
    noun: &str,
    known: &mut HashMap<String, Place>,
    to: &mut Vec<Named<T>>,
    from: Vec<Named<T>>,
) {
    for named in from {
        match known.get(&named.name.value) {
            Some(first) => problems.push(
                Problem::error(
                    "config::defined_twice",
                    format!("two files have a {noun} `{}`", named.name.value),
                )
                .at(named.name.at, "the second one")
                .at(*first, "the first one is here")
                .help("rename or remove one of them; files add to each other, none overrides another"),
            ),
            None => {
                known.insert(named.name.value.clone(), named.name.at);
                to.push(named);
            }
        }
    }
}

/// Matches `*` and `?` as a shell does within one name.
fn glob(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(b'?') => (p, n) = (p + 1, n + 1),
            Some(byte) if *byte == name[n] => (p, n) = (p + 1, n + 1),
            Some(_) | None => {
                let Some((star_p, star_n)) = star else { return false };
                star = Some((star_p, star_n + 1));
                (p, n) = (star_p + 1, star_n + 1);
            }
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

enum Unread {
    NotUtf8 { text: String, at: usize },
    Other(Problem),
}

fn read_text(path: &Path) -> Result<String, Unread> {
    let shown = path.display();
    let unreadable = |err: io::Error| {
        Unread::Other(match err.kind() {
            io::ErrorKind::NotFound => {
                Problem::error("config::missing_file", format!("there is no file `{shown}`"))
                    .help("check the path; a configuration begins with `version: 1`")
            }
            io::ErrorKind::PermissionDenied => {
                Problem::error("config::unreadable", format!("cannot read `{shown}`: permission denied"))
                    .denied()
                    .help("give lidless's user the right to read it")
            }
            _ => Problem::error("config::unreadable", format!("cannot read `{shown}`: {err}"))
                .help("check the path"),
        })
    };
    let meta = fs::metadata(path).map_err(unreadable)?;
    if meta.is_dir() {
        let inside = path.join("lidless.yaml");
        let help = if inside.is_file() {
            format!("name the file: `{}`", inside.display())
        } else {
            "name a file, as `lidless.yaml`".to_owned()
        };
        return Err(Unread::Other(
            Problem::error("config::directory", format!("`{shown}` is a directory")).help(help),
        ));
    }
    let mut bytes = Vec::new();
    fs::File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(unreadable)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        let problem = Problem::error("config::too_large", format!("`{shown}` is larger than 16 MiB"));
        return Err(Unread::Other(problem.help("split it, and name the parts under `include`")));
    }
    String::from_utf8(bytes).map_err(|err| {
        let at = err.utf8_error().valid_up_to();
        let text = String::from_utf8_lossy(err.as_bytes()).into_owned();
        Unread::NotUtf8 { text, at }
    })
}
