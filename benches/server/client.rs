//! A client that waits as a task, for benches with thousands of them in one thread.

use std::time::Duration;

use futures_lite::AsyncBufReadExt;
use futures_lite::future::or;
use futures_lite::io::{
    AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader, ReadHalf, WriteHalf, split,
};
use smol::Timer;
use smol::net::TcpStream;

use super::{Outcome, PATIENCE};

pub(crate) type Reader = BufReader<ReadHalf<TcpStream>>;

/// Sends a request whose answer has this status, and reads the head of it.
pub(crate) async fn join(
    address: &str,
    request: &str,
    status: &str,
) -> Outcome<(Reader, WriteHalf<TcpStream>)> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    stream.write_all(request.as_bytes()).await?;
    let (reader, writer) = split(stream);
    let mut reader = BufReader::new(reader);
    within(PATIENCE, "an answer", head(&mut reader, status)).await??;
    Ok((reader, writer))
}

/// Reads the head of an answer with this status; returns the length of its body.
pub(crate) async fn head(
    reader: &mut BufReader<impl AsyncRead + Unpin>,
    status: &str,
) -> Outcome<usize> {
    let (mut line, mut length, mut is_first) = (String::new(), 0, true);
    while line != "\r\n" {
        line.clear();
        if reader.read_line(&mut line).await? == 0 || is_first && !line.contains(status) {
            return Err(format!("no {status}: {line:?}").into());
        }
        is_first = false;
        if let Some(digits) = line.strip_prefix("Content-Length: ") {
            length = digits.trim().parse()?;
        }
    }
    Ok(length)
}

/// Reads a short text.
pub(crate) async fn text(reader: &mut Reader) -> Outcome<String> {
    let (first, payload) = frame(reader).await?;
    if first != 0x81 {
        return Err(format!("a frame that begins with {first:02x}").into());
    }
    Ok(String::from_utf8(payload)?)
}

/// Reads a short frame; returns its first byte and its payload.
pub(crate) async fn frame(reader: &mut Reader) -> Outcome<(u8, Vec<u8>)> {
    let mut head = [0; 2];
    reader.read_exact(&mut head).await?;
    if head[1] > 125 {
        return Err(format!("a frame that begins with {head:02x?}").into());
    }
    let mut payload = vec![0; head[1].into()];
    reader.read_exact(&mut payload).await?;
    Ok((head[0], payload))
}

/// Gives a step its time.
pub(crate) async fn within<T>(
    time: Duration,
    what: &str,
    step: impl Future<Output = T>,
) -> Outcome<T> {
    let late = async {
        Timer::after(time).await;
        Err(format!("{what} took more than {time:?}").into())
    };
    or(async { Ok(step.await) }, late).await
}
