//! Panics as a verdict: with message and place, and without a backtrace on the terminal for each.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    /// While a run is under way in this thread: what panicked where.
    static CAUGHT: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs `f`; a panic in it becomes its message and place.
pub(super) fn catch<T>(f: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let previous = take_hook();
        set_hook(Box::new(move |info| {
            let running =
                CAUGHT.with_borrow_mut(|caught| caught.as_mut().map(|caught| *caught = describe(info)).is_some());
            if !running {
                previous(info);
            }
        }));
    });
    CAUGHT.set(Some(String::new()));
    let result = catch_unwind(AssertUnwindSafe(f));
    let caught = CAUGHT.take().unwrap_or_default();
    result.map_err(|_| caught)
}

fn describe(info: &PanicHookInfo<'_>) -> String {
    let payload = info.payload();
    let text = payload.downcast_ref::<&str>().copied().map(str::to_owned);
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default();
    match info.location() {
        Some(place) => format!("{text} ({}:{})", place.file(), place.line()),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_told_with_its_place() {
        assert_eq!(catch(|| 7), Ok(7));
        let told = catch(|| panic!("of all things")).unwrap_err();
        assert!(told.starts_with("of all things (") && told.contains("panics.rs"), "{told}");
    }
}
