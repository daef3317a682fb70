//! How is monit set up at its floor? A cycle of one second and a time-out of one second; less is a syntax error to it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Problem;
use crate::demo::Service;
use crate::process::Guarded;

/// Finds it.
pub fn find() -> Option<PathBuf> {
    super::on_path("monit")
}

/// Its version, for the record.
pub fn version(monit: &Path) -> String {
    super::first_line(Command::new(monit).arg("-V")).unwrap_or_default()
}

/// Starts it as the healer of one service.
pub fn healing(monit: &Path, dir: &Path, lidless: &Path, service: &Service) -> Result<Guarded, Problem> {
    let (start, stop, pidfile) = (dir.join("start.sh"), dir.join("stop.sh"), dir.join("app.pid"));
    let command = service.command(lidless).iter().map(|w| format!("'{w}'")).collect::<Vec<_>>().join(" ");
    std::fs::write(
        &start,
        format!("setsid {command} </dev/null >/dev/null 2>&1 &\necho $! >'{}'\n", pidfile.display()),
    )?;
    // SIGKILL: the fastest stop that a user of monit could ask for.
    std::fs::write(&stop, format!("kill -9 \"$(cat '{}')\"\n", pidfile.display()))?;
    // By default it tests no port within the 30 s that a start may take; one second is the least there is.
    let checks = format!(
        "check process app with pidfile \"{}\"\n  start program = \"/bin/sh {}\" with timeout 1 seconds\n  \
         stop program = \"/bin/sh {}\" with timeout 1 seconds\n  \
         if failed host 127.0.0.1 port {} protocol http request \"/health\" with timeout 1 seconds then restart\n",
        pidfile.display(),
        start.display(),
        stop.display(),
        service.port
    );
    run(monit, dir, &checks)
}

/// Starts it as the watcher of `targets` paths, with alerts and nobody to alert.
pub fn watching(monit: &Path, dir: &Path, targets: u32, port: u16) -> Result<Guarded, Problem> {
    let mut checks = String::new();
    for id in 0..targets {
        let [_, a, b, c] = (id + 256).to_be_bytes();
        writeln!(
            checks,
            "check host t{id} with address 127.{a}.{b}.{c}\n  if failed port {port} protocol http request \"/t{id}\" with \
             timeout 1 seconds then alert"
        )?;
    }
    run(monit, dir, &checks)
}

fn run(monit: &Path, dir: &Path, checks: &str) -> Result<Guarded, Problem> {
    let config = dir.join("monitrc");
    let at = |name: &str| dir.join(name).display().to_string();
    let head = format!(
        "set daemon 1\nset log \"{}\"\nset pidfile \"{}\"\nset idfile \"{}\"\nset statefile \"{}\"\n",
        at("monit.log"),
        at("monit.pid"),
        at("monit.id"),
        at("monit.state")
    );
    super::write_private(&config, &(head + checks))?;
    Guarded::start("monit", Command::new(monit).arg("-I").arg("-c").arg(&config), &dir.join("monit.out"))
}
