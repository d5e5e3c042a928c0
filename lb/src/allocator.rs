//! Where memory comes from, and when it goes back.
//!
//! The one file of this workspace with `unsafe` in it: calls of mimalloc, a C library.
#![allow(unsafe_code, reason = "an allocator cannot be told anything safely")]

use std::{
    alloc::{GlobalAlloc, Layout},
    ops::RangeInclusive,
    time::Duration,
};

use fastrand::Rng;
use mimalloc::MiMalloc;
use tokio::time::sleep;

/// Blocks of such a size, in bytes, share a page of 512 KiB in mimalloc, where pointers
/// have 64 bits. It stays resident, as far as it was ever used, until the last of them
/// is free.
const SHARED: RangeInclusive<usize> = 8 * 1024 + 1..=64 * 1024;

/// The smallest that has pages of its own.
const ROOM: usize = *SHARED.end() + 1;

/// How long what is free may stay, for the next who needs as much; in milliseconds.
/// Drawn anew each time: at even steps all threads would be busy with it at once, and
/// who looks at the memory as evenly would see one end of a saw's tooth for minutes,
/// and then the other.
const PERIOD: RangeInclusive<u64> = 500..=1500;

/// mimalloc, which is asked for a little more than 64 KiB where it is asked for more than
/// 8: a buffer that is free can be given back by itself, and what is never written of its
/// room takes no memory. A buffer that grows need not be moved.
#[derive(Debug)]
pub struct Allocator;

/// Whether a block of so many bytes would share a page.
fn is_shared(size: usize) -> bool {
    cfg!(target_pointer_width = "64") && SHARED.contains(&size)
}

fn roomy(layout: Layout) -> Layout {
    if !is_shared(layout.size()) {
        return layout;
    }
    Layout::from_size_align(ROOM, layout.align()).unwrap_or(layout)
}

// SAFETY: mimalloc knows each block by the layout that `roomy` makes of the caller's, in
// all four. That is as aligned and at least as large, so it is of no size only if the
// caller's is.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        unsafe { MiMalloc.alloc(roomy(layout)) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if !is_shared(layout.size()) {
            // SAFETY: `roomy` leaves it as it is.
            return unsafe { MiMalloc.alloc_zeroed(layout) };
        }
        // SAFETY: as above.
        let block = unsafe { self.alloc(layout) };
        if !block.is_null() {
            // SAFETY: it has as many bytes. Those behind them are nobody's.
            unsafe { block.write_bytes(0, layout.size()) };
        }
        block
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let size = if is_shared(size) { ROOM } else { size };
        // SAFETY: as above; `ROOM` is less than whatever overflows.
        unsafe { MiMalloc.realloc(block, roomy(layout), size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { MiMalloc.dealloc(block, roomy(layout)) };
    }
}

/// Gives back to the operating system what is free of this thread's memory and of
/// what ended threads have left, again and again, for ever, if the program allocates
/// by mimalloc. By itself that keeps a little more with each new peak of what is in
/// use. Called by whoever runs an event loop: the workers, the admin API, the thread
/// that cares for servers.
#[allow(
    clippy::disallowed_methods,
    reason = "a fork of the thread's generator, which a simulation seeds"
)]
pub(crate) async fn give_back() {
    let mut random = Rng::new();
    loop {
        sleep(Duration::from_millis(random.u64(PERIOD))).await;
        // SAFETY: any thread may call it at any time. It takes no pointer; the heap is
        // the caller's own, thread-local; what ended threads have left is claimed piece
        // by piece with atomics; a thread without a heap returns at once.
        unsafe { libmimalloc_sys::mi_collect(true) };
    }
}

#[cfg(test)]
mod tests {
    use procfs::process::{MemoryPageFlags, PageInfo, Process};

    use super::*;

    /// Around all edges.
    const SIZES: [usize; 10] =
        [1, 8 * 1024, 8 * 1024 + 1, 10_000, 64 * 1024, ROOM, ROOM + 5000, 1 << 20, 40_000, 100];

    fn layout(size: usize, align: usize) -> Layout {
        Layout::from_size_align(size, align).unwrap()
    }

    #[track_caller]
    fn check(block: *mut u8, size: usize, align: usize, content: u8) {
        // SAFETY: so many bytes are the block's, as is asserted first.
        unsafe {
            assert!(libmimalloc_sys::mi_usable_size(block.cast()) >= size, "{size} {align}");
            assert_eq!(block.align_offset(align), 0, "{size} {align}");
            assert!((0..size).all(|at| *block.add(at) == content), "{size} {align}");
        }
    }

    #[test]
    fn what_was_written_stays_whatever_the_block_grows_or_shrinks_to() {
        let aligns = [1, 8, 64, 4096, 1 << 17];
        for (align, begin) in aligns.into_iter().flat_map(|align| SIZES.map(|size| (align, size))) {
            // SAFETY: no more is written than was asked for.
            unsafe {
                let mut size = begin;
                let mut block = Allocator.alloc_zeroed(layout(size, align));
                check(block, size, align, 0);
                for next in SIZES {
                    block.write_bytes(7, size);
                    block = Allocator.realloc(block, layout(size, align), next);
                    check(block, size.min(next), align, 7);
                    size = next;
                    block.write_bytes(7, size);
                    check(block, size, align, 7);
                }
                Allocator.dealloc(block, layout(size, align));
            }
        }
    }

    #[test]
    fn zeros_are_written_where_somebody_else_wrote() {
        for size in SIZES {
            // SAFETY: as above.
            unsafe {
                let used = Allocator.alloc(layout(size, 1));
                used.write_bytes(7, size);
                Allocator.dealloc(used, layout(size, 1));
                let block = Allocator.alloc_zeroed(layout(size, 1));
                check(block, size, 1, 0);
                Allocator.dealloc(block, layout(size, 1));
            }
        }
    }

    #[test]
    fn a_buffer_that_grows_within_its_room_is_not_moved() {
        // SAFETY: as above.
        unsafe {
            let block = Allocator.alloc(layout(100, 1));
            let block = Allocator.realloc(block, layout(100, 1), 10_000);
            let grown = Allocator.realloc(block, layout(10_000, 1), 64 * 1024);
            assert_eq!(block, grown);
            Allocator.dealloc(grown, layout(64 * 1024, 1));
        }
    }

    /// How many of the pages from `block` on are resident.
    fn resident(block: *mut u8, size: usize) -> usize {
        let page = usize::try_from(procfs::page_size()).unwrap();
        let pages = block.addr() / page..(block.addr() + size).div_ceil(page);
        let infos = Process::myself().unwrap().pagemap().unwrap().get_range_info(pages).unwrap();
        let is_present = |info: &PageInfo| match info {
            PageInfo::MemoryPage(flags) => flags.contains(MemoryPageFlags::PRESENT),
            PageInfo::SwapPage(_) => false,
        };
        infos.iter().filter(|info| is_present(info)).count()
    }

    #[test]
    fn each_free_buffer_is_given_back_though_its_neighbours_are_in_use() {
        for size in [10_000, 64 * 1024] {
            // SAFETY: as above; a freed block's address is looked at, not what is there.
            unsafe {
                let blocks = [(); 16].map(|()| Allocator.alloc(layout(size, 1)));
                for block in blocks {
                    block.write_bytes(7, size);
                    assert!(resident(block, size) >= size / 4096, "{size}");
                }
                for block in blocks.into_iter().step_by(2) {
                    Allocator.dealloc(block, layout(size, 1));
                }
                libmimalloc_sys::mi_collect(true);
                for pair in blocks.chunks(2) {
                    assert_eq!(resident(pair[0], size), 0, "{size}");
                    check(pair[1], size, 1, 7);
                    Allocator.dealloc(pair[1], layout(size, 1));
                }
            }
        }
    }
}
