//! Files as messages, for `--file`: each is read straight into the memory in which its receivers read it.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use librpc::{Loan, LoanError};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::interrupt::Interrupt;

#[derive(clap::Args, Clone, Debug)]
pub(crate) struct FileArgs {
    /// Instead of the lines of stdin: each of these files is one message
    #[arg(long = "file", value_name = "FILE", num_args = 1..)]
    pub(crate) files: Vec<PathBuf>,
}

impl FileArgs {
    /// Fails if one of the files cannot be read, before anything is sent.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        self.files.iter().try_for_each(|path| open(path).map(drop))
    }
}

/// What a file has.
pub(crate) enum Content {
    /// This many bytes, which need not be in memory.
    Stored(MessageFile),
    /// What came out of a pipe or the like, to its end.
    Read(Vec<u8>),
    /// More than the limit: its length, if that is known.
    TooLong(Option<u64>),
    /// A signal came while it was read.
    Interrupted(i32),
}

/// A file whose length is known.
pub(crate) struct MessageFile {
    path: PathBuf,
    file: File,
    bytes: usize,
}

impl MessageFile {
    /// Reads the file into a loan. `Ok(Err)`: no loan could be taken, and why.
    pub(crate) fn load(
        &self,
        loan: impl FnOnce(usize) -> Result<Loan, LoanError>,
    ) -> anyhow::Result<Result<Loan, LoanError>> {
        let mut loan = match loan(self.bytes) {
            Ok(loan) => loan,
            Err(error) => return Ok(Err(error)),
        };
        match self.file.read_exact_at(&mut loan, 0) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                bail!("{}: it became shorter while it was read", cannot_read(&self.path))
            }
            read => read.with_context(|| cannot_read(&self.path)).map(|()| Ok(loan)),
        }
    }
}

/// Opens a file that may have at most `limit` bytes. One whose length is not known, as that of a pipe, is read to its end.
pub(crate) fn content(path: &Path, limit: usize, interrupt: &Interrupt) -> anyhow::Result<Content> {
    let file = open(path)?;
    let about = file.metadata().with_context(|| cannot_read(path))?;
    // Files of the kernel have contents, and claim to have none.
    if !about.is_file() || about.len() == 0 {
        return read(file, limit, interrupt).with_context(|| cannot_read(path));
    }
    Ok(match usize::try_from(about.len()) {
        Ok(bytes) if bytes <= limit => Content::Stored(MessageFile { path: path.to_owned(), file, bytes }),
        _ => Content::TooLong(Some(about.len())),
    })
}

/// Opens a file. Does not wait for the other end of a pipe.
fn open(path: &Path) -> anyhow::Result<File> {
    let flags = OFlags::NONBLOCK.bits() as i32;
    let file = File::options().read(true).custom_flags(flags).open(path).with_context(|| cannot_read(path))?;
    let is_directory = file.metadata().with_context(|| cannot_read(path))?.is_dir();
    anyhow::ensure!(!is_directory, "{}: it is a directory", cannot_read(path));
    Ok(file)
}

/// Reads stdin to its end. `Err`: this signal came first.
pub(crate) fn stdin(interrupt: &Interrupt) -> anyhow::Result<Result<Vec<u8>, i32>> {
    let stdin = File::from(rustix::stdio::stdin().try_clone_to_owned()?);
    Ok(match read(stdin, usize::MAX, interrupt)? {
        Content::Read(bytes) => Ok(bytes),
        _ => Err(interrupt.signal().unwrap_or_default()), // there is no limit
    })
}

fn read(mut file: File, limit: usize, interrupt: &Interrupt) -> anyhow::Result<Content> {
    let (mut bytes, mut piece) = (Vec::new(), vec![0; 1 << 18]);
    loop {
        let mut waited = [PollFd::new(&file, PollFlags::IN), PollFd::new(interrupt, PollFlags::empty())];
        match poll(&mut waited, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        if let Some(signal) = interrupt.signal() {
            return Ok(Content::Interrupted(signal));
        }
        if waited[0].revents().is_empty() {
            continue; // a signal that nobody has taken yet: to read now would be to wait
        }
        // Once: a second read of stdin might wait, and no signal would end that.
        match file.read(&mut piece) {
            Ok(0) => return Ok(Content::Read(bytes)),
            Ok(read) => bytes.extend_from_slice(&piece[..read]),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) => return Err(error.into()),
        }
        if bytes.len() > limit {
            return Ok(Content::TooLong(None));
        }
    }
}

fn cannot_read(path: &Path) -> String {
    format!("cannot read {}", path.display())
}
