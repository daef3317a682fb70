//! What is wrong with the configuration, where exactly, and what helps? Problems, and how a terminal shows them.

use std::fmt;
use std::sync::Arc;

use miette::{
    Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteError, MietteSpanContents,
    SourceCode, SourceSpan, SpanContents,
};

use super::node::Place;

/// Problems beyond this many are counted but not shown: nobody reads them, and each costs a pass over its file.
const SHOWN_MAX: usize = 100;

/// One file, or a text that stands for one.
#[derive(Clone, Debug)]
pub struct Source {
    /// The name as the user gave it.
    pub name: String,
    /// The whole text.
    pub text: Arc<str>,
}

/// Whether a problem keeps the configuration from being used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Severity {
    /// The configuration is refused.
    Error,
    /// The configuration works, but probably not as meant.
    Warning,
}

/// A place that a problem points at, with a few words.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Label {
    /// Where.
    pub at: Place,
    /// What to see there.
    pub text: String,
}

/// One problem.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// Its kind, stable: `config::unknown_key`.
    pub code: &'static str,
    /// Whether it is fatal.
    pub severity: Severity,
    /// One line, lower case, no full stop.
    pub message: String,
    /// The places; the first is where the problem is, the others explain.
    pub labels: Vec<Label>,
    /// What to do.
    pub help: Option<String>,
    /// A place that must not be shown: somebody put a secret there, and problems go to logs too.
    pub conceal: Option<Place>,
    /// Whether nothing is wrong but that we may not look.
    pub denied: bool,
}

impl Problem {
    /// Starts an error that points nowhere yet.
    pub fn error(code: &'static str, message: impl Into<String>) -> Problem {
        Problem {
            code,
            severity: Severity::Error,
            message: message.into(),
            labels: Vec::new(),
            help: None,
            conceal: None,
            denied: false,
        }
    }

    /// Starts a warning that points nowhere yet.
    pub fn warning(code: &'static str, message: impl Into<String>) -> Problem {
        Problem { severity: Severity::Warning, ..Problem::error(code, message) }
    }

    /// Points at a place.
    pub fn at(mut self, at: Place, text: impl Into<String>) -> Problem {
        self.labels.push(Label { at, text: text.into() });
        self
    }

    /// Keeps a place of the file from being shown, in this problem and in all others.
    pub fn conceal(mut self, at: Place) -> Problem {
        self.conceal = Some(at);
        self
    }

    /// Says that it is about permission.
    pub fn denied(mut self) -> Problem {
        self.denied = true;
        self
    }

    /// Says what to do.
    pub fn help(mut self, help: impl Into<String>) -> Problem {
        self.help = Some(help.into());
        self
    }
}

/// Every problem of one load, with the sources that they point into.
#[derive(Clone, Debug)]
pub struct Problems {
    sources: Arc<[Source]>,
    list: Vec<Problem>,
}

impl Problems {
    /// Puts problems in the order of the files; those of no place come first.
    pub fn new(mut sources: Vec<Source>, mut list: Vec<Problem>) -> Problems {
        for at in list.iter().filter_map(|problem| problem.conceal) {
            if let Some(source) = sources.get_mut(at.file as usize) {
                conceal(source, at);
            }
        }
        list.sort_by_key(|problem| problem.labels.first().map(|label| label.at));
        Problems { sources: sources.into(), list }
    }

    /// Returns the problems in the order of the files.
    pub fn list(&self) -> &[Problem] {
        &self.list
    }

    /// Returns the sources that the labels' places point into.
    pub fn sources(&self) -> &[Source] {
        &self.sources
    }

    /// Returns whether there is none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Returns how many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Returns whether the configuration could not be read for lack of permission, and nothing else is known to be wrong.
    pub fn are_denied(&self) -> bool {
        let mut errors = self.list.iter().filter(|problem| problem.severity == Severity::Error).peekable();
        errors.peek().is_some() && errors.all(|problem| problem.denied)
    }

    /// Draws all problems for a terminal of `width` columns.
    pub fn render(&self, width: usize, color: bool) -> String {
        self.draw(width, if color { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() })
    }

    /// Draws all problems in ASCII, for a locale that is not UTF-8.
    pub fn render_ascii(&self, width: usize) -> String {
        self.draw(width, GraphicalTheme::none())
    }

    fn draw(&self, width: usize, theme: GraphicalTheme) -> String {
        let handler = GraphicalReportHandler::new_themed(theme)
            .with_width(width.max(20))
            .with_context_lines(1)
            .with_links(false);
        let mut out = String::new();
        for problem in self.list.iter().take(SHOWN_MAX) {
            let shown = Shown::new(problem, &self.sources);
            if handler.render_report(&mut out, &shown).is_err() {
                // Drawing can only fail for a label outside its file; the words are worth more than the picture.
                out.push_str(&format!("{}: {}\n", problem.code, problem.message));
            }
            out.push('\n');
        }
        if self.list.len() > SHOWN_MAX {
            out.push_str(&format!("... and {} more problems\n", self.list.len() - SHOWN_MAX));
        }
        out
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.list.as_slice() {
            [] => f.write_str("no problem"),
            [one] => f.write_str(&one.message),
            [first, others @ ..] => write!(f, "{}, and {} more problems", first.message, others.len()),
        }
    }
}

impl std::error::Error for Problems {}

/// A problem as miette wants to see it: one source, and further sources as notes.
#[derive(Debug)]
struct Shown<'a> {
    problem: &'a Problem,
    note: Option<&'a str>,
    source: Option<&'a Source>,
    labels: Vec<LabeledSpan>,
    notes: Vec<Shown<'a>>,
}

impl<'a> Shown<'a> {
    fn new(problem: &'a Problem, sources: &'a [Source]) -> Shown<'a> {
        let file = problem.labels.first().map(|label| label.at.file);
        let (here, elsewhere): (Vec<&Label>, Vec<&Label>) =
            problem.labels.iter().partition(|label| Some(label.at.file) == file);
        let source_of = |file: u32| sources.get(file as usize);
        let notes = elsewhere.into_iter().map(|label| Shown {
            problem,
            note: Some(&label.text),
            source: source_of(label.at.file),
            labels: vec![LabeledSpan::new_with_span(None, span(label.at))],
            notes: Vec::new(),
        });
        Shown {
            problem,
            note: None,
            source: file.and_then(source_of),
            labels: here
                .iter()
                .map(|l| LabeledSpan::new_with_span(Some(l.text.clone()), span(l.at)))
                .collect(),
            notes: notes.collect(),
        }
    }
}

/// Puts asterisks in place of a part, byte for byte, so that all other places stay right.
fn conceal(source: &mut Source, at: Place) {
    let (start, end) = (at.start as usize, at.end as usize);
    if let (Some(before), Some(after)) = (source.text.get(..start), source.text.get(end..)) {
        source.text = format!("{before}{}{after}", "*".repeat(end - start)).into();
    }
}

fn span(at: Place) -> SourceSpan {
    SourceSpan::new((at.start as usize).into(), at.len())
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.note.unwrap_or(&self.problem.message))
    }
}

impl std::error::Error for Shown<'_> {}

impl Diagnostic for Shown<'_> {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.note.is_none().then(|| Box::new(self.problem.code) as Box<dyn fmt::Display>)
    }

    fn severity(&self) -> Option<miette::Severity> {
        Some(match (self.note, self.problem.severity) {
            (Some(_), _) => miette::Severity::Advice,
            (None, Severity::Error) => miette::Severity::Error,
            (None, Severity::Warning) => miette::Severity::Warning,
        })
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        let help = self.problem.help.as_ref().filter(|_| self.note.is_none())?;
        Some(Box::new(help))
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.source.map(|source| source as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        (!self.labels.is_empty())
            .then(|| Box::new(self.labels.iter().cloned()) as Box<dyn Iterator<Item = _>>)
    }

    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn Diagnostic> + 'a>> {
        (!self.notes.is_empty()).then(|| {
            Box::new(self.notes.iter().map(|note| note as &dyn Diagnostic)) as Box<dyn Iterator<Item = _>>
        })
    }
}

impl SourceCode for Source {
    fn read_span<'a>(
        &'a self,
        span: &SourceSpan,
        context_lines_before: usize,
        context_lines_after: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        let inner = self.text.read_span(span, context_lines_before, context_lines_after)?;
        Ok(Box::new(MietteSpanContents::new_named(
            self.name.clone(),
            inner.data(),
            *inner.span(),
            inner.line(),
            inner.column(),
            inner.line_count(),
        )))
    }
}
