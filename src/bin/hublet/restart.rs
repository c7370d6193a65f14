//! A restart that clients do not notice: the process becomes the binary that lies at its path now.
//!
//! The hub stands still. Its descriptors wait in a socket pair and its state in a file in memory,
//! while this process executes the binary in its own place. The new program finds one end of the pair
//! as its standard input, and the real standard input is among the descriptors. If a step fails, the
//! hub goes on in this process.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, IoSlice, IoSliceMut, Read as _, Seek as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use futures_lite::future::or;
use hublet::{HandOver, Reactor};
use nix::sys::signal::{SigSet, Signal};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
    sockopt,
};
use rustix::process::{Pid, getpid, kill_process};
use rustix::stdio::{dup2_stdin, stdin};

use crate::failure::Failure;
use crate::mailbox::Mailbox;
use crate::signals::Signals;
use crate::task::thread;

/// Tells the new program that its standard input is a socket with what it takes over; the value is
/// the id of the process, as with `LISTEN_PID`, so that a child that inherits it takes nothing.
pub(crate) const MARK: &str = "_HUBLET_TAKES_OVER";

/// What a supervisor passed to this process, and must not be taken twice.
const PASSED: [&str; 4] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID"];

/// How long the binary has to say whether it takes the flags and the state.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// Bytes of its answer that are read: a sentence.
const ANSWER_BYTES_MAX: u64 = 1024;

/// Descriptors of one message (SCM_MAX_FD of Linux).
const DESCRIPTORS: usize = 253;

/// Bytes of the state at most: a few hundred for each of a million clients.
const STATE_BYTES_MAX: u64 = 512 * 1024 * 1024;

/// Bytes that the socket pair asks the kernel to hold; each message takes about a kilobyte.
const PAIR_BYTES: usize = 4 * 1024 * 1024;

/// Signals that no exec may lose.
const KEPT: [Signal; 4] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGUSR2];

/// Holds the signals back in this thread, and in those that it starts.
pub(crate) fn block_signals() {
    // It fails only for an operation that is not known.
    let _ = kept().thread_block();
}

/// Lets the signals through in this thread, to the handlers that are there now.
pub(crate) fn unblock_signals() {
    let _ = kept().thread_unblock();
}

fn kept() -> SigSet {
    KEPT.into_iter().collect()
}

/// The program as it was started.
#[derive(Debug)]
pub(crate) struct Program {
    /// The file that its first argument names, or why a restart does not know it.
    path: Result<PathBuf, String>,
    /// The arguments, of which the first is the program.
    arguments: Vec<OsString>,
}

impl Program {
    /// Notes the file and the arguments of this process.
    pub(crate) fn note() -> Self {
        let arguments: Vec<_> = env::args_os().collect();
        let path = match arguments.first() {
            Some(name) => find(name.as_ref()).and_then(is_running),
            None => Err("the process was started without its name".to_owned()),
        };
        Self { path, arguments }
    }

    /// A command that runs the file that lies at the path now.
    fn command(&self) -> Result<Command, String> {
        let path = self.path.as_ref().map_err(Clone::clone)?;
        let mut command = Command::new(path);
        command.arg0(&self.arguments[0]).env_remove(MARK);
        for name in PASSED {
            command.env_remove(name);
        }
        Ok(command)
    }

    /// Asks the binary whether it takes the flags and the state.
    pub(crate) async fn probe(&self, reactor: &Reactor) -> Result<(), String> {
        let mut command = self.command()?;
        let name = self.arguments[0].to_string_lossy().into_owned();
        command.arg("--takes").arg(HandOver::VERSION.to_string()).args(&self.arguments[1..]);
        // Standard streams are inherited: a root without /dev/null has nothing to open.
        let child = command.stderr(Stdio::piped()).spawn();
        let child = child.map_err(|error| format!("{name} cannot be started: {error}"))?;
        let pid = Pid::from_child(&child);
        let answer = Arc::new(Mailbox::default());
        let writer = Arc::clone(&answer);
        let wait = move || {
            // A signal that this thread caught would not count as caught before the exec.
            block_signals();
            writer.put(answer_of(child));
        };
        thread(Box::new(wait)).map_err(|failure| failure.sentence)?;
        let late = async {
            reactor.sleep(ANSWER_MAX).await;
            // It is not reaped before its answer is there.
            let _ = kill_process(pid, rustix::process::Signal::KILL);
            Err(format!("{name} does not answer within {} s", ANSWER_MAX.as_secs()))
        };
        or(answer.take(), late).await
    }

    /// Becomes the binary, with what it takes over. Returns only if that fails.
    ///
    /// For the main thread, which receives the signals.
    pub(crate) fn become_new(
        &self,
        state: &str,
        descriptors: &[BorrowedFd<'_>],
        signals: &Signals,
    ) -> String {
        match self.try_become_new(state, descriptors, signals) {
            Ok(never) => match never {},
            Err(sentence) => sentence,
        }
    }

    fn try_become_new(
        &self,
        state: &str,
        descriptors: &[BorrowedFd<'_>],
        signals: &Signals,
    ) -> Result<std::convert::Infallible, String> {
        let cannot = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
        let mut command = self.command()?;
        let real = stdin().try_clone_to_owned().map_err(cannot("standard input is not kept"))?;
        let end =
            pack(&real, state, descriptors).map_err(cannot("the connections are not kept"))?;
        command.args(&self.arguments[1..]).env(MARK, std::process::id().to_string());
        block_signals();
        // A signal that comes from here on is for the new program. One that was caught is for this.
        if signals.has_stop() {
            unblock_signals();
            return Err("a signal to stop came first".to_owned());
        }
        if signals.take_restarts() {
            // It is pending over the exec: the new program restarts once more, or this one if there is
            // no new one.
            let _ = kill_process(getpid(), rustix::process::Signal::USR2);
        }
        let error = command.stdin(Stdio::from(end)).exec();
        // What the attempt has changed in this process is put back.
        let _ = dup2_stdin(&real);
        let _ = signal_hook::flag::register(signal_hook::consts::SIGPIPE, Arc::default());
        unblock_signals();
        Err(format!("{} cannot be executed: {error}", self.arguments[0].to_string_lossy()))
    }
}

/// Waits in this thread for what a child says with its end.
fn answer_of(mut child: Child) -> Result<(), String> {
    let mut sentence = String::new();
    if let Some(stderr) = child.stderr.take() {
        let _ = stderr.take(ANSWER_BYTES_MAX).read_to_string(&mut sentence);
    }
    match child.wait() {
        Ok(status) if status.success() => Ok(()),
        Ok(_) if !sentence.trim().is_empty() => {
            let last = sentence.trim().lines().next_back().unwrap_or_default();
            Err(format!("the new binary says: {last}"))
        }
        Ok(status) => Err(format!("the new binary does not take over: {status}")),
        Err(error) => Err(format!("the new binary has no exit code: {error}")),
    }
}

/// Finds a program as a shell does.
fn find(name: &Path) -> Result<PathBuf, String> {
    let is_program = |path: &PathBuf| {
        fs::metadata(path)
            .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    };
    let shown = name.display();
    if name.as_os_str().as_encoded_bytes().contains(&b'/') {
        return std::path::absolute(name).map_err(|error| format!("{shown} has no path: {error}"));
    }
    let folders = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&folders)
        .filter_map(|folder| std::path::absolute(folder.join(name)).ok())
        .find(is_program)
        .ok_or_else(|| format!("{shown} is in no folder of PATH"))
}

/// Refuses a path that does not lead to the file that is running.
fn is_running(path: PathBuf) -> Result<PathBuf, String> {
    let shown = path.display();
    let there = fs::metadata(&path).map_err(|error| format!("{shown} is no file: {error}"))?;
    // A root that holds only the binary has no /proc.
    if let Ok(running) = fs::metadata("/proc/self/exe") {
        if (running.dev(), running.ino()) != (there.dev(), there.ino()) {
            return Err(format!("{shown} was not the file that is running when the process began"));
        }
    }
    Ok(path)
}

/// Puts the state and the descriptors where the next program finds them; returns its end.
fn pack(real: &OwnedFd, state: &str, descriptors: &[BorrowedFd<'_>]) -> io::Result<OwnedFd> {
    if state.len() as u64 > STATE_BYTES_MAX {
        // The next program would refuse it, with no way back.
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut file = File::from(memfd_create("hublet", MemfdFlags::CLOEXEC)?);
    file.write_all(state.as_bytes())?;
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    // The kernel gives what it allows.
    let _ = sockopt::set_socket_send_buffer_size(&ours, PAIR_BYTES);
    let first = [file.as_fd(), real.as_fd()];
    for part in std::iter::once(&first[..]).chain(descriptors.chunks(DESCRIPTORS)) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
        let mut buffer = SendAncillaryBuffer::new(&mut space);
        buffer.push(SendAncillaryMessage::ScmRights(part));
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        sendmsg(&ours, &[IoSlice::new(b"+")], &mut buffer, flags)?;
    }
    Ok(theirs)
}

/// What this process has taken over from the program that it was.
#[derive(Debug)]
pub(crate) struct Inherited {
    pub(crate) state: String,
    /// The descriptors, in the order in which they were packed.
    pub(crate) descriptors: Vec<OwnedFd>,
}

impl Inherited {
    /// Takes over what waits in standard input, which becomes the real one again; `None` for a
    /// process that was started by another.
    pub(crate) fn take() -> Result<Option<Self>, Failure> {
        let own = std::process::id().to_string();
        if env::var_os(MARK).is_none_or(|mark| mark != *own) {
            return Ok(None);
        }
        let taken = unpack();
        taken.map(Some).map_err(|error| {
            Failure::running(format!("the state of the program before cannot be read: {error}"))
        })
    }
}

fn unpack() -> io::Result<Inherited> {
    let mut descriptors: Vec<OwnedFd> = Vec::new();
    loop {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
        let mut buffer = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let read = recvmsg(stdin(), &mut [IoSliceMut::new(&mut byte)], &mut buffer, flags)?;
        if read.bytes == 0 {
            break;
        }
        for message in buffer.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = message {
                descriptors.extend(received);
            }
        }
    }
    if descriptors.len() < 2 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let rest = descriptors.split_off(2);
    let mut own = descriptors.into_iter();
    let (Some(state), Some(real)) = (own.next(), own.next()) else {
        return Err(io::ErrorKind::UnexpectedEof.into());
    };
    dup2_stdin(&real)?;
    let mut file = File::from(state);
    file.rewind()?;
    if file.metadata()?.len() > STATE_BYTES_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let state = io::read_to_string(file)?;
    Ok(Inherited { state, descriptors: rest })
}
