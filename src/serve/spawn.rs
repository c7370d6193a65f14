//! Where the tasks of connections run.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use smol::Executor;

/// What [`Hub::serve`](crate::Hub::serve) spawns a task on for each connection.
///
/// It is implemented for references to async-executor's `Executor`, which smol exports, and for an
/// `Arc` of one: with the `Arc` the future of `serve` borrows nothing and can be spawned itself. For
/// any other runtime, implement it or pass a closure to
/// [`Hub::serve_with`](crate::Hub::serve_with).
///
/// # Examples
///
/// ```
/// use std::future::Future;
///
/// use hublet::Spawn;
///
/// /// The global executor of smol.
/// struct Global;
///
/// impl Spawn for Global {
///     fn spawn(&self, connection: impl Future<Output = ()> + Send + 'static) {
///         smol::spawn(connection).detach();
///     }
/// }
/// # let (sender, receiver) = smol::channel::bounded(1);
/// # Global.spawn(async move { sender.send(7).await.expect("it is awaited") });
/// # assert_eq!(smol::block_on(receiver.recv()), Ok(7));
/// ```
pub trait Spawn: Send + Sync {
    /// Runs a connection to its end, beside the others.
    ///
    /// A connection that is dropped early is cut off.
    fn spawn(&self, connection: impl Future<Output = ()> + Send + 'static);
}

impl Spawn for Executor<'static> {
    fn spawn(&self, connection: impl Future<Output = ()> + Send + 'static) {
        Self::spawn(self, connection).detach();
    }
}

impl<S: Spawn + ?Sized> Spawn for &S {
    fn spawn(&self, connection: impl Future<Output = ()> + Send + 'static) {
        S::spawn(self, connection);
    }
}

impl<S: Spawn> Spawn for Arc<S> {
    fn spawn(&self, connection: impl Future<Output = ()> + Send + 'static) {
        S::spawn(self, connection);
    }
}

/// A function that spawns.
pub(crate) struct SpawnWith<F>(pub(crate) F);

impl<F> Spawn for SpawnWith<F>
where
    F: Fn(Pin<Box<dyn Future<Output = ()> + Send>>) + Send + Sync,
{
    fn spawn(&self, connection: impl Future<Output = ()> + Send + 'static) {
        (self.0)(Box::pin(connection));
    }
}

impl<F> fmt::Debug for SpawnWith<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SpawnWith")
    }
}
