//! Panics on this thread, those too that a task of tokio keeps to itself.

use std::{cell::Cell, panic, sync::Once};

thread_local! {
    static PANICS: Cell<usize> = const { Cell::new(0) };
}

/// Calls `body`; returns how many panics there were meanwhile as well.
pub(super) fn counted<T>(body: impl FnOnce() -> T) -> (T, usize) {
    static HOOKED: Once = Once::new();
    HOOKED.call_once(|| {
        let next = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            PANICS.set(PANICS.get() + 1);
            next(info);
        }));
    });
    let before = PANICS.get();
    let value = body();
    (value, PANICS.get() - before)
}
