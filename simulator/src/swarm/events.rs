//! What is logged as an error during a run: the system says itself that something is wrong that must not be.

use std::fmt::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// The first `error!` event while a watch stands in this thread.
#[derive(Clone, Debug, Default)]
pub(super) struct Watch(Arc<Mutex<Option<String>>>);

impl Watch {
    /// Watches over `f`. Nobody else sees what is logged in it, in this thread.
    pub(super) fn over<T>(&self, f: impl FnOnce() -> T) -> T {
        tracing::subscriber::with_default(self.clone(), f)
    }

    /// The first error: what it said, and its fields.
    pub(super) fn first(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Subscriber for Watch {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() == Level::ERROR
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::ERROR)
    }

    fn event(&self, event: &Event<'_>) {
        let mut first = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert_with(|| {
            let mut text = Text(event.metadata().target().to_owned());
            event.record(&mut text);
            text.0
        });
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        // No span is enabled, so nobody asks for one.
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// An event in one line.
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let written = match field.name() {
            "message" => write!(self.0, ": {value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
        // A string takes everything.
        _ = written;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_error_is_kept_with_its_fields() {
        let watch = Watch::default();
        let result = watch.over(|| {
            tracing::warn!("not so bad");
            assert_eq!(watch.first(), None);
            tracing::error!(index = 7, "it broke");
            tracing::error!("it broke again");
            8
        });
        assert_eq!(result, 8);
        tracing::error!("nobody watches");
        let first = watch.first().unwrap();
        assert!(first.contains("it broke") && first.contains("index=7") && !first.contains("again"), "{first}");
    }
}
