//! What backends on servers have in common: options, a circuit breaker, log lines of outages, a background runtime, and the
//! bytes of entries and generations.

mod at_server;
mod breaker;
mod entry_codec;
mod generation;
mod options;
mod outages;
mod process;
mod random;
mod runtime;

pub use self::at_server::AtServer;
pub use self::breaker::{Breaker, CircuitOpen, DetachedPermit, Failed, Permit};
pub use self::entry_codec::EntryCodec;
pub use self::generation::{generation_name, new_generation, parse_generation};
pub use self::options::RemoteOptions;
pub use self::outages::ServerOutages;
pub use self::process::Process;
pub use self::random::{jittered, random_bytes};
pub use self::runtime::BackgroundRuntime;
