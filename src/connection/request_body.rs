//! The body of a request that the program answers itself.

use std::fmt;
use std::future::{Future, ready};
use std::pin::Pin;

use http::StatusCode;

/// The body of a request of [`Handler::on_request`](crate::Handler::on_request), which the hub reads
/// when the hook asks for it.
///
/// A body that no hook reads is thrown away, and the connection ends behind the response. The
/// deadlines are those of a `POST` to a room: a body may be slow while it makes progress.
///
/// # Examples
///
/// A program can make one, to test its handler:
///
/// ```
/// # smol::block_on(async {
/// let body = hublet::Body::from(b"hello".to_vec());
/// assert_eq!(body.read().await.as_deref(), Ok(&b"hello"[..]));
/// # });
/// ```
pub struct Body<'a>(Pin<Box<dyn Future<Output = Result<Vec<u8>, StatusCode>> + Send + 'a>>);

impl<'a> Body<'a> {
    /// A body that `reading` reads.
    pub(crate) fn new(
        reading: impl Future<Output = Result<Vec<u8>, StatusCode>> + Send + 'a,
    ) -> Self {
        Self(Box::pin(reading))
    }

    /// Reads the body to its end. It is empty if the request has none.
    ///
    /// # Errors
    ///
    /// The status of what is wrong: 413 for a body over
    /// [`Config::max_message`](crate::Config#structfield.max_message), 408 for one that does not come
    /// in time, 503 when memory is short, 400 for one that is malformed or broken off. A hook that
    /// returns the status has the hub answer with a sentence about it.
    ///
    /// # Cancel safety
    ///
    /// Dropped early, what has come of the body is lost, and the connection ends behind the response.
    pub async fn read(self) -> Result<Vec<u8>, StatusCode> {
        self.0.await
    }
}

impl From<Vec<u8>> for Body<'_> {
    fn from(bytes: Vec<u8>) -> Self {
        Self::new(ready(Ok(bytes)))
    }
}

impl fmt::Debug for Body<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Body")
    }
}
