//! Memory for matrices: 64-byte aligned, zeroed, on huge pages where the system allows.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// A fixed-size f32 array, aligned to a cache line (64 bytes).
///
/// From 2 MiB on it is aligned to a huge page and asks the kernel for huge pages: the weight
/// and optimiser arrays otherwise need more page-table entries than the first-level TLB holds.
pub struct Buffer {
    start: NonNull<f32>,
    len: usize,
}

const CACHE_LINE: usize = 64;
const HUGE_PAGE: usize = 2 << 20;

impl Buffer {
    /// `len` zeros.
    pub fn zeroed(len: usize) -> Self {
        let layout = Self::layout(len);
        // SAFETY: `layout` is never of size zero.
        let start = unsafe { alloc(layout) };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        #[cfg(target_os = "linux")]
        if layout.align() == HUGE_PAGE {
            // SAFETY: the range is this allocation; the advice does not change its contents,
            // and where it is refused nothing is lost but speed.
            unsafe { libc::madvise(start.as_ptr().cast(), layout.size(), libc::MADV_HUGEPAGE) };
        }
        // SAFETY: the allocation has `layout.size()` bytes.
        unsafe { start.write_bytes(0, layout.size()) };
        Self { start: start.cast(), len }
    }

    fn layout(len: usize) -> Layout {
        let fits = "an array that fits the address space";
        let bytes = len.checked_mul(size_of::<f32>()).expect(fits).max(CACHE_LINE);
        let align = if bytes >= HUGE_PAGE { HUGE_PAGE } else { CACHE_LINE };
        // Whole huge pages: a part of one would lie on small pages.
        let whole = bytes.checked_next_multiple_of(align).expect(fits);
        Layout::from_size_align(whole, align).expect(fits)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: allocated in `zeroed` with the same layout, which depends on `len` alone.
        unsafe { dealloc(self.start.as_ptr().cast(), Self::layout(self.len)) }
    }
}

impl Deref for Buffer {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        // SAFETY: `len` initialised values, owned by self.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: `len` initialised values, owned by self and borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl Clone for Buffer {
    fn clone(&self) -> Self {
        let mut copy = Self::zeroed(self.len);
        copy.copy_from_slice(self);
        copy
    }
}

// SAFETY: a Buffer owns its memory like a Box<[f32]>.
unsafe impl Send for Buffer {}
// SAFETY: shared access only reads, like a Box<[f32]>.
unsafe impl Sync for Buffer {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_zeroed_and_aligned() {
        for len in [0, 1, 15, 1 << 10, 1 << 20] {
            let mut buffer = Buffer::zeroed(len);
            assert_eq!(buffer.len(), len);
            assert!(buffer.iter().all(|&x| x == 0.0));
            assert_eq!(buffer.as_ptr() as usize % CACHE_LINE, 0);
            buffer.fill(1.0);
            assert_eq!(buffer.clone().iter().sum::<f32>(), len as f32);
        }
    }
}
