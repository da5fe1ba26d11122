//! A `tracing` subscriber that makes a line of each event: its level and its fields. A module of the test
//! programs that check log lines.

use std::fmt::Write as _;
use std::sync::Once;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Installs the subscriber for this program: `record` receives the line of each event of the target
/// `vayu` for which `is_enabled` returns `true`.
pub(crate) fn install(is_enabled: fn(&Metadata<'_>) -> bool, record: fn(String)) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let recorder = Recorder { is_enabled, record };
        tracing::subscriber::set_global_default(recorder).expect("the only one");
    });
}

struct Recorder {
    is_enabled: fn(&Metadata<'_>) -> bool,
    record: fn(String),
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        write!(self.0, " {field}={value:?}").expect("a string takes everything");
    }
}

impl Subscriber for Recorder {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "vayu" && (self.is_enabled)(metadata)
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut line = Line(event.metadata().level().to_string());
        event.record(&mut line);
        (self.record)(line.0);
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}
