//! What do all verbs share? The flags before the verb, and one way to print, to warn and to fail.

use std::cell::{OnceCell, RefCell};
use std::error::Error;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use lidless_core::health::Health;
use serde::Serialize;
use serde_json::{Value, json};

use super::exit::{Exit, Failure};
use super::log::Log;
use super::output::{Color, Format, Mark, Out, Style};
use crate::config::Problems;

/// Where a system's configuration is.
const SYSTEM_CONFIG: &str = "/etc/lidless/lidless.yaml";

/// Flags that every verb takes.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Options of every verb")]
pub struct GlobalArgs {
    /// The configuration: a file, or a folder with lidless.yaml
    #[arg(id = "global_config", long = "config", global = true, value_name = "FILE|DIR")]
    pub config: Option<PathBuf>,
    /// The socket of the daemon to talk to [env: LIDLESS_SOCKET]
    #[arg(
        long,
        global = true,
        value_name = "unix:PATH",
        env = "LIDLESS_SOCKET",
        hide_env = true,
        value_parser = parse_socket
    )]
    pub connect: Option<PathBuf>,
    /// The form of what is written to stdout: human, json, or jsonl (a document a line)
    #[arg(short, long, global = true, value_name = "FORM", value_enum, default_value_t)]
    #[arg(hide_possible_values = true, hide_default_value = true)]
    pub output: Format,
    /// The same as --output json
    #[arg(long, global = true, conflicts_with = "output")]
    pub json: bool,
    /// Say only what went wrong
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Say more; twice for everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// When to use colour: auto, always or never
    #[arg(long, global = true, value_name = "WHEN", value_enum, default_value_t)]
    #[arg(hide_possible_values = true, hide_default_value = true)]
    pub color: Color,
    /// Show no progress
    #[arg(long, global = true)]
    pub no_progress: bool,
    /// Show times in UTC
    #[arg(long, global = true)]
    pub utc: bool,
}

fn parse_socket(text: &str) -> Result<PathBuf, String> {
    let path = text.strip_prefix("unix:").unwrap_or(text);
    if path.is_empty() || path.contains("://") {
        return Err("expected unix:PATH".to_owned());
    }
    Ok(PathBuf::from(path))
}

/// The flags, and the two streams.
#[derive(Debug)]
pub struct Globals {
    /// As they were given.
    pub args: GlobalArgs,
    /// What stdout can show.
    pub style: Style,
    /// What stderr can show.
    pub style_err: Style,
    out: RefCell<Out>,
    log: OnceCell<Log>,
}

impl Globals {
    /// Looks at the streams.
    pub fn new(args: GlobalArgs) -> Globals {
        let (style, style_err) = (Style::of_stdout(args.color), Style::of_stderr(args.color));
        Globals { args, style, style_err, out: RefCell::new(Out::new()), log: OnceCell::new() }
    }

    /// Returns the form of what is written to stdout.
    pub fn format(&self) -> Format {
        if self.args.json { Format::Json } else { self.args.output }
    }

    /// Whether a machine reads stdout.
    pub fn json(&self) -> bool {
        self.format() != Format::Human
    }

    /// Returns the configuration files to load: `--config`, else ./lidless.yaml, else the system's.
    pub fn config_paths(&self) -> Vec<PathBuf> {
        let local = Path::new("lidless.yaml");
        vec![match &self.args.config {
            Some(path) => config_file(path),
            None if local.exists() => local.to_owned(),
            None => PathBuf::from(SYSTEM_CONFIG),
        }]
    }

    /// Writes a line for people to stdout, at once.
    pub fn print(&self, line: &str) {
        let mut out = self.out.borrow_mut();
        out.write(&self.style.fold(line));
        out.write("\n");
        out.flush();
    }

    /// Writes data to stdout as it is, some time before the end.
    pub fn data(&self, text: &str) {
        self.out.borrow_mut().write(text);
    }

    /// Writes a document to stdout, in the form that was asked for, some time before the end.
    pub fn document(&self, document: &impl Serialize) {
        let text = match self.format() {
            Format::Jsonl => serde_json::to_string(document),
            Format::Human | Format::Json => serde_json::to_string_pretty(document),
        };
        self.data(&(text.expect("documents have text keys and finite numbers") + "\n"));
    }

    /// Hands everything written so far to the reader; `false` once there is none any more.
    pub fn flush(&self) -> bool {
        let mut out = self.out.borrow_mut();
        out.flush();
        out.is_open()
    }

    /// Ends the output: an exit code that claims success must not hide that something could not be written.
    pub fn finish(&self, exit: Exit) -> Exit {
        self.flush();
        let why = self.out.borrow().failure().map(ToString::to_string);
        let exit = match why {
            Some(why) if exit == Exit::Ok => self.fail(
                Exit::Unhealthy,
                &format!("cannot write to stdout: {why}"),
                Some("what was written is not whole: write it elsewhere"),
            ),
            Some(_) | None => exit,
        };
        if let Some(log) = self.log.get() {
            log.flush();
        }
        exit
    }

    /// Says something to the person on stderr, unless told to be quiet.
    pub fn say(&self, text: &str) {
        if !self.args.quiet {
            self.write_err(text);
        }
    }

    /// Says something on stderr even when told to be quiet, after all that was written to stdout.
    pub(super) fn insist(&self, text: &str) {
        self.flush();
        self.write_err(text);
    }

    /// Replaces the line of progress on a terminal.
    pub(super) fn redraw(&self, line: &str) {
        drop(write!(std::io::stderr().lock(), "\r\x1b[K{}", self.style_err.fold(line)));
    }

    fn write_err(&self, text: &str) {
        let text = self.style_err.fold(text);
        match self.log.get() {
            // In order with the log, and as little in need of a reader.
            Some(log) => log.line(format!("{text}\n").into_bytes()),
            // What cannot even be said on stderr can be said nowhere; the exit code remains.
            None => drop(writeln!(std::io::stderr().lock(), "{text}")),
        }
    }

    /// Says on stderr why a verb failed, and what to do; returns the exit code.
    pub fn fail(&self, exit: Exit, message: &str, hint: Option<&str>) -> Exit {
        let mut failure = Failure::new(exit, message);
        failure.hint = hint.map(str::to_owned);
        self.report(&failure)
    }

    /// Says on stderr why a verb failed, with all causes, and what to do; returns the exit code.
    pub fn fail_with(&self, exit: Exit, err: &dyn Error, hint: Option<&str>) -> Exit {
        let mut failure = Failure::of(exit, err);
        failure.hint = hint.map(str::to_owned);
        self.report(&failure)
    }

    /// Says on stderr why a verb failed; returns the exit code.
    pub fn report(&self, failure: &Failure) -> Exit {
        self.flush();
        let Failure { exit, message, causes, hint } = failure;
        if self.json() {
            self.write_err(&error_document(failure).to_string());
            return *exit;
        }
        let style = &self.style_err;
        self.write_err(&format!("{} {message}", style.paint(Mark::Down, "error:")));
        for cause in causes {
            self.write_err(&format!("  caused by: {cause}"));
        }
        if let Some(hint) = hint {
            self.write_err(&format!("{} {hint}", style.bold("hint:")));
        }
        *exit
    }

    /// Shows what is wrong with the configuration.
    pub fn config_problems(&self, problems: &Problems) -> Exit {
        self.flush();
        if self.json() {
            let failure = Failure::new(Exit::of_config(problems), problems.to_string()).hint("lidless check");
            let mut error = error_document(&failure);
            error["problems"] = super::check::listed(problems).into();
            self.write_err(&error.to_string());
            return failure.exit;
        }
        self.write_err(self.draw(problems).trim_end());
        let count = problems
            .list()
            .iter()
            .filter(|problem| problem.severity == crate::config::Severity::Error)
            .count();
        let exit = Exit::of_config(problems);
        let (what, hint) = match exit {
            Exit::Permission => ("cannot be read", "run this as a user who may read it, or as root"),
            _ => ("is invalid", "mend it, then `lidless check`"),
        };
        let message = format!("the configuration {what}: {}", plural(count, "problem"));
        self.report(&Failure::new(exit, message).hint(hint))
    }

    /// Shows what is probably not meant so in the configuration.
    pub fn config_warnings(&self, warnings: &Problems) {
        if !warnings.is_empty() && !self.json() {
            self.say(self.draw(warnings).trim_end());
        }
    }

    fn draw(&self, problems: &Problems) -> String {
        let Style { color, utf8, width, .. } = self.style_err;
        if utf8 { problems.render(width, color) } else { problems.render_ascii(width) }
    }

    /// Returns one line about a verdict: shape, word, detail. A detail that repeats the word has it once.
    pub fn health_line(&self, health: Health, detail: &str) -> String {
        let style = self.style_of_both();
        let word = health.word();
        let rest = detail.strip_prefix(word).unwrap_or(detail).trim_start_matches([':', ' ']);
        let word = style.paint(health.into(), &format!("{word:<10}"));
        format!("{} {word} {rest}", style.mark(health.into())).trim_end().to_owned()
    }

    /// Returns one line about a step: an arrow and what is done.
    pub fn arrow_line(&self, text: &str) -> String {
        format!("{} {}", self.style_of_both().mark(Mark::Step), text.trim_start_matches(['→', ' ']))
    }

    /// Returns the text bold, where that can be shown.
    pub fn bold(&self, text: &str) -> String {
        self.style_of_both().bold(text)
    }

    /// Lines that may go to either stream have colour only where both can show it.
    fn style_of_both(&self) -> Style {
        Style { color: self.style.color && self.style_err.color, ..self.style }
    }

    /// Returns the time of day, for lines on a screen.
    pub fn clock_time(&self) -> String {
        Timestamp::now().to_zoned_datetime(self.zone()).strftime("%H:%M:%S").to_string()
    }

    /// Returns the zone in which people are told times.
    pub fn zone(&self) -> TimeZone {
        if self.args.utc { TimeZone::UTC } else { TimeZone::system() }
    }

    /// Writes a time of a document for people: in full to a pipe, as short as it is clear on a terminal.
    pub fn time(&self, rfc3339: &str) -> String {
        let Ok(time) = rfc3339.parse::<Timestamp>() else { return rfc3339.to_owned() };
        let time = time.to_zoned_datetime(self.zone());
        let today = Timestamp::now().to_zoned_datetime(self.zone()).date();
        let form = match (self.style.terminal, time.date() == today) {
            (false, _) => "%Y-%m-%d %H:%M:%S%.3f %:z",
            (true, true) => "%H:%M:%S%.3f",
            (true, false) => "%Y-%m-%d %H:%M:%S",
        };
        time.strftime(form).to_string()
    }

    /// Logs to stderr: what changes, and with -v why.
    pub fn init_log(&self) {
        self.log_from("info");
    }

    /// Logs to stderr only what nothing else says.
    pub fn init_log_quiet(&self) {
        self.log_from("off");
    }

    fn log_from(&self, usual: &str) {
        let level = match (self.args.quiet, self.args.verbose, usual) {
            (true, ..) => "warn",
            (false, 0, usual) => usual,
            (false, 1, "off") => "info",
            (false, 1, _) => "debug",
            (false, ..) => "trace",
        };
        let filter = tracing_subscriber::EnvFilter::try_from_env("LIDLESS_LOG")
            .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(level));
        // Without a thread there is no log: what has to be said is still said.
        let Ok(writer) = Log::to_stderr() else { return };
        let writer = self.log.get_or_init(|| writer).clone();
        let log = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(writer)
            .with_ansi(self.style_err.color)
            .with_target(false)
            .log_internal_errors(false);
        // systemd's journal has the time of each line itself. A second call changes nothing.
        let set = if std::env::var_os("JOURNAL_STREAM").is_some() {
            tracing::subscriber::set_global_default(log.without_time().finish())
        } else {
            tracing::subscriber::set_global_default(log.finish())
        };
        drop(set);
    }

    /// Runs what a client verb has to wait for.
    pub(super) fn wait_for<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build();
        super::waiting::to_end(tokio.map_err(|err| Failure::of(Exit::TryAgain, &err))?, work)
    }
}

fn error_document(failure: &Failure) -> Value {
    let Failure { exit, message, causes, hint } = failure;
    json!({
        "schema": "lidless/error/1",
        "exit": exit.code(),
        "error": message,
        "causes": causes,
        "hint": hint,
    })
}

/// Returns the file that `--config` means.
pub(super) fn config_file(path: &Path) -> PathBuf {
    if path.is_dir() { path.join("lidless.yaml") } else { path.to_owned() }
}

/// Writes "1 check", "2 checks".
pub(super) fn plural(count: usize, noun: &str) -> String {
    let s = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{s}")
}
