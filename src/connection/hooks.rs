//! Hooks of the handler that decide about a request.

use std::future::Future;
use std::panic::AssertUnwindSafe;

use futures_lite::FutureExt as _;
use http::StatusCode;

use crate::http1::response::{Response, our_fault, refused_by_hook};

/// Asks a hook that may refuse the request.
pub(crate) async fn ask<T>(
    hook: impl Future<Output = Result<T, StatusCode>>,
) -> Result<T, Response> {
    match AssertUnwindSafe(hook).catch_unwind().await {
        Ok(Err(status)) if !status.is_client_error() && !status.is_server_error() => {
            Err(our_fault("a hook refused with a status that refuses nothing"))
        }
        Ok(answer) => answer.map_err(refused_by_hook),
        Err(_) => Err(our_fault("a hook panicked")),
    }
}
