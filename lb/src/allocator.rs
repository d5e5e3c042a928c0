//! The memory allocator of the program, and how it deals with what is free.
//!
//! The one file of this workspace with `unsafe` in it: the name of a static, which
//! jemalloc looks for.

use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// What is free goes back to the operating system within a second, also from threads
/// that do nothing, and buffers of bodies are not kept apart by each thread: what is
/// resident is what is in use. Otherwise it grows a little with each new peak.
///
/// `background_thread`, `max_background_threads`: one thread gives back. `dirty_decay_ms`,
/// `muzzy_decay_ms`: how long what is free may stay. `lg_tcache_max`: the binary
/// logarithm of the largest that a thread keeps for itself. `thp`: no huge pages, of
/// which only the first page would ever be used.
const OPTIONS: &[u8] = b"background_thread:true,max_background_threads:1,\
    dirty_decay_ms:1000,muzzy_decay_ms:0,lg_tcache_max:12,thp:never\0";

// SAFETY: jemalloc declares this name as a pointer to such a text, for programs to
// define; nothing else has a name with its prefix.
#[allow(unsafe_code, reason = "jemalloc has no safe way to be told its options")]
#[unsafe(export_name = "_rjem_malloc_conf")]
#[used]
static MALLOC_CONF: &[u8; OPTIONS.len()] = OPTIONS.first_chunk().unwrap();
