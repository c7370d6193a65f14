//! The answer to a command that may still wait for room in the inbox.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use crate::error::Error;
use crate::hub::inbox::Sending;
use crate::hub::reply::Answer;

/// Waits for the answer to a command. Cancel safe: the command is sent, or dropped whole.
pub(crate) struct PendingReply<'a, T> {
    sending: Sending<'a>,
    answer: Answer<T>,
}

impl<'a, T> PendingReply<'a, T> {
    pub(crate) fn new(sending: Sending<'a>, answer: Answer<T>) -> Self {
        Self { sending, answer }
    }
}

impl<T> Future for PendingReply<'_, T> {
    type Output = Result<T, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T, Error>> {
        ready!(Pin::new(&mut self.sending).poll(cx))?;
        Pin::new(&mut self.answer).poll(cx).map(|answer| answer.ok_or_else(Error::closed))
    }
}
