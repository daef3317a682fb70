//! How are supervisord and superlance's httpok set up at their floor? A tick of five seconds is the smallest there is.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Problem;
use crate::demo::Service;
use crate::process::Guarded;
use crate::report;

/// Finds the virtual environment that holds both, as `cargo xtask bench-setup` makes it.
pub fn find() -> Option<PathBuf> {
    let bin = report::workspace().join("target/bench-venv/bin");
    (bin.join("supervisord").is_file() && bin.join("httpok").is_file()).then_some(bin)
}

/// Its version, for the record.
pub fn version(bin: &Path) -> String {
    let version =
        super::first_line(Command::new(bin.join("supervisord")).arg("--version")).unwrap_or_default();
    format!("supervisor {version} with superlance's httpok at TICK_5")
}

/// Starts it as the healer of one service.
pub fn healing(bin: &Path, dir: &Path, lidless: &Path, service: &Service) -> Result<Guarded, Problem> {
    let config = dir.join("supervisord.conf");
    let at = |name: &str| dir.join(name).display().to_string();
    let text = format!(
        "[unix_http_server]\nfile={socket}\n\
         [supervisord]\nnodaemon=true\nminfds=256\nlogfile={log}\npidfile={pidfile}\nchildlogdir={dir}\n\
         [rpcinterface:supervisor]\nsupervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n\
         [supervisorctl]\nserverurl=unix://{socket}\n\
         [program:app]\ncommand={command}\nstartsecs=0\nautorestart=true\n\
         [eventlistener:httpok]\ncommand={httpok} -p app -t 1 http://127.0.0.1:{port}/health\nevents=TICK_5\n",
        socket = at("supervisor.sock"),
        log = at("supervisord.log"),
        pidfile = at("supervisord.pid"),
        dir = dir.display(),
        command = service.command(lidless).join(" "),
        httpok = bin.join("httpok").display(),
        port = service.port,
    );
    std::fs::write(&config, text)?;
    let mut command = Command::new(bin.join("supervisord"));
    Guarded::start("supervisord", command.arg("-c").arg(&config), &dir.join("supervisord.out"))
}
