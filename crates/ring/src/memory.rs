//! Words that another process may write at any time: accessed only through these methods, never through a reference.
//!
//! There are two classes of access, so that a model checker can distinguish them. *Synchronising* words (`load`,
//! `store`) carry an ordering. *Plain* words and bytes (`get`, `put`, `read`, `write`) are ordered by them, so an
//! honest peer never touches a plain word at the same time. A hostile peer may. Then the bytes can be anything, but
//! only our copy of them is checked and used. Where an honest peer may do so, too (mode Latest), every word is accessed
//! as a synchronising one (`racing.rs`).

#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use crate::layout::WORD;

/// Payloads of at most this many bytes are written word by word. A message was often built just before, field by field; a load
/// that is wider than those stores waits until they are in the cache, after all earlier stores to the ring. Word by word is
/// 7 % faster for 64 bytes, but a sixth slower for 256 bytes.
const SHORT: usize = 64;

/// Memory that can be read. Words are addressed by index; an index out of range is our own bug and panics.
pub trait Memory {
    /// Loads a synchronising word.
    fn load(&self, word: usize, order: Ordering) -> u64;
    /// Reads a plain word.
    fn get(&self, word: usize) -> u64;
    /// Appends `bytes` plain bytes, from this word on, to `into`.
    fn read(&self, word: usize, bytes: usize, into: &mut Vec<u8>);
    /// A fence. If it is sequentially consistent on both sides: of two sides that each store, fence, and load what the other
    /// stores, at least one sees the other's store.
    fn fence(&self, order: Ordering);
}

/// Memory that only this side writes.
pub trait MemoryMut: Memory {
    /// Stores a synchronising word.
    fn store(&self, word: usize, value: u64, order: Ordering);
    /// Writes a plain word.
    fn put(&self, word: usize, value: u64);
    /// Copies plain bytes from `from` to this word and the following ones.
    fn write(&self, word: usize, from: &[u8]);
    /// Hints that the cache line of a word will be written soon. Any index is allowed.
    fn will_write(&self, _word: usize) {}
}

/// A range of mapped memory, shared with another process.
///
/// It owns an `Owner`, which keeps the memory mapped.
#[derive(Debug)]
pub struct Mapped<Access, Owner> {
    base: NonNull<AtomicU64>,
    words: usize,
    access: PhantomData<Access>,
    _owner: Owner,
}

/// Marks a mapping that is only read.
#[derive(Debug)]
pub enum ReadOnly {}
/// Marks a mapping that may be written.
#[derive(Debug)]
pub enum Writable {}

// SAFETY: a `Mapped` is an address. Every access through it is atomic, or a copy of plain bytes that the ring's protocol
// orders, in whichever thread it happens. The owner that it carries must allow the move.
unsafe impl<Access, Owner: Send> Send for Mapped<Access, Owner> {}

impl<Access, Owner> Mapped<Access, Owner> {
    /// Takes `bytes` bytes at `base` as ring memory, which `owner` keeps mapped.
    ///
    /// # Safety
    ///
    /// While `owner` lives, `base..base + bytes` must be mapped shared memory, readable and, with `Access = Writable`, also
    /// writable. `base` must be 8-byte aligned, and `bytes` a multiple of 8. There must be no Rust reference to any byte of
    /// it.
    pub unsafe fn new(base: NonNull<u8>, bytes: usize, owner: Owner) -> Self {
        assert!(base.cast::<AtomicU64>().is_aligned() && bytes.is_multiple_of(WORD));
        Self { base: base.cast(), words: bytes / WORD, access: PhantomData, _owner: owner }
    }

    #[inline(always)]
    fn word(&self, word: usize) -> &AtomicU64 {
        if word >= self.words {
            out_of_range(word, 0, self.words);
        }
        // SAFETY: in range by the check; valid and aligned by the contract of `new`. Others may write an atomic while we hold
        // a reference to it, and a read-only mapping is only ever loaded from.
        unsafe { self.base.add(word).as_ref() }
    }

    #[inline(always)]
    fn bytes(&self, word: usize, len: usize) -> NonNull<u8> {
        if word > self.words || len > (self.words - word) * WORD {
            out_of_range(word, len, self.words);
        }
        // SAFETY: in range by the check.
        unsafe { self.base.add(word).cast() }
    }
}

impl<Access, Owner> Memory for Mapped<Access, Owner> {
    #[inline(always)]
    fn load(&self, word: usize, order: Ordering) -> u64 {
        self.word(word).load(order)
    }

    #[inline(always)]
    fn get(&self, word: usize) -> u64 {
        self.word(word).load(Ordering::Relaxed)
    }

    #[inline(always)]
    fn read(&self, word: usize, bytes: usize, into: &mut Vec<u8>) {
        let from = self.bytes(word, bytes);
        into.reserve(bytes);
        // SAFETY: `from` is valid for `bytes` bytes by its check, the vector's spare capacity by `reserve`. They cannot
        // overlap, because there is no reference to the shared mapping. The copy initialises what `set_len` adds.
        unsafe {
            std::ptr::copy_nonoverlapping(from.as_ptr(), into.as_mut_ptr().add(into.len()), bytes);
            into.set_len(into.len() + bytes);
        }
        keep_copy();
    }

    #[inline(always)]
    fn fence(&self, order: Ordering) {
        fence(order);
    }
}

impl<Owner> MemoryMut for Mapped<Writable, Owner> {
    #[inline(always)]
    fn store(&self, word: usize, value: u64, order: Ordering) {
        self.word(word).store(value, order);
    }

    #[inline(always)]
    fn put(&self, word: usize, value: u64) {
        self.word(word).store(value, Ordering::Relaxed);
    }

    #[inline(always)]
    fn will_write(&self, word: usize) {
        // The compiler turns its own prefetch for writing into one for reading unless a target feature promises the
        // former. Every processor that matters has it, and others treat it as a no-op.
        let line = self.base.as_ptr().wrapping_add(word);
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        // SAFETY: a prefetch has no effect on memory, whatever the address.
        unsafe {
            std::arch::asm!("prefetchw [{}]", in(reg) line, options(nostack, preserves_flags, readonly));
        }
        #[cfg(all(target_arch = "aarch64", not(miri)))]
        // SAFETY: as above.
        unsafe {
            std::arch::asm!("prfm pstl1keep, [{}]", in(reg) line, options(nostack, preserves_flags, readonly));
        }
        #[cfg(any(miri, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
        let _ = line;
    }

    #[inline(always)]
    fn write(&self, word: usize, from: &[u8]) {
        let to = self.bytes(word, from.len());
        if from.len() > SHORT {
            // SAFETY: as in `read`, in the other direction; the mapping is writable.
            return unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to.as_ptr(), from.len()) };
        }
        let (words, rest) = from.as_chunks::<WORD>();
        let mut to = to.cast::<AtomicU64>();
        let mut put = |bytes: [u8; WORD]| {
            // SAFETY: the words that hold `from`, the last one padded, are in range because the bytes are, and the mapping is a
            // whole number of words. They are aligned, and the mapping is writable.
            unsafe {
                to.as_ref().store(u64::from_ne_bytes(bytes), Ordering::Relaxed);
                to = to.add(1);
            }
        };
        words.iter().for_each(|word| put(*word));
        if !rest.is_empty() {
            let mut last = [0; WORD];
            last[..rest.len()].copy_from_slice(rest);
            put(last);
        }
    }
}

/// An access out of range is our own bug. This is a separate function because an inline assertion would make each
/// access store the numbers for its message.
#[cold]
#[inline(never)]
fn out_of_range(word: usize, bytes: usize, words: usize) -> ! {
    panic!("{bytes} bytes at word {word} of {words}");
}

/// Keeps the compiler from reading the shared bytes a second time in place of the private copy.
#[inline(always)]
pub fn keep_copy() {
    #[cfg(not(miri))]
    // SAFETY: there is no instruction. Without `nomem` it means that any memory may have changed.
    unsafe {
        std::arch::asm!("", options(nostack, preserves_flags));
    }
}
