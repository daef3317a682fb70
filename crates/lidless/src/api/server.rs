//! Where does the daemon listen? On a Unix socket for the command line, and on loopback for metrics.

use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::gate::{Gate, LIMITS, Peer};
use super::hooks::Hooks;
use super::routes::{self, Context};
use crate::runtime::Handle;

/// How long answers under way may still take at the end.
const END_WITHIN: Duration = Duration::from_secs(2);

/// Why the daemon cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Another lidless listens there.
    #[error("another lidless listens on {0}")]
    Taken(PathBuf),
    /// Something that is no socket lies there.
    #[error("{0} is in the way: it is not a socket")]
    InTheWay(PathBuf),
    /// The system refused.
    #[error("cannot listen on {at}")]
    Listen {
        /// Where.
        at: String,
        /// Why.
        #[source]
        err: std::io::Error,
    },
}

/// The listeners, bound but not yet serving.
pub struct Server {
    /// Before the listener, so that it goes before it.
    file: SocketFile,
    unix: UnixListener,
    tcp: Option<TcpListener>,
}

impl Server {
    /// Binds both listeners.
    pub async fn bind(path: &Path, web: Option<SocketAddr>) -> Result<Server, ServeError> {
        let listen = |at: String| move |err| ServeError::Listen { at, err };
        clear(path).await?;
        if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            std::fs::create_dir_all(dir).map_err(listen(dir.display().to_string()))?;
        }
        let unix = UnixListener::bind(path).map_err(listen(path.display().to_string()))?;
        let file = SocketFile::of(&unix, path).map_err(listen(path.display().to_string()))?;
        // Everybody may look; what a peer may do is decided by its uid. The directory can be closed further.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))
            .map_err(listen(path.display().to_string()))?;
        let tcp = match web {
            None => None,
            Some(addr) => Some(TcpListener::bind(addr).await.map_err(listen(addr.to_string()))?),
        };
        Ok(Server { unix, file, tcp })
    }

    /// Where metrics are served, if they are.
    pub fn web(&self) -> Option<SocketAddr> {
        self.tcp.as_ref().and_then(|tcp| tcp.local_addr().ok())
    }

    /// Serves until `over`. From `stop` on, whoever asks is told that lidless is ending.
    pub async fn serve(
        self,
        handle: Handle,
        journal: Option<PathBuf>,
        hooks: Hooks,
        stop: CancellationToken,
        over: CancellationToken,
    ) {
        let (followers, hooks) = (Arc::new(Semaphore::new(routes::FOLLOWERS_MAX)), Arc::new(hooks));
        let context = Context { handle, journal, stop, followers, hooks };
        let mut servers = JoinSet::new();
        let local = routes::local(context.clone()).into_make_service_with_connect_info::<Peer>();
        let ended = over.clone().cancelled_owned();
        servers.spawn(async move {
            axum::serve(Gate::new(self.unix, LIMITS), local).with_graceful_shutdown(ended).await
        });
        if let Some(tcp) = self.tcp {
            let public = routes::web(context).into_make_service_with_connect_info::<Peer>();
            let ended = over.clone().cancelled_owned();
            servers.spawn(async move {
                axum::serve(Gate::new(tcp, LIMITS), public).with_graceful_shutdown(ended).await
            });
        }
        over.cancelled().await;
        // First the place, then the listeners: who finds the socket finds somebody behind it.
        drop(self.file);
        let ending = async { while servers.join_next().await.is_some() {} };
        drop(tokio::time::timeout(END_WITHIN, ending).await);
        servers.shutdown().await;
    }
}

/// Our socket's place in the file system, given back when it is dropped; whatever else lies there by then stays.
struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
    /// While the socket lives, its inode's number is nobody else's.
    _socket: OwnedFd,
}

impl SocketFile {
    fn of(listener: &UnixListener, path: &Path) -> std::io::Result<SocketFile> {
        let found = std::fs::symlink_metadata(path)?;
        let socket = listener.as_fd().try_clone_to_owned()?;
        Ok(SocketFile { path: path.to_owned(), device: found.dev(), inode: found.ino(), _socket: socket })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_ours = std::fs::symlink_metadata(&self.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == (self.device, self.inode));
        if is_ours {
            drop(std::fs::remove_file(&self.path));
        }
    }
}

/// Removes the socket of a lidless that is gone; refuses one that lives, and anything that is no socket.
async fn clear(path: &Path) -> Result<(), ServeError> {
    let Ok(found) = std::fs::symlink_metadata(path) else { return Ok(()) };
    if !found.file_type().is_socket() {
        return Err(ServeError::InTheWay(path.to_owned()));
    }
    if UnixStream::connect(path).await.is_ok() {
        return Err(ServeError::Taken(path.to_owned()));
    }
    std::fs::remove_file(path).map_err(|err| ServeError::Listen { at: path.display().to_string(), err })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_goes_with_its_server_and_that_of_a_successor_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lidless.sock");
        drop(Server::bind(&path, None).await.unwrap());
        assert!(!path.exists(), "its own is left behind");
        let ending = Server::bind(&path, None).await.unwrap();
        std::fs::remove_file(&path).unwrap();
        let successor = Server::bind(&path, None).await.unwrap();
        drop(ending);
        assert!(UnixStream::connect(&path).await.is_ok(), "the successor's was deleted");
        drop(successor);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_port_in_use_leaves_no_socket_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lidless.sock");
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let refused = Server::bind(&path, Some(taken.local_addr().unwrap())).await;
        assert!(matches!(refused, Err(ServeError::Listen { .. })));
        assert!(!path.exists());
    }
}
