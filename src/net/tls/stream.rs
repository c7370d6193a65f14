//! The streams of connections: encrypted ones, which are shared with the client's queue, and plain
//! ones.

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::{fmt, mem};

use futures_lite::io::{AsyncRead, AsyncWrite};
use rustls::Error;
use rustls::server::UnbufferedServerConnection;

use crate::hub::direct_writer::DirectWriter;
use crate::hub::holding::Handle;
use crate::memory::budget::{Charge, MemoryBudget, allocation};
use crate::net::io::poll_io;
use crate::net::socket::Socket;
use crate::net::stream::Transport;
use crate::net::tls::certificate::{Common, Tls};
use crate::net::tls::session::Session;
use crate::net::tls::wire::Wire;

/// Encrypted bytes of one read at least, whatever room the caller has: a record of a request comes
/// whole.
const READ_MIN: usize = 4096;

/// Reads of one poll that bring no plaintext, at most: then other tasks run.
const EMPTY_READS_MAX: u32 = 4;

/// The answer to a peer that speaks HTTP without TLS.
const SPEAK_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\n\
    Connection: close\r\nContent-Length: 50\r\n\r\nthis port speaks TLS only: use https:// or wss://\n";

/// A connection of a listener.
#[derive(Debug)]
pub(crate) enum Stream {
    Plain(Socket),
    Tls(TlsStream),
}

/// A connection that is encrypted.
pub(crate) struct TlsStream<W = Socket> {
    shared: Arc<Shared<W>>,
    /// What was decrypted and not yet read.
    unread: Option<Box<Unread>>,
}

/// Plaintext that was not yet read: what one read of the socket has become, at most.
struct Unread {
    bytes: Vec<u8>,
    /// Where the rest begins.
    at: usize,
    /// Counts them until they are read.
    _charge: Charge,
}

/// What the connection shares with its client's queue, which writes through it from any thread.
///
/// The lock is held for one step, never across a wait, and below that of the queue.
struct Shared<W> {
    socket: W,
    session: Mutex<Session>,
    common: Arc<Common>,
}

impl<W: Wire> fmt::Debug for TlsStream<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.fmt(f)
    }
}

impl<W: Wire> fmt::Debug for Shared<W> {
    /// Writes the socket only: a log has nothing of the session.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.socket.fmt(f)
    }
}

impl<W: Wire> Shared<W> {
    fn lock(&self) -> MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, frames: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut session = self.lock();
        let mut scratch = self.common.scratch.acquire();
        let written = session.write(frames, &mut scratch, &mut |bytes| self.socket.try_send(bytes));
        self.common.scratch.release(scratch);
        written
    }

    /// Answers a peer that speaks without TLS. The first is a warning in the log: an operator that
    /// mistook the port looks for it there.
    #[cold]
    fn refuse_plain(&self, session: &mut Session, first: u8) {
        let sentence = "a peer speaks without TLS, and this port speaks TLS only: use https:// and \
                        wss://";
        if self.common.is_first_plain() {
            log::warn!("{sentence}; further ones are logged at the level debug");
        } else {
            log::debug!("{sentence}");
        }
        let is_http = first.is_ascii_uppercase();
        session.refuse_plain(if is_http { SPEAK_TLS } else { b"" });
    }

    /// Ready when the socket has taken all records.
    fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flush = || self.lock().flush(&mut |bytes| self.socket.try_send(bytes));
        poll_io(cx, |cx| self.socket.poll_writable(cx), flush)
    }
}

/// The error of a peer that broke the rules of TLS, or gave up.
#[cold]
fn broken(error: Error) -> io::Error {
    // Not the text of rustls, which has the name of each thing that may be wrong.
    let flaw = match error {
        Error::AlertReceived(alert) => {
            log::debug!("TLS failed: the peer sent the alert {}", u8::from(alert));
            return ErrorKind::InvalidData.into();
        }
        Error::NoApplicationProtocol => "the peer does not speak HTTP/1.1",
        Error::PeerIncompatible(_) => "the peer has no version, cipher or curve of ours",
        Error::DecryptError => "a record was changed on its way",
        _ => "the peer broke the rules",
    };
    log::debug!("TLS failed: {flaw}");
    ErrorKind::InvalidData.into()
}

impl<W: Wire> DirectWriter for Shared<W> {
    fn try_write(&self, frames: &[IoSlice<'_>]) -> io::Result<usize> {
        self.write(frames)
    }
}

impl<W: Wire> TlsStream<W> {
    pub(crate) fn new(tls: &Tls, memory: &Arc<MemoryBudget>, socket: W) -> io::Result<Self> {
        let common = &tls.0;
        common.renew();
        // Fails for settings that are none of ours.
        let session = UnbufferedServerConnection::new(Arc::clone(&common.config))
            .map_err(|_| io::Error::from(ErrorKind::Unsupported))?;
        let session = Mutex::new(Session::new(session, memory.charge(0)));
        let shared = Shared { socket, session, common: Arc::clone(common) };
        Ok(Self { shared: Arc::new(shared), unread: None })
    }

    /// Does what is left of the handshake.
    pub(crate) fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.shared.poll_flush(cx))?;
            let session = self.shared.lock();
            let (is_over, has_ended) = (!session.is_handshaking(), session.has_ended);
            drop(session);
            if is_over {
                return Poll::Ready(Ok(()));
            }
            if has_ended {
                return Poll::Ready(Err(ErrorKind::UnexpectedEof.into()));
            }
            ready!(self.poll_fill(cx, &mut []))?;
        }
    }

    /// Reads from the socket once and decrypts into `into`; what has no room there is kept. Returns
    /// how much has room: 0 if the peer has ended, or no record has come whole.
    fn poll_fill(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let shared = &*self.shared;
        let mut session = shared.lock();
        let mut scratch = shared.common.scratch.acquire();
        let kept = session.put_kept(&mut scratch);
        let most = (kept + into.len().max(READ_MIN)).min(scratch.len());
        let read = shared.socket.poll_receive(cx, &mut scratch[kept..most]);
        let (mut filled, mut rest) = (0, Vec::new());
        let received = match read {
            Poll::Ready(Ok(n)) if n > 0 && session.is_plain(scratch[0]) => {
                shared.refuse_plain(&mut session, scratch[0]);
                Some(Err(ErrorKind::InvalidData.into()))
            }
            Poll::Ready(Ok(n)) if n > 0 => {
                let received = session.receive(&mut scratch[..kept + n], &mut |plain| {
                    let n = plain.len().min(into.len() - filled);
                    into[filled..filled + n].copy_from_slice(&plain[..n]);
                    filled += n;
                    rest.extend_from_slice(&plain[n..]);
                });
                Some(received.map_err(broken))
            }
            Poll::Ready(Ok(_)) => {
                session.has_ended = true;
                None
            }
            _ => None,
        };
        shared.common.scratch.release(scratch);
        if let Some(received) = received {
            // What TLS itself has to say. What has no room now leaves with the next write or read.
            let _ = session.flush(&mut |bytes| shared.socket.try_send(bytes));
            received?;
        }
        ready!(read)?;
        if !rest.is_empty() {
            let charge = session.charge_unread(allocation(rest.capacity()));
            self.unread = Some(Box::new(Unread { bytes: rest, at: 0, _charge: charge }));
        }
        Poll::Ready(Ok(filled))
    }

    /// Takes what was decrypted before.
    fn take_unread(&mut self, into: &mut [u8]) -> Option<usize> {
        let unread = self.unread.as_mut()?;
        let rest = &unread.bytes[unread.at..];
        let n = rest.len().min(into.len());
        into[..n].copy_from_slice(&rest[..n]);
        unread.at += n;
        if unread.at == unread.bytes.len() {
            self.unread = None;
        }
        Some(n)
    }
}

/// What the connection's task does with the stream, as [`Transport`] and the traits below it have it.
impl<W: Wire> TlsStream<W> {
    /// The writer of the client's queue.
    pub(crate) fn direct_writer(&self) -> Arc<dyn DirectWriter> {
        Arc::clone(&self.shared) as Arc<dyn DirectWriter>
    }

    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.unread.is_some() {
            return Poll::Ready(());
        }
        // What TLS itself has to say leaves without a message.
        let mut session = self.shared.lock();
        let is_stuck = session.has_unsent()
            && session.flush(&mut |bytes| self.shared.socket.try_send(bytes)).is_err();
        let has_ended = session.has_ended;
        drop(session);
        if is_stuck {
            // An error shows itself with the read.
            let _ = self.shared.socket.poll_writable(cx);
        }
        if has_ended { Poll::Ready(()) } else { self.shared.socket.poll_arrived(cx) }
    }

    pub(crate) fn has_progressed(&self) -> bool {
        mem::take(&mut self.shared.lock().has_progressed)
    }

    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if let Some(n) = self.take_unread(into) {
            return Poll::Ready(Ok(n));
        }
        for _ in 0..EMPTY_READS_MAX {
            if self.shared.lock().has_ended {
                return Poll::Ready(Ok(0));
            }
            let filled = ready!(self.poll_fill(cx, into))?;
            if filled > 0 {
                return Poll::Ready(Ok(filled));
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    pub(crate) fn poll_write(
        &self,
        cx: &mut Context<'_>,
        frames: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let shared = &*self.shared;
        poll_io(cx, |cx| shared.socket.poll_writable(cx), || shared.write(frames))
    }

    pub(crate) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shared.poll_flush(cx)
    }

    /// Says that nothing more comes (RFC 8446 6.1), and shuts down the side that writes.
    pub(crate) fn poll_close(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shared.lock().close();
        ready!(self.shared.poll_flush(cx))?;
        Poll::Ready(self.shared.socket.shut_down())
    }
}

impl Stream {
    fn socket(&self) -> &Socket {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => &stream.shared.socket,
        }
    }
}

impl Transport for Stream {
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Plain(socket) => socket.poll_readable(cx),
            Self::Tls(stream) => stream.poll_readable(cx),
        }
    }

    fn direct_writer(&self) -> Option<Arc<dyn DirectWriter>> {
        match self {
            Self::Plain(socket) => socket.direct_writer(),
            Self::Tls(stream) => Some(stream.direct_writer()),
        }
    }

    /// An encrypted connection has no use for its socket in another process.
    fn handle(&self) -> Option<Arc<Handle>> {
        match self {
            Self::Plain(socket) => socket.handle(),
            Self::Tls(_) => None,
        }
    }

    /// The peer of an encrypted connection answers the end of the stream, and is read until then.
    fn delivers_after_close(&self) -> bool {
        match self {
            Self::Plain(socket) => socket.delivers_after_close(),
            Self::Tls(_) => false,
        }
    }

    fn abort(&mut self) {
        self.socket().cut_off();
    }

    fn be_patient(&mut self, patient: bool) {
        self.socket().set_patience(patient);
    }

    fn has_progressed(&mut self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(stream) => stream.has_progressed(),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_read(cx, into),
            Self::Tls(stream) => stream.poll_read(cx, into),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        frames: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write_vectored(cx, frames),
            Self::Tls(stream) => stream.poll_write(cx, frames),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_flush(cx),
            Self::Tls(stream) => stream.poll_flush(cx),
        }
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_close(cx),
            Self::Tls(stream) => stream.poll_close(cx),
        }
    }
}
