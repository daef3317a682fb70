//! Who is this user? Name or number to uid, gid and groups, without calling into libc's name services.
//!
//! `/etc/passwd` and `/etc/group` first; where the name is not there (LDAP and the like), the `id` command is asked.

use std::fs;
use std::process::{Command, Stdio};

use rustix::process::{Gid, Uid};

/// What is needed to become a user.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Account {
    pub(crate) name: String,
    pub(crate) uid: Uid,
    pub(crate) gid: Gid,
    /// All groups, the primary one included.
    pub(crate) groups: Vec<Gid>,
    pub(crate) home: Option<String>,
    pub(crate) shell: Option<String>,
}

/// Returns the account of a name or a number; `None` when there is none.
pub(crate) fn find(user: &str) -> Option<Account> {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let group = fs::read_to_string("/etc/group").unwrap_or_default();
    in_files(user, &passwd, &group).or_else(|| ask_id(user))
}

fn in_files(user: &str, passwd: &str, group: &str) -> Option<Account> {
    let fields = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.len() >= 7 && (fields[0] == user || fields[2] == user))?;
    let uid = Uid::from_raw(fields[2].parse().ok()?);
    let gid = Gid::from_raw(fields[3].parse().ok()?);
    let mut groups = vec![gid];
    for line in group.lines() {
        let parts: Vec<_> = line.split(':').collect();
        if parts.len() < 4 || !parts[3].split(',').any(|member| member == fields[0]) {
            continue;
        }
        if let Ok(number) = parts[2].parse() {
            groups.push(Gid::from_raw(number));
        }
    }
    groups.sort_unstable_by_key(|gid| gid.as_raw());
    groups.dedup();
    let text = |value: &str| (!value.is_empty()).then(|| value.to_owned());
    Some(Account {
        name: fields[0].to_owned(),
        uid,
        gid,
        groups,
        home: text(fields[5]),
        shell: text(fields[6]),
    })
}

fn ask_id(user: &str) -> Option<Account> {
    // A name that `id` would take for an option is no name.
    if user.is_empty() || user.starts_with('-') {
        return None;
    }
    let numbers = |option: &str| -> Option<Vec<u32>> {
        let output = Command::new("id")
            .arg(option)
            .arg(user)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output()
            .ok()?;
        let text = output.status.success().then(|| String::from_utf8(output.stdout).ok())??;
        text.split_ascii_whitespace().map(|number| number.parse().ok()).collect()
    };
    let uid = *numbers("-u")?.first()?;
    let gid = *numbers("-g")?.first()?;
    let groups = numbers("-G")?.into_iter().map(Gid::from_raw).collect();
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    Some(Account { name: user.to_owned(), uid, gid, groups, home: None, shell: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/bash\nthumbs:x:990:980::/srv/thumbs:/usr/sbin/nologin\nbroken:x\n";
    const GROUP: &str = "root:x:0:\nthumbs:x:980:\nmedia:x:44:alice,thumbs\nother:x:45:thumbsup\n";

    #[test]
    fn a_name_and_its_number_are_one_account() {
        let account = in_files("thumbs", PASSWD, GROUP).expect("known");
        assert_eq!(account.uid.as_raw(), 990);
        assert_eq!(account.groups.iter().map(|gid| gid.as_raw()).collect::<Vec<_>>(), [44, 980]);
        assert_eq!(account.home.as_deref(), Some("/srv/thumbs"));
        assert_eq!(in_files("990", PASSWD, GROUP), Some(account));
    }

    #[test]
    fn an_unknown_or_broken_line_is_no_account() {
        assert_eq!(in_files("nobody-here", PASSWD, GROUP), None);
        assert_eq!(in_files("broken", PASSWD, GROUP), None);
        assert_eq!(find("--help"), None);
    }
}
