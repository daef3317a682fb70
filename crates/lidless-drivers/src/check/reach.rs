//! How is a target reached? Name to addresses, and the addresses tried in turn until one connects.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use lidless_core::check::FailureKind;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::resolve;
use super::verdict::Trouble;
use super::wording::Short;

/// Where a target listens.
#[derive(Debug)]
pub(crate) enum Target {
    /// The addresses are known: an IP literal, or `localhost`.
    Fixed(Vec<SocketAddr>),
    /// A name that is looked up at each probe.
    Named(Named),
}

/// A name to look up.
#[derive(Debug)]
pub(crate) struct Named {
    host: Arc<str>,
    port: u16,
}

impl Target {
    /// Takes a host as it stands in a URL: a name, an IPv4 address, or an IPv6 address with or without brackets.
    pub(crate) fn new(host: &str, port: u16) -> Self {
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if let Ok(ip) = bare.parse::<IpAddr>() {
            return Target::Fixed(vec![SocketAddr::new(ip, port)]);
        }
        // The name is loopback by definition (RFC 6761), and a broken resolver must not hide a local service from us.
        if bare.eq_ignore_ascii_case("localhost") {
            let both = [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)];
            return Target::Fixed(both.map(|ip| SocketAddr::new(ip, port)).into());
        }
        Target::Named(Named { host: bare.into(), port })
    }

    /// Returns the addresses, never none. A name that cannot be resolved is our trouble: the target was not asked.
    pub(crate) async fn addresses(&self) -> Result<Cow<'_, [SocketAddr]>, Trouble> {
        match self {
            Target::Fixed(addresses) => Ok(Cow::Borrowed(addresses)),
            Target::Named(name) => name.look_up().await.map(Cow::Owned),
        }
    }

    /// Says whether a look-up is part of each probe.
    pub(crate) fn is_named(&self) -> bool {
        matches!(self, Target::Named(_))
    }
}

impl Named {
    async fn look_up(&self) -> Result<Vec<SocketAddr>, Trouble> {
        let failed = |why: &str| Trouble::ours(format!("cannot resolve `{}`: {why}", self.host));
        match resolve::SYSTEM.look_up(&self.host).await {
            Ok(addresses) if addresses.is_empty() => Err(failed("no addresses")),
            Ok(addresses) => {
                let mut addresses = addresses.to_vec();
                addresses.iter_mut().for_each(|address| address.set_port(self.port));
                Ok(addresses)
            }
            Err(why) => {
                Err(failed(why.strip_prefix("failed to lookup address information: ").unwrap_or(&why)))
            }
        }
    }
}

/// Connects to the first address that answers.
///
/// Each address but the last gets its equal share of the time left, so that one that swallows packets does not hide the
/// next; the last one has no timer of its own, since the probe's deadline stands over all of this.
pub(crate) async fn connect(
    addresses: &[SocketAddr],
    started: Instant,
    timeout: Duration,
) -> Result<TcpStream, Trouble> {
    let mut telling: Option<Trouble> = None;
    for (tried, address) in addresses.iter().enumerate() {
        let others = u32::try_from(addresses.len() - tried - 1).unwrap_or(u32::MAX);
        let attempt = if others == 0 {
            connect_one(*address).await
        } else {
            let share = timeout.saturating_sub(started.elapsed()) / others.saturating_add(1);
            tokio::time::timeout(share, connect_one(*address)).await.unwrap_or_else(|_| {
                let detail = format!("no connection within {}", Short(share));
                Err(Trouble::target(FailureKind::Timeout, detail))
            })
        };
        match attempt {
            Ok(stream) => return Ok(stream),
            // The first of those that tell most.
            Err(trouble) if telling.as_ref().is_none_or(|most| trouble.tells() > most.tells()) => {
                telling = Some(trouble);
            }
            Err(_) => {}
        }
    }
    Err(telling.unwrap_or_else(|| Trouble::ours("no address to connect to")))
}

async fn connect_one(address: SocketAddr) -> Result<TcpStream, Trouble> {
    let stream = TcpStream::connect(address).await.map_err(|err| Trouble::from_io(&err))?;
    // A reset instead of a farewell: no socket of ours lingers in TIME_WAIT, whatever the rate of probes. It can only fail
    // on a socket that is gone already, and then there is nothing to linger.
    let _ = stream.set_zero_linger();
    // A port of the ephemeral range with nobody listening can be connected to itself (both ends open at once). That would
    // read as "up" and, if kept, would take the port from the service that wants it back.
    match stream.local_addr() {
        Ok(local) if local == address => Err(Trouble::target(FailureKind::Refused, "connection refused")),
        Ok(_) | Err(_) => Ok(stream),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_refusal_is_told_whatever_the_other_addresses_say() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("loopback is there");
        let closed = listener.local_addr().expect("it is bound");
        drop(listener);
        // No TCP connection goes to a group: the kernel says so as it does without a route.
        let unreachable: SocketAddr = "224.0.0.1:80".parse().expect("an address");
        for addresses in [[unreachable, closed], [closed, unreachable]] {
            let trouble = connect(&addresses, Instant::now(), Duration::from_secs(10)).await.err();
            assert!(
                matches!(trouble, Some(Trouble::Target { kind: FailureKind::Refused, .. })),
                "{addresses:?}: {trouble:?}"
            );
        }
    }
}
