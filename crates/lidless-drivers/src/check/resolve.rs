//! What are the addresses of a name? Asks the system's resolver, for each name once at a time, and for few names at once.
//!
//! `getaddrinfo` blocks its thread, and cannot be cut short. With a name server that is dead each look-up takes half a
//! minute, and the threads are those that also start and stop processes: without a bound, a dead resolver would delay the
//! heals of services that need no resolver at all.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Semaphore, SemaphorePermit, watch};

/// Look-ups at once, of all checks together. Tokio has 512 threads for what blocks: the others stay free.
const AT_ONCE_MAX: usize = 64;

/// The system's resolver.
pub(super) static SYSTEM: Resolver = Resolver::new(AT_ONCE_MAX, getaddrinfo);

/// What a look-up found: addresses with port 0, perhaps none, or why there are none.
type Answer = Result<Arc<[SocketAddr]>, Arc<str>>;

/// A way to ask, the room for it, and what is being asked.
#[derive(Debug)]
pub(super) struct Resolver {
    ask: fn(&str) -> io::Result<Vec<SocketAddr>>,
    room: Semaphore,
    /// The look-ups under way. Their askers may have gone: a look-up ends when it ends.
    under_way: Mutex<BTreeMap<Arc<str>, watch::Receiver<Option<Answer>>>>,
}

impl Resolver {
    const fn new(at_once_max: usize, ask: fn(&str) -> io::Result<Vec<SocketAddr>>) -> Resolver {
        Resolver { ask, room: Semaphore::const_new(at_once_max), under_way: Mutex::new(BTreeMap::new()) }
    }

    /// Returns the addresses of a name. Waits for room, and has no deadline: that is the caller's.
    pub(super) async fn look_up(&'static self, host: &Arc<str>) -> Answer {
        let mut answer = match self.joined(host) {
            Some(answer) => answer,
            None => match self.room.acquire().await {
                Ok(room) => self.begin(host, room),
                Err(_) => return Err("the resolver was closed".into()),
            },
        };
        match answer.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(answer)) => answer.clone(),
            Ok(None) | Err(_) => Err("the look-up was cut short".into()),
        }
    }

    fn joined(&self, host: &str) -> Option<watch::Receiver<Option<Answer>>> {
        self.lock().get(host).cloned()
    }

    /// Begins a look-up, unless another asker of the same name was given room first.
    fn begin(
        &'static self,
        host: &Arc<str>,
        room: SemaphorePermit<'static>,
    ) -> watch::Receiver<Option<Answer>> {
        let mut under_way = self.lock();
        if let Some(answer) = under_way.get(host) {
            return answer.clone();
        }
        let (found, answer) = watch::channel(None);
        under_way.insert(Arc::clone(host), answer.clone());
        let asked = Asked { resolver: self, host: Arc::clone(host), found, _room: room };
        tokio::task::spawn_blocking(move || {
            let answer = (self.ask)(&asked.host).map(Arc::from).map_err(|err| err.to_string().into());
            // Those who wanted to know may have given up.
            let _ = asked.found.send(Some(answer));
        });
        answer
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, watch::Receiver<Option<Answer>>>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A look-up's place in the list, and its room: both are given back when it really ends, or will never begin.
struct Asked {
    resolver: &'static Resolver,
    host: Arc<str>,
    found: watch::Sender<Option<Answer>>,
    _room: SemaphorePermit<'static>,
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.resolver.lock().remove(&self.host);
    }
}

fn getaddrinfo(host: &str) -> io::Result<Vec<SocketAddr>> {
    Ok((host, 0).to_socket_addrs()?.collect())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::Condvar;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use futures_util::future::join_all;
    use tokio::time::timeout;

    use super::*;

    const PLENTY: Duration = Duration::from_secs(20);
    const SHORT: Duration = Duration::from_millis(50);

    /// A name server that is silent until it is told to answer. Tests of one process share it, each under its own names.
    struct Silent {
        answers: Mutex<bool>,
        told: Condvar,
        asked: AtomicUsize,
        asking: AtomicUsize,
    }

    fn localhost() -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
    }

    impl Silent {
        const fn new() -> Silent {
            Silent {
                answers: Mutex::new(false),
                told: Condvar::new(),
                asked: AtomicUsize::new(0),
                asking: AtomicUsize::new(0),
            }
        }

        fn ask(&self) -> io::Result<Vec<SocketAddr>> {
            self.asked.fetch_add(1, Ordering::SeqCst);
            self.asking.fetch_add(1, Ordering::SeqCst);
            let answers = self.answers.lock().unwrap();
            drop(self.told.wait_timeout_while(answers, PLENTY, |answers| !*answers).unwrap());
            self.asking.fetch_sub(1, Ordering::SeqCst);
            Ok(vec![localhost()])
        }

        fn answer(&self) {
            *self.answers.lock().unwrap() = true;
            self.told.notify_all();
        }
    }

    async fn until(what: &str, mut holds: impl FnMut() -> bool) {
        let looking = async {
            while !holds() {
                tokio::task::yield_now().await;
            }
        };
        timeout(PLENTY, looking).await.unwrap_or_else(|_| panic!("never: {what}"));
    }

    #[tokio::test]
    async fn a_dead_name_server_holds_few_threads_and_no_asker_beyond_its_deadline() {
        static DEAD: Silent = Silent::new();
        static FEW: Resolver = Resolver::new(3, |_| DEAD.ask());
        let names: Vec<Arc<str>> = (0..50).map(|name| format!("name-{name}").into()).collect();
        let asked = names.iter().map(|name| timeout(SHORT, FEW.look_up(name)));
        assert!(join_all(asked).await.iter().all(Result::is_err), "nobody answers");
        let again = names.iter().map(|name| timeout(SHORT, FEW.look_up(name)));
        assert!(join_all(again).await.iter().all(Result::is_err), "still nobody");
        assert_eq!(DEAD.asked.load(Ordering::SeqCst), 3, "more threads than there is room");
        DEAD.answer();
        until("the room is given back", || FEW.room.available_permits() == 3).await;
        assert!(FEW.lock().is_empty(), "look-ups that are over are forgotten");
        assert_eq!(*FEW.look_up(&names[49]).await.unwrap(), [localhost()]);
    }

    #[tokio::test]
    async fn askers_of_one_name_share_one_look_up() {
        static SLOW: Silent = Silent::new();
        static WIDE: Resolver = Resolver::new(8, |_| SLOW.ask());
        let name: Arc<str> = "shared".into();
        let asked = join_all((0..100).map(|_| WIDE.look_up(&name)));
        let answering = async {
            until("it is being asked", || SLOW.asking.load(Ordering::SeqCst) > 0).await;
            SLOW.answer();
        };
        let (answers, ()) = timeout(PLENTY, async { tokio::join!(asked, answering) }).await.unwrap();
        assert!(answers.iter().all(|answer| answer.as_ref().is_ok_and(|addresses| addresses.len() == 1)));
        assert_eq!(SLOW.asked.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_look_up_that_never_began_is_not_waited_for() {
        static GONE: Silent = Silent::new();
        static ONE: Resolver = Resolver::new(2, |_| GONE.ask());
        let runtime = || {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            builder.enable_time().max_blocking_threads(1).build().unwrap()
        };
        let (first, second): (Arc<str>, Arc<str>) = ("first".into(), "second".into());
        let ended = runtime();
        ended.block_on(async {
            drop(timeout(SHORT, async { tokio::join!(ONE.look_up(&first), ONE.look_up(&second)) }).await);
        });
        ended.shutdown_background();
        GONE.answer();
        let later = runtime();
        later.block_on(async {
            let joined = timeout(PLENTY, ONE.look_up(&second)).await;
            assert!(joined.is_ok(), "it hangs on what will never come");
            assert!(timeout(PLENTY, ONE.look_up(&second)).await.unwrap().is_ok());
        });
    }
}
