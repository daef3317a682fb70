//! Where does the output of a service go? Into a file that is opened so that the service's user cannot point root elsewhere.

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path};

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{CWD, FileType, Mode, OFlags, fchown, fcntl_getfl, fcntl_setfl, fstat, openat, readlinkat};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::user::Account;

/// What a log is opened with. Not blocking: a FIFO without a reader must not hold the slot.
const FLAGS: OFlags = OFlags::NONBLOCK.union(OFlags::NOCTTY);
/// Owner writes, group reads.
const MODE: u32 = 0o640;
/// As many symbolic links as the kernel itself follows in one path.
const LINKS_MAX: u32 = 40;

/// Opens a log to append to, making it where it is missing. `account` is the user that the service will run as, if another.
pub(super) fn open(path: &Path, account: Option<&Account>) -> io::Result<File> {
    let file = match account {
        Some(account) => open_for(path, account)?,
        None => {
            let flags = i32::try_from(FLAGS.bits()).map_err(io::Error::other)?;
            OpenOptions::new().create(true).append(true).mode(MODE).custom_flags(flags).open(path)?
        }
    };
    fcntl_setfl(&file, fcntl_getfl(&file)? - OFlags::NONBLOCK)?;
    Ok(file)
}

/// Walks to the file, and follows only links that root or we made.
///
/// The service's user may own a folder on the way, and a link there would make root create files where that user may not.
/// Not `openat2`: what forbids links altogether would forbid `/var/run` as well.
fn open_for(path: &Path, account: &Account) -> io::Result<File> {
    let (mut folder, mut ahead) = (start(path)?, Vec::new());
    push(&mut ahead, path);
    let mut links = 0;
    while let Some(name) = ahead.pop() {
        let found =
            match openat(&folder, &name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()) {
                Err(Errno::NOENT) if ahead.is_empty() => return make(&folder, &name, account),
                found => found?,
            };
        let stat = fstat(&found)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
            links += 1;
            if links > LINKS_MAX {
                return Err(Errno::LOOP.into());
            }
            if stat.st_uid != 0 && stat.st_uid != geteuid().as_raw() {
                let (name, user) = (name.display(), stat.st_uid);
                return Err(io::Error::other(format!("`{name}` is a symbolic link that user {user} made")));
            }
            let target = OsString::from_vec(readlinkat(&found, "", Vec::new())?.into_bytes());
            let target = Path::new(&target);
            if target.is_absolute() {
                folder = start(target)?;
            }
            push(&mut ahead, target);
        } else if ahead.is_empty() {
            return reopen(&folder, &name);
        } else {
            folder = found;
        }
    }
    Err(Errno::ISDIR.into())
}

fn start(path: &Path) -> io::Result<OwnedFd> {
    let first = if path.is_absolute() { "/" } else { "." };
    Ok(openat(CWD, first, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Puts the names of a path on top of those that are still to be walked, the first one uppermost.
fn push(ahead: &mut Vec<OsString>, path: &Path) {
    let names = path.components().filter(|component| !matches!(component, Component::RootDir));
    ahead.extend(names.rev().map(|component| component.as_os_str().to_owned()));
}

/// Makes the file, and gives it to the account: a service that opens `/dev/stderr` opens the file anew, as itself.
fn make(folder: impl AsFd, name: &OsStr, account: &Account) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | FLAGS;
    match openat(&folder, name.as_bytes(), flags, Mode::from_raw_mode(MODE)) {
        Ok(file) => {
            fchown(&file, Some(account.uid), Some(account.gid))?;
            Ok(file.into())
        }
        Err(Errno::EXIST) => reopen(folder, name),
        Err(err) => Err(err.into()),
    }
}

fn reopen(folder: impl AsFd, name: &OsStr) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC | FLAGS;
    Ok(openat(folder, name.as_bytes(), flags, Mode::empty())?.into())
}
