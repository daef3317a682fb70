//! How is Restate set up? Its own server with what it is shipped with, and a service of four steps on its own SDK for Node.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::Problem;
use crate::process::{Guarded, wait_until};
use crate::{http, report};

/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(30);

/// The same pipeline: four steps that put out what lidless's do. Node 20 lacks `Promise.withResolvers`, and without it
/// invocations hang.
const SERVICE: &str = r#"
Promise.withResolvers ??= () => {
  let resolve, reject;
  const promise = new Promise((yes, no) => { resolve = yes; reject = no; });
  return { promise, resolve, reject };
};
const restate = await import("@restatedev/restate-sdk");
const vault = restate.service({
  name: "Vault",
  handlers: {
    run: async (ctx) => {
      await ctx.run("HEALTH_CHECK", async () => ({ well: true }));
      await ctx.run("REBALANCE", async () => ({ shifted: 420 }));
      const compounded = await ctx.run("COMPOUND", async () => ({ amount: 137000000 }));
      return await ctx.run("HARVEST", async () => compounded);
    },
  },
});
await restate.endpoint().bind(vault).listen(Number(process.argv[2]));
"#;

/// Finds it, as `cargo xtask bench-setup` installs it; an `Err` says what is missing.
pub fn find() -> Result<PathBuf, String> {
    if super::on_path("node").is_none() {
        return Err("there is no node".to_owned());
    }
    let dir = report::workspace().join("target/bench-restate");
    let server = server(&dir);
    if server.is_file() { Ok(dir) } else { Err(format!("it is not installed ({})", super::SETUP)) }
}

fn server(dir: &Path) -> PathBuf {
    dir.join("node_modules/@restatedev/restate-server-linux-x64/bin/restate-server")
}

/// Its version, for the record.
pub fn version(dir: &Path) -> String {
    super::first_line(Command::new(server(dir)).arg("--version")).unwrap_or_default()
}

/// A server and a service.
pub struct Restate {
    ingress: u16,
    // The service last: the server tells it to end.
    _server: Guarded,
    _service: Guarded,
}

/// Starts both, with their data in `data`.
pub fn start(dir: &Path, data: &Path) -> Result<Restate, Problem> {
    let [ingress, admin, node, service] = ports()?;
    // Beside its modules, where node looks for them.
    let script = dir.join("service.mjs");
    std::fs::write(&script, SERVICE)?;
    let mut command = Command::new("node");
    command.arg(&script).arg(service.to_string()).env("NODE_ENV", "production");
    let service_process = Guarded::start("the service", &mut command, &data.join("service.log"))?;
    let mut command = Command::new(server(dir));
    command
        .args(["--node-name", "bench", "--log-filter", "warn"])
        .arg("--base-dir")
        .arg(data.join("data"))
        .env("RESTATE_INGRESS__BIND_ADDRESS", format!("127.0.0.1:{ingress}"))
        .env("RESTATE_ADMIN__BIND_ADDRESS", format!("127.0.0.1:{admin}"))
        .env("RESTATE_BIND_ADDRESS", format!("127.0.0.1:{node}"))
        .env("RESTATE_ADVERTISED_ADDRESS", format!("http://127.0.0.1:{node}"))
        .env("DO_NOT_TRACK", "1");
    let mut server_process = Guarded::start("restate-server", &mut command, &data.join("server.log"))?;
    let healthy = |port, path: &str| {
        http::get(port, path, Duration::from_secs(1)).is_ok_and(|answer| answer.status == 200)
    };
    let up = wait_until(Duration::from_secs(60), Duration::from_millis(100), || {
        healthy(admin, "/health") && healthy(ingress, "/restate/health") && is_open(service)
    });
    server_process.must_live()?;
    if !up {
        return Err(
            format!("restate-server is not up after a minute:\n{}", server_process.last_words()).into()
        );
    }
    let body = format!("{{\"uri\":\"http://127.0.0.1:{service}\"}}");
    let status = Connection::open(admin)?.post("/deployments", &body)?;
    if !(200..300).contains(&status) {
        let words = server_process.last_words();
        return Err(format!("restate-server does not take the service ({status}):\n{words}").into());
    }
    Ok(Restate { ingress, _server: server_process, _service: service_process })
}

impl Restate {
    /// Lets `clients` run the pipeline one time after the other; returns how many runs there were a second.
    pub fn runs_per_s(&self, clients: usize, time: Duration) -> Result<f64, Problem> {
        let began = Instant::now();
        let threads: Vec<_> = (0..clients)
            .map(|_| {
                let ingress = self.ingress;
                std::thread::spawn(move || -> Result<u64, Problem> {
                    let mut connection = Connection::open(ingress)?;
                    let mut count = 0;
                    while began.elapsed() < time {
                        let status = connection.post("/Vault/run", "")?;
                        if status != 200 {
                            return Err(format!("restate answered {status}").into());
                        }
                        count += 1;
                    }
                    Ok(count)
                })
            })
            .collect();
        let mut count = 0;
        for thread in threads {
            count += thread.join().map_err(|_| "a client panicked")??;
        }
        Ok(count as f64 / began.elapsed().as_secs_f64())
    }
}

/// A connection that is kept open: who connects anew for each run would measure that.
struct Connection(BufReader<TcpStream>);

impl Connection {
    fn open(port: u16) -> Result<Connection, Problem> {
        let stream = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER))?;
        Ok(Connection(BufReader::new(stream)))
    }

    /// Posts, and returns the status.
    fn post(&mut self, path: &str, body: &str) -> Result<u16, Problem> {
        let kind = if body.is_empty() { "" } else { "Content-Type: application/json\r\n" };
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\n{kind}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.0.get_mut().write_all(request.as_bytes())?;
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        let status = line.split_ascii_whitespace().nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| format!("not HTTP: {line:?}"))?;
        let mut length = None;
        let mut chunked = false;
        loop {
            line.clear();
            self.0.read_line(&mut line)?;
            let header = line.trim_end().to_ascii_lowercase();
            match header.split_once(':') {
                None => break,
                Some(("content-length", value)) => length = value.trim().parse::<usize>().ok(),
                Some(("transfer-encoding", value)) => chunked = value.contains("chunked"),
                Some(_) => {}
            }
        }
        if chunked {
            while self.chunk()? > 0 {}
        } else {
            self.0.read_exact(&mut vec![0; length.unwrap_or(0)])?;
        }
        Ok(status)
    }

    fn chunk(&mut self) -> Result<usize, Problem> {
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        let size = usize::from_str_radix(line.trim(), 16)?;
        self.0.read_exact(&mut vec![0; size + 2])?;
        Ok(size)
    }
}

fn is_open(port: u16) -> bool {
    TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).is_ok()
}

/// Ports that were free a moment ago.
fn ports() -> Result<[u16; 4], Problem> {
    let listeners = [(); 4].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
    let mut ports = [0; 4];
    for (port, listener) in ports.iter_mut().zip(listeners) {
        *port = listener?.local_addr()?.port();
    }
    Ok(ports)
}
