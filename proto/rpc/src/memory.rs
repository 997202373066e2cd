//! What becomes of the memory that a long stream of large messages takes and gives back.
//!
//! glibc returns the end of its heap to the system whenever 128 KiB of it are free, and takes it anew, page by page, for
//! the next message: that costs more than all copies of the message together. Once a larger piece was taken and freed it
//! keeps twice as much as that was free (`M_MMAP_THRESHOLD` in mallopt(3)). To other allocators it means nothing.

use std::sync::Once;

/// Larger than what the messages on their way at one time take together, about.
const PIECE: usize = 1024 * 1024;

/// To be called before such a stream begins; the first call in a process counts.
pub fn keep() {
    static KEPT: Once = Once::new();
    KEPT.call_once(|| {
        let mut piece = Vec::with_capacity(PIECE);
        // One that nothing is written to may be optimised away.
        piece.push(1_u8);
        drop(std::hint::black_box(piece));
    });
}
