//! `lidless completions` and `lidless man`: how do shells and man(1) learn of the verbs?

use std::path::PathBuf;

use super::exit::{Exit, Failure};
use super::globals::Globals;

/// Prints completions for a shell.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    lidless completions bash > /usr/share/bash-completion/completions/lidless\n  \
    lidless completions zsh > ~/.zfunc/_lidless\n  \
    lidless completions fish > ~/.config/fish/completions/lidless.fish")]
pub struct CompletionsArgs {
    /// Which shell
    #[arg(value_name = "SHELL", value_enum)]
    pub shell: clap_complete::Shell,
}

/// Writes the manual pages.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:\n  lidless man | man -l -\n  lidless man /usr/local/share/man/man1")]
pub struct ManArgs {
    /// The folder for all pages; without it the first page goes to stdout
    #[arg(value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// Prints the completions.
pub fn run(args: &CompletionsArgs, globals: &Globals) -> Exit {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::command(), "lidless", &mut script);
    globals.data(&String::from_utf8_lossy(&script));
    Exit::Ok
}

/// Writes the pages.
pub fn run_man(args: &ManArgs, globals: &Globals) -> Exit {
    let failed = |err: std::io::Error, what: String| {
        let failure = Failure::of(Exit::of_io(&err, Exit::Unhealthy), &err);
        globals.report(&Failure { message: format!("cannot write {what}: {}", failure.message), ..failure })
    };
    let Some(dir) = &args.dir else {
        let mut page = Vec::new();
        return match clap_mangen::Man::new(super::command()).render(&mut page) {
            Ok(()) => {
                globals.data(&String::from_utf8_lossy(&page));
                Exit::Ok
            }
            Err(err) => failed(err, "the page".to_owned()),
        };
    };
    let written = std::fs::create_dir_all(dir).and_then(|()| clap_mangen::generate_to(super::command(), dir));
    match written {
        Ok(()) => {
            globals.say(&format!(
                "manual pages are in {}; read one with `man {}/lidless.1`",
                dir.display(),
                dir.display()
            ));
            Exit::Ok
        }
        Err(err) => failed(err, format!("to {}", dir.display())),
    }
}
