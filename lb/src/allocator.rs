//! What the memory allocator keeps of what is free. Called by whoever runs an event
//! loop: the workers, the admin API, the thread that cares for servers.
//!
//! The one file of this workspace with `unsafe` in it: a call of a C library.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

/// How long what is free may stay, for the next who needs as much.
const PERIOD: Duration = Duration::from_secs(1);

/// Gives back to the operating system what is free of this thread's memory and of
/// what ended threads have left, again and again, for ever, if the program allocates
/// by mimalloc. By itself that keeps a little more with each new peak of what is in
/// use.
#[allow(unsafe_code, reason = "mimalloc has no safe way to give memory back")]
pub(crate) async fn give_back() {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // SAFETY: any thread may call it at any time. It takes no pointer; the heap is
        // the caller's own, thread-local; what ended threads have left is claimed piece
        // by piece with atomics; a thread without a heap returns at once.
        unsafe { libmimalloc_sys::mi_collect(true) };
    }
}
