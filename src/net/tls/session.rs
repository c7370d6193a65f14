//! The TLS state of one connection: records in, records out, and no waiting.

use std::io::{self, IoSlice};

use rustls::Error;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, UnbufferedStatus};

use crate::memory::budget::{Charge, allocation};
use crate::memory::read_buffers::{READ_BUFFER_BYTES, ReadBuffer};

/// The first byte of a handshake (RFC 8446 5.1).
const HANDSHAKE: u8 = 0x16;

/// Encrypted bytes that are kept until the rest of a record has come, at most: a whole record
/// (RFC 8446 5.2), and its header. What a peer divides over more records is no message that it may
/// send.
pub(crate) const INCOMING_MAX: usize = 5 + 16 * 1024 + 256;

/// Bytes of several frames that are gathered for one record. With what encryption adds, and a message
/// of TLS before it, it has room in the other half of a scratch buffer.
const GATHERED_MAX: usize = READ_BUFFER_BYTES / 2 - 384;

/// Bytes of one frame that are encrypted for one write, which are two records at most: a message of
/// 16 KiB leaves with one system call.
const DIRECT_MAX: usize = READ_BUFFER_BYTES - 768;

/// Bytes of a session when its peer is idle, keys included: what `benches/footprint` measures.
pub(crate) const SESSION_BYTES: usize = 5 * 1024;

const _: () = assert!(INCOMING_MAX + 8 * 1024 <= READ_BUFFER_BYTES);

/// The TLS state of a connection.
pub(crate) struct Session {
    tls: UnbufferedServerConnection,
    /// Encrypted bytes that have come, of a record that is not whole.
    incoming: Vec<u8>,
    /// Encrypted bytes that the socket has not taken: the rest of one write, or of a handshake.
    outgoing: Vec<u8>,
    /// How much of them it has taken.
    sent: u32,
    /// The first byte of the next write is in a record already: see [`write`](Self::write).
    keeps_back: bool,
    /// Bytes of the peer were processed.
    has_begun: bool,
    /// The peer has closed, or will say nothing more that counts.
    pub(crate) has_ended: bool,
    /// The peer has broken the rules: rustls is asked nothing more.
    has_failed: bool,
    /// Our own end of the stream is written.
    has_closed: bool,
    /// The socket took bytes of a record that was cut before.
    pub(crate) has_progressed: bool,
    /// Counts the session and its buffers.
    charge: Charge,
}

impl Session {
    pub(crate) fn new(tls: UnbufferedServerConnection, charge: Charge) -> Self {
        let mut session = Self {
            tls,
            incoming: Vec::new(),
            outgoing: Vec::new(),
            sent: 0,
            keeps_back: false,
            has_begun: false,
            has_ended: false,
            has_failed: false,
            has_closed: false,
            has_progressed: false,
            charge,
        };
        session.count();
        session
    }

    pub(crate) fn is_handshaking(&self) -> bool {
        self.tls.is_handshaking()
    }

    /// Whether a first byte shows that its peer speaks without TLS.
    pub(crate) fn is_plain(&self, first: u8) -> bool {
        !self.has_begun && first != HANDSHAKE
    }

    /// Whether records wait for room in the socket.
    pub(crate) fn has_unsent(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Copies what was kept to the start of a buffer; returns its length.
    pub(crate) fn put_kept(&self, into: &mut ReadBuffer) -> usize {
        into[..self.incoming.len()].copy_from_slice(&self.incoming);
        self.incoming.len()
    }

    /// Decrypts what has come, with what was kept before it, and keeps what is no whole record.
    /// `take` gets the plaintext, record by record.
    pub(crate) fn receive(
        &mut self,
        bytes: &mut [u8],
        take: &mut dyn FnMut(&[u8]),
    ) -> Result<(), Error> {
        self.has_begun = true;
        let (consumed, result) = self.process(bytes, take);
        let rest = &bytes[consumed.min(bytes.len())..];
        let result = match result {
            Ok(()) if rest.len() > INCOMING_MAX => Err(Error::General(String::new())),
            result => result,
        };
        self.has_failed |= result.is_err();
        self.has_ended |= self.has_failed;
        self.incoming = if self.has_ended { Vec::new() } else { rest.to_vec() };
        self.count();
        result
    }

    /// Has rustls process bytes until it needs more; returns how many it is done with.
    fn process(
        &mut self,
        bytes: &mut [u8],
        take: &mut dyn FnMut(&[u8]),
    ) -> (usize, Result<(), Error>) {
        let mut done = 0;
        loop {
            let UnbufferedStatus { discard, state } =
                self.tls.process_tls_records(&mut bytes[done..]);
            done += discard;
            match state {
                Ok(ConnectionState::EncodeTlsData(mut encode)) => {
                    append(&mut encode, &mut self.outgoing);
                }
                Ok(ConnectionState::TransmitTlsData(transmit)) => transmit.done(),
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(Ok(record)) = traffic.next_record() {
                        take(record.payload);
                    }
                }
                Ok(ConnectionState::PeerClosed) => self.has_ended = true,
                Ok(ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_)) => {
                    return (done, Ok(()));
                }
                Ok(_) => {
                    self.has_ended = true;
                    return (done, Ok(()));
                }
                Err(error) => {
                    self.take_alerts();
                    return (done, Err(error));
                }
            }
        }
    }

    /// Takes what rustls has to say after an error. Not with the bytes of the error, which it would
    /// process again, and only while it has something: without bytes it may look for nothing.
    fn take_alerts(&mut self) {
        while self.tls.wants_write() {
            match self.tls.process_tls_records(&mut []).state {
                Ok(ConnectionState::EncodeTlsData(mut encode)) => {
                    append(&mut encode, &mut self.outgoing);
                }
                _ => return,
            }
        }
    }

    /// Hands the socket what it has not taken; `WouldBlock` if some is left.
    pub(crate) fn flush(
        &mut self,
        send: &mut dyn FnMut(&[u8]) -> io::Result<usize>,
    ) -> io::Result<()> {
        if self.outgoing.is_empty() {
            return Ok(());
        }
        while (self.sent as usize) < self.outgoing.len() {
            match send(&self.outgoing[self.sent as usize..])? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                n => self.sent += n as u32,
            }
            self.has_progressed = true;
        }
        (self.outgoing, self.sent) = (Vec::new(), 0);
        self.count();
        Ok(())
    }

    /// Encrypts frames and hands them to the socket; returns how many bytes of them it has taken.
    ///
    /// A record that the socket takes in part is kept, and its last byte counts as not taken. So
    /// the caller still waits for the socket, and its next bytes begin with that one.
    pub(crate) fn write(
        &mut self,
        frames: &[IoSlice<'_>],
        scratch: &mut ReadBuffer,
        send: &mut dyn FnMut(&[u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        if self.has_failed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.flush(send)?;
        let kept_back = usize::from(std::mem::take(&mut self.keeps_back));
        let mut frames = Frames { frames, at: kept_back };
        let mut taken = kept_back;
        loop {
            let (plain, record, encrypted) = match frames.direct() {
                Some(plain) => {
                    let record = encrypt(&mut self.tls, &mut self.incoming, plain, scratch)?;
                    (plain.len(), record, &scratch[..])
                }
                None => {
                    let (gathered, encrypted) = scratch.split_at_mut(GATHERED_MAX);
                    let plain = frames.gather(gathered);
                    let plain = &gathered[..plain];
                    let record = encrypt(&mut self.tls, &mut self.incoming, plain, encrypted)?;
                    (plain.len(), record, &*encrypted)
                }
            };
            if plain == 0 {
                return Ok(taken);
            }
            let sent = match send(&encrypted[..record]) {
                Ok(n) if n == record => {
                    taken += plain;
                    continue;
                }
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                Err(error) => return Err(error),
            };
            self.outgoing = encrypted[sent..record].to_vec();
            self.keeps_back = true;
            self.count();
            taken += plain - 1;
            return if taken > 0 { Ok(taken) } else { Err(io::ErrorKind::WouldBlock.into()) };
        }
    }

    /// Writes the end of our side of the stream behind what was written.
    pub(crate) fn close(&mut self) {
        if std::mem::replace(&mut self.has_closed, true) || self.has_failed {
            return;
        }
        let Self { tls, incoming, outgoing, .. } = self;
        let state = tls.process_tls_records(incoming).state;
        if let Ok(ConnectionState::WriteTraffic(mut traffic)) = state {
            // An alert, encrypted, and perhaps a change of keys before it.
            let mut record = [0; 256];
            if let Ok(n) = traffic.queue_close_notify(&mut record) {
                outgoing.extend_from_slice(&record[..n]);
            }
        }
        self.count();
    }

    /// Ends with bytes that are not encrypted, for a peer that speaks without TLS.
    pub(crate) fn refuse_plain(&mut self, answer: &[u8]) {
        self.outgoing.extend_from_slice(answer);
        (self.has_closed, self.has_ended) = (true, true);
    }

    /// Counts plaintext that was not read.
    pub(crate) fn charge_unread(&self, bytes: usize) -> Charge {
        self.charge.memory().charge(bytes)
    }

    fn count(&mut self) {
        let size = |bytes: &Vec<u8>| match bytes.capacity() {
            0 => 0,
            capacity => allocation(capacity),
        };
        self.charge.resize(SESSION_BYTES + size(&self.incoming) + size(&self.outgoing));
    }
}

/// Encrypts one record; returns its length. `incoming` is what was kept, and is no whole record.
fn encrypt(
    tls: &mut UnbufferedServerConnection,
    incoming: &mut [u8],
    plain: &[u8],
    encrypted: &mut [u8],
) -> io::Result<usize> {
    match tls.process_tls_records(incoming).state {
        Ok(ConnectionState::WriteTraffic(mut traffic)) => {
            traffic.encrypt(plain, encrypted).map_err(|_| io::ErrorKind::BrokenPipe.into())
        }
        // Nothing else is left to do where no record is whole.
        _ => Err(io::ErrorKind::BrokenPipe.into()),
    }
}

/// Appends a message of TLS.
fn append(encode: &mut EncodeTlsData<'_, ServerConnectionData>, out: &mut Vec<u8>) {
    // With no room it says how much it needs.
    if let Err(EncodeError::InsufficientSize(needed)) = encode.encode(&mut []) {
        let at = out.len();
        out.resize(at + needed.required_size, 0);
        // There is room, and it was not encoded before.
        let _ = encode.encode(&mut out[at..]);
    }
}

/// Frames that are cut into records.
struct Frames<'a, 'b> {
    frames: &'a [IoSlice<'b>],
    /// Where the rest of the first begins.
    at: usize,
}

impl<'a> Frames<'a, '_> {
    /// Takes the bytes of the next write where only one frame is left; empty at its end.
    fn direct(&mut self) -> Option<&'a [u8]> {
        let [frame] = self.frames else { return None };
        let rest = &frame[self.at.min(frame.len())..];
        let plain = &rest[..rest.len().min(DIRECT_MAX)];
        self.at += plain.len();
        Some(plain)
    }

    /// Gathers the bytes of the next record; returns how many.
    fn gather(&mut self, into: &mut [u8]) -> usize {
        let mut len = 0;
        while let Some(frame) = self.frames.first() {
            let rest = &frame[self.at.min(frame.len())..];
            let n = rest.len().min(into.len() - len);
            into[len..len + n].copy_from_slice(&rest[..n]);
            len += n;
            if n < rest.len() {
                self.at += n;
                break;
            }
            (self.frames, self.at) = (&self.frames[1..], self.at.saturating_sub(frame.len()));
        }
        len
    }
}
