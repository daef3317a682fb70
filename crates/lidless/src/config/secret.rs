//! Where does a secret come from, and who sees it? Read once at load, shown to nobody.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// A secret is a token or a key, not a document.
const LENGTH_MAX: u64 = 64 * 1024;

/// A text that never shows in logs, journals or on screens.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text.
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// Returns the text, for the one who sends it. Never log it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[REDACTED]")
    }
}

/// Where a secret is kept. Of a step's, this is what the journal has.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretSource {
    /// A systemd credential, in `$CREDENTIALS_DIRECTORY`.
    Credential(String),
    /// A file that only its owner may read.
    File(PathBuf),
    /// An environment variable of lidless.
    Env(String),
}

/// Why a secret is not there.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// Not started by systemd with credentials.
    #[error("lidless was started without systemd credentials (`$CREDENTIALS_DIRECTORY` is not set)")]
    NoCredentials,
    /// The file cannot be read.
    #[error("cannot read `{}`: {err}", shown(path))]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        err: io::Error,
    },
    /// Others than the owner may read it.
    #[error("`{}` can be read by others than its owner (mode {mode:04o})", shown(path))]
    TooOpen {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// No such variable.
    #[error("the environment variable `{0}` is not set")]
    NoVariable(String),
    /// It is empty, too long, not UTF-8 or has line breaks.
    #[error("the secret {0}")]
    Form(&'static str),
}

impl SecretError {
    /// Returns what to do.
    pub fn help(&self) -> String {
        match self {
            SecretError::NoCredentials => {
                "add `LoadCredential=` to lidless's unit, or use `file:` or `env:`".to_owned()
            }
            SecretError::Read { .. } => "create it, or give lidless's user the right to read it".to_owned(),
            SecretError::TooOpen { path, .. } => format!("chmod 600 {}", shown(path)),
            SecretError::NoVariable(name) => {
                format!("set `{name}` in lidless's environment, or use `credential:` or `file:`")
            }
            SecretError::Form(_) => "write the bare secret, on one line".to_owned(),
        }
    }
}

impl SecretSource {
    /// Reads it.
    pub fn read(&self) -> Result<Secret, SecretError> {
        let text = match self {
            SecretSource::Credential(name) => {
                let dir = std::env::var_os("CREDENTIALS_DIRECTORY").ok_or(SecretError::NoCredentials)?;
                // systemd keeps that directory from others, and its files carry group bits (an ACL): no look at the mode.
                read_file(&Path::new(&dir).join(name), false)?
            }
            SecretSource::File(path) => read_file(path, true)?,
            SecretSource::Env(name) => {
                std::env::var(name).map_err(|_| SecretError::NoVariable(name.clone()))?
            }
        };
        let text = text.trim_end_matches(['\n', '\r']);
        match text {
            "" => Err(SecretError::Form("is empty")),
            _ if text.contains(['\n', '\r', '\0']) => Err(SecretError::Form("has several lines")),
            _ => Ok(Secret::new(text)),
        }
    }
}

/// Names a file as a person in this directory would type it.
fn shown(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(here).unwrap_or(path).display().to_string()
}

fn read_file(path: &Path, guarded: bool) -> Result<String, SecretError> {
    let read = |err| SecretError::Read { path: path.to_owned(), err };
    // Not a FIFO, whose opening could wait for ever. The mode is then taken from the open file, so that it cannot be swapped.
    if !std::fs::metadata(path).map_err(read)?.is_file() {
        return Err(read(io::Error::other("not a regular file")));
    }
    let file = File::open(path).map_err(read)?;
    let meta = file.metadata().map_err(read)?;
    if guarded && meta.mode() & 0o077 != 0 {
        return Err(SecretError::TooOpen { path: path.to_owned(), mode: meta.mode() & 0o7777 });
    }
    if meta.len() > LENGTH_MAX {
        return Err(SecretError::Form("is longer than 64 KiB"));
    }
    let mut text = String::new();
    file.take(LENGTH_MAX).read_to_string(&mut text).map_err(read)?;
    Ok(text)
}
