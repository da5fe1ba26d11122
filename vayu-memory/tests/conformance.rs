//! The memory backends have the properties that the engine relies on.

use vayu_core::ByReference;
use vayu_memory::{MemoryBackend, MemoryOptions};

vayu_core::backend_tests! {
    memory,
    ByReference,
    |clock| ((), MemoryBackend::with_options(MemoryOptions::new().clock(clock))),
    reopen = |(), clock| MemoryBackend::with_options(MemoryOptions::new().clock(clock))
}

#[cfg(feature = "moka")]
vayu_core::backend_tests! {
    moka,
    ByReference,
    |clock| ((), vayu_memory::MokaBackend::with_options(MemoryOptions::new().clock(clock))),
    reopen = |(), clock| vayu_memory::MokaBackend::with_options(MemoryOptions::new().clock(clock))
}
