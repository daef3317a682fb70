//! Is what the tests and benches need on this machine? Looks first, installs only what is missing.

use crate::shell;

/// A Debian package, and the program that tells that it is there.
struct Package {
    name: &'static str,
    program: &'static str,
    why: &'static str,
}

const TESTS: [Package; 6] = [
    Package {
        name: "debootstrap",
        program: "debootstrap",
        why: "the root of the test hosts that run a real systemd",
    },
    Package { name: "iproute2", program: "ip", why: "the network of those hosts" },
    Package { name: "util-linux", program: "unshare", why: "their namespaces" },
    Package { name: "procps", program: "ps", why: "to look at processes from outside" },
    Package { name: "openssl", program: "openssl", why: "certificates, good and bad, for the TLS tests" },
    Package { name: "python3", program: "python3", why: "small servers that are not ours" },
];

const BENCHES: [Package; 2] = [
    Package { name: "monit", program: "monit", why: "a peer to compare with" },
    Package { name: "python3-venv", program: "", why: "a place for supervisor and superlance" },
];

/// The peers from PyPI; pinned, for a figure without a version is no figure.
const PEERS: [&str; 3] = ["setuptools<81", "supervisor==4.3.0", "superlance==2.0.0"];

/// The peer from npm, and what a service of it is written with.
const RESTATE: [&str; 2] = ["@restatedev/restate-server-linux-x64@1.7.12", "@restatedev/restate-sdk@1.17.2"];

/// Installs with apt and starts no daemon: a bench starts its own, and a machine's owner did not ask for one.
///
/// `apt-get update` runs only when the lists at hand did not do. The trap takes the policy away again, also on ^C.
const APT: &str = r#"
set -eu
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  trap 'rm -f "$policy"' EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod 755 "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
get() { apt-get -q -o DPkg::Lock::Timeout=120 -o Acquire::Retries=3 "$@"; }
get install -y --no-install-recommends "$@" && exit 0
echo "xtask: not with the package lists at hand; fetching them anew"
get update
get install -y --no-install-recommends "$@"
"#;

/// Installs what the tests need, or says what is missing.
pub(crate) fn for_tests() -> Result<(), String> {
    packages(&TESTS)
}

/// Installs the peers that the benches compare with.
pub(crate) fn for_benches() -> Result<(), String> {
    packages(&BENCHES)?;
    peers()?;
    restate()
}

fn packages(wanted: &[Package]) -> Result<(), String> {
    let missing: Vec<&Package> = wanted.iter().filter(|package| !is_there(package)).collect();
    if missing.is_empty() {
        println!("xtask: all {} packages are there", wanted.len());
        return Ok(());
    }
    for package in &missing {
        println!("xtask: {} is missing: {}", package.name, package.why);
    }
    let names: Vec<&str> = missing.iter().map(|package| package.name).collect();
    let by_hand = format!("as root:  apt-get update && apt-get install {}", names.join(" "));
    if shell::find("apt-get").is_none() {
        return Err(format!("there is no apt-get here; please install {}", names.join(", ")));
    }
    let mut apt = if shell::is_root() {
        shell::command("sh")
    } else if shell::succeeds("sudo", &["-n", "true"]) {
        let mut sudo = shell::command("sudo");
        sudo.args(["-n", "sh"]);
        sudo
    } else {
        return Err(format!("neither root nor sudo without a password. {by_hand}"));
    };
    let status = apt.args(["-c", APT, "xtask"]).args(&names).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("apt-get failed ({status}). {by_hand}")),
        Err(err) => Err(format!("cannot run apt-get: {err}. {by_hand}")),
    }
}

/// The program counts, wherever it came from; a package without one is asked of dpkg.
fn is_there(package: &Package) -> bool {
    if !package.program.is_empty() && shell::find(package.program).is_some() {
        return true;
    }
    let asked = ["-W", "-f", "${db:Status-Status}", package.name];
    shell::output("dpkg-query", &asked).is_ok_and(|status| status == "installed")
}

fn peers() -> Result<(), String> {
    let venv = shell::root().join("target/bench-venv");
    let python = venv.join("bin/python").display().to_string();
    if shell::succeeds(&python, &["-c", "import supervisor, superlance"]) {
        println!("xtask: supervisor and superlance are in {}", venv.display());
        return Ok(());
    }
    // Debian's own Python, for that is the one python3-venv belongs to.
    let made = shell::command("/usr/bin/python3").args(["-m", "venv", "--clear"]).arg(&venv).status();
    if !made.is_ok_and(|status| status.success()) {
        return Err(format!("cannot make {}", venv.display()));
    }
    match shell::command(&python).args(["-m", "pip", "install", "--quiet"]).args(PEERS).status() {
        Ok(status) if status.success() => {
            println!("xtask: supervisor and superlance are in {}", venv.display());
            Ok(())
        }
        Ok(status) => Err(format!("pip could not install {} ({status})", PEERS.join(", "))),
        Err(err) => Err(format!("cannot run {python}: {err}")),
    }
}

/// One bench of several needs it, and not every machine has node: without it that bench says so and leaves it out.
fn restate() -> Result<(), String> {
    let dir = shell::root().join("target/bench-restate");
    let there = |name: &str| dir.join("node_modules/@restatedev").join(name).is_dir();
    if there("restate-server-linux-x64") && there("restate-sdk") {
        println!("xtask: restate is in {}", dir.display());
        return Ok(());
    }
    if shell::find("node").is_none() || shell::find("npm").is_none() {
        println!("xtask: restate is left out: there is no node and npm here");
        return Ok(());
    }
    // Without a package.json npm would look for one in the folders above.
    std::fs::create_dir_all(&dir)
        .and_then(|()| std::fs::write(dir.join("package.json"), "{\"private\": true}\n"))
        .map_err(|err| format!("cannot make {}: {err}", dir.display()))?;
    let mut npm = shell::command("npm");
    match npm.args(["install", "--no-fund", "--no-audit", "--prefix"]).arg(&dir).args(RESTATE).status() {
        Ok(status) if status.success() => {
            println!("xtask: restate is in {}", dir.display());
            Ok(())
        }
        Ok(status) => Err(format!("npm could not install {} ({status})", RESTATE.join(", "))),
        Err(err) => Err(format!("cannot run npm: {err}")),
    }
}
