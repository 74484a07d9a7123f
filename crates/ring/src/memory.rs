//! Words that somebody else may write at any time: never behind a reference, always through these methods.
//!
//! Two classes of access, so that a model checker can tell them apart. *Synchronising* words (`load`, `store`) carry an
//! ordering. *Plain* words and bytes (`get`, `put`, `read`, `write`) must be ordered by them: an honest peer never
//! touches those at the same time. A hostile one may; then the bytes are anything, but it is our copy that we check and use.
//! Where an honest peer may as well (mode Latest), all words are synchronising ones: `racing.rs`.

#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use crate::layout::WORD;

/// Up to so many bytes are copied in words. A message was often written just now, field by field; loads that are wider than
/// those stores would wait until the cache has them, behind everything that was stored to the ring before: 64 bytes go 7 %
/// faster so, but 256 bytes a sixth slower.
const SHORT: usize = 64;

/// Memory that can be read. Offsets are word indexes; one out of range is our own bug and panics.
pub trait Memory {
    /// Loads a synchronising word.
    fn load(&self, word: usize, order: Ordering) -> u64;
    /// Reads a plain word.
    fn get(&self, word: usize) -> u64;
    /// Appends `bytes` plain bytes from here to `into`.
    fn read(&self, word: usize, bytes: usize, into: &mut Vec<u8>);
    /// A fence. A sequentially consistent one: each side's store in front of it is seen, or that side's load behind it sees.
    fn fence(&self, order: Ordering);
}

/// Memory that this side alone writes.
pub trait MemoryMut: Memory {
    /// Stores a synchronising word.
    fn store(&self, word: usize, value: u64, order: Ordering);
    /// Writes a plain word.
    fn put(&self, word: usize, value: u64);
    /// Copies plain bytes from `from` to here.
    fn write(&self, word: usize, from: &[u8]);
    /// Says that the cache line of a word will be written soon. Only a hint, for which any word will do.
    fn will_write(&self, _word: usize) {}
}

/// A stretch of mapped memory, shared with another process.
///
/// It keeps its `Owner`, whatever holds the mapping alive.
#[derive(Debug)]
pub struct Mapped<Access, Owner> {
    base: NonNull<AtomicU64>,
    words: usize,
    access: PhantomData<Access>,
    _owner: Owner,
}

/// Marks a mapping that may only be read.
#[derive(Debug)]
pub enum ReadOnly {}
/// Marks a mapping that may be written.
#[derive(Debug)]
pub enum Writable {}

// SAFETY: a `Mapped` is an address; every access through it is an atomic or a copy of plain bytes that the ring's
// protocol orders, in whichever thread it is; the owner that it carries must allow the move.
unsafe impl<Access, Owner: Send> Send for Mapped<Access, Owner> {}

impl<Access, Owner> Mapped<Access, Owner> {
    /// Takes `bytes` bytes at `base` as ring memory, which `owner` keeps mapped.
    ///
    /// # Safety
    ///
    /// For as long as `owner` lives: `base..base + bytes` is one mapping of shared memory, readable, with
    /// `Access = Writable` also writable; `base` is 8-aligned, `bytes` a multiple of 8; and no Rust reference to any
    /// byte of it exists.
    pub unsafe fn new(base: NonNull<u8>, bytes: usize, owner: Owner) -> Self {
        assert!(base.cast::<AtomicU64>().is_aligned() && bytes.is_multiple_of(WORD));
        Self { base: base.cast(), words: bytes / WORD, access: PhantomData, _owner: owner }
    }

    #[inline(always)]
    fn word(&self, word: usize) -> &AtomicU64 {
        if word >= self.words {
            out_of_range(word, 0, self.words);
        }
        // SAFETY: in range by the check, valid and aligned by the contract of `new`. An atomic may be written by
        // others while we hold a reference to it; a read-only mapping is only ever loaded from.
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
        // SAFETY: `from` is valid for `bytes` bytes by its check, the vector's spare room by `reserve`. They cannot
        // overlap: to the shared mapping no reference exists. The copy initialises what `set_len` takes in.
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
        // The compiler's own prefetch becomes one for reading where it is not told that the processor has this one. All that
        // are of interest have; others take it for nothing.
        let line = self.base.as_ptr().wrapping_add(word);
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        // SAFETY: a prefetch changes nothing, whatever the address.
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
            // SAFETY: as in `read`, the other way round; the mapping is writable.
            return unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to.as_ptr(), from.len()) };
        }
        let (words, rest) = from.as_chunks::<WORD>();
        let mut to = to.cast::<AtomicU64>();
        let mut put = |bytes: [u8; WORD]| {
            // SAFETY: the words that hold `from`, the last one filled up, are in range as `from` is: both begin and end with
            // a word. They are aligned, and the mapping is writable.
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

/// Our own bug, kept out of the way of everything else: with an assertion in place each access would store what it may say.
#[cold]
#[inline(never)]
fn out_of_range(word: usize, bytes: usize, words: usize) -> ! {
    panic!("{bytes} bytes at word {word} of {words}");
}

/// Keeps the compiler from reading the shared bytes a second time where the private copy is used.
#[inline(always)]
fn keep_copy() {
    #[cfg(not(miri))]
    // SAFETY: no instruction at all; without `nomem` it stands for "any memory may have changed".
    unsafe {
        std::arch::asm!("", options(nostack, preserves_flags));
    }
}
