//! How does lidless run a service itself? As a process that outlives lidless and is never started twice.
//!
//! * [`instance`]: which process is it? pid *and* start time, never a pid alone.
//! * `family`: who belongs to an instance?
//! * [`orphan`]: which processes run on though no configured service is theirs?
//! * [`slot`]: what is remembered of it on disk, so that the next lidless adopts it.
//! * [`launch`]: the launcher, a second role of our own binary, that records itself before it becomes the service.
//! * `log`: where its output goes.
//! * [`spawn`]: how lidless starts that launcher and learns what came of it.
//! * [`managed`]: what lidless knows of the process, and how it learns at once that the process ended.
//! * [`settings`], [`start`]: how it is run, and how a new instance comes to be.
//! * [`stop`]: how an instance is ended, and proved gone with its family.
//! * [`user`], [`signal`]: names to numbers.

mod family;
pub(crate) mod handle;
pub mod instance;
pub mod launch;
mod log;
pub mod managed;
pub mod orphan;
pub mod settings;
pub mod signal;
pub mod slot;
pub mod spawn;
pub mod start;
pub mod stop;
pub mod user;

pub use launch::{LAUNCH_COMMAND, launch_main};
pub use managed::{ManagedProcess, ProcessError, ProcessState};
pub use orphan::Orphan;
pub use settings::{ProcessSettings, StopSettings};
pub use signal::Exit;
pub use spawn::Launcher;
pub use start::{StartError, Started};
pub use stop::{StopError, Stopped};
