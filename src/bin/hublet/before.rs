//! The two ends of a restart: what this process has from the program that it was, and what it leaves
//! to the program that it becomes.

use std::sync::Arc;

use hublet::{Hub, Reactor};

use crate::main_thread::MainThread;
use crate::pipe::Pipe;
use crate::plan::Plan;
use crate::signals::Signals;
use crate::socket::Open;

#[cfg(target_os = "linux")]
pub(crate) use linux::{Before, Prior, reads_state, restart, unblock_signals};
#[cfg(not(target_os = "linux"))]
pub(crate) use other::{Before, Prior, reads_state, restart, unblock_signals};

#[cfg(unix)]
pub(crate) use hublet::TakeOver;
#[cfg(not(unix))]
pub(crate) use nothing::TakeOver;

/// What a restart needs of the process.
pub(crate) struct Running<'a> {
    pub(crate) hub: &'a Hub,
    pub(crate) reactor: &'a Reactor,
    pub(crate) signals: &'a Arc<Signals>,
    pub(crate) open: &'a Arc<Vec<Open>>,
    pub(crate) pipe: &'a Pipe,
    pub(crate) plan: &'a Plan,
    /// Runs what is for the main thread, unless there is no other.
    pub(crate) helper: Option<&'a MainThread>,
}

#[cfg(target_os = "linux")]
mod linux {
    use std::os::fd::{AsFd as _, OwnedFd};
    use std::sync::Arc;

    use hublet::HandOver;

    use crate::before::Running;
    use crate::failure::Failure;
    use crate::inherited::InheritedListener;
    use crate::log::counted;
    use crate::pause::Rest;
    pub(crate) use crate::restart::unblock_signals;
    use crate::restart::{Inherited, Program, block_signals};

    /// The program as it was started, and what it has from the one before.
    pub(crate) struct Before {
        pub(crate) program: Arc<Program>,
        pub(crate) prior: Option<Prior>,
    }

    /// What the program before has left.
    pub(crate) struct Prior {
        pub(crate) listeners: Vec<InheritedListener>,
        pub(crate) pipe: Rest,
        pub(crate) state: String,
        pub(crate) descriptors: Vec<OwnedFd>,
    }

    impl Before {
        /// Notes the program and takes what the one before has left. Signals wait from now on.
        pub(crate) fn take() -> Result<Self, Failure> {
            block_signals();
            let program = Arc::new(Program::note());
            let prior = match Inherited::take()? {
                Some(inherited) => Some(read(inherited).ok_or_else(|| {
                    Failure::running("the program before has left a state that cannot be read")
                })?),
                None => None,
            };
            Ok(Self { program, prior })
        }
    }

    /// Whether this program reads the state of this version: its own, or the one before.
    pub(crate) fn reads_state(version: u32) -> bool {
        let age = HandOver::VERSION.checked_sub(version);
        version > 0 && age.is_some_and(|age| age <= 1)
    }

    /// Reads the lines ahead of those of the hub.
    fn read(inherited: Inherited) -> Option<Prior> {
        let Inherited { mut state, mut descriptors } = inherited;
        let own: String = state.drain(..state.find("\nhub ")? + 1).collect();
        let mut lines = own.lines();
        let version = lines.next()?.strip_prefix("hublet ")?;
        if !version.parse().is_ok_and(reads_state) {
            return None;
        }
        let (mut listeners, mut pipe) = (Vec::new(), Rest::default());
        for line in lines {
            match line.split_once(' ')? {
                ("listener", rest) if !descriptors.is_empty() => {
                    listeners.push(InheritedListener::read(rest, descriptors.remove(0))?);
                }
                ("pipe", rest) => pipe = Rest::read(rest)?,
                _ => return None,
            }
        }
        Some(Prior { listeners, pipe, state, descriptors })
    }

    /// Becomes the binary that lies at the path of the process. Returns only if that fails, with a
    /// sentence; the hub goes on then.
    pub(crate) async fn restart(program: &Arc<Program>, running: Running<'_>) -> String {
        match try_restart(program, running).await {
            Ok(sentence) | Err(sentence) => sentence,
        }
    }

    async fn try_restart(program: &Arc<Program>, running: Running<'_>) -> Result<String, String> {
        let Running { hub, reactor, signals, open, pipe, plan, helper } = running;
        program.probe(reactor).await?;
        let mut paused = pipe.pause(reactor, plan).await?;
        let hand_over = hub.hand_over().await.map_err(|error| error.to_string())?;
        let left = hand_over.left_behind();
        if left > 0 {
            ::log::info!("{} cannot go along: closed with 1012", counted(left, "client"));
        }
        let mut state = format!("hublet {}\n", HandOver::VERSION);
        open.iter().for_each(|open| state.push_str(&open.line));
        paused.rest(reactor).await?.write(&mut state);
        state.push_str(hand_over.state());
        let (program, signals, open) = (Arc::clone(program), Arc::clone(signals), Arc::clone(open));
        let job = move || {
            let listeners = open.iter().map(|open| open.descriptor.as_fd());
            let all: Vec<_> = listeners.chain(hand_over.descriptors()).collect();
            program.become_new(&state, &all, &signals)
        };
        let sentence = match helper {
            Some(main_thread) => main_thread.call(Box::new(job)).await,
            None => job(),
        };
        drop(paused);
        Ok(sentence)
    }
}

/// On this system a process cannot hand its descriptors to the program that it becomes.
#[cfg(not(target_os = "linux"))]
mod other {
    use std::sync::Arc;

    use crate::before::Running;
    use crate::failure::Failure;

    pub(crate) struct Before {
        pub(crate) program: Arc<()>,
        pub(crate) prior: Option<Prior>,
    }

    pub(crate) enum Prior {}

    impl Before {
        pub(crate) fn take() -> Result<Self, Failure> {
            Ok(Self { program: Arc::new(()), prior: None })
        }
    }

    pub(crate) fn reads_state(_: u32) -> bool {
        false
    }

    pub(crate) fn unblock_signals() {}

    pub(crate) async fn restart(_: &Arc<()>, _: Running<'_>) -> String {
        "this system does not let a process hand over its connections".to_owned()
    }
}

/// On this system no process leaves connections, so there are none to take over.
#[cfg(not(unix))]
mod nothing {
    use std::sync::Arc;

    use hublet::{Error, Reactor};
    use smol::Executor;

    pub(crate) enum TakeOver {}

    impl TakeOver {
        pub(crate) fn connections(&self) -> usize {
            match *self {}
        }

        pub(crate) fn clients_of_one_ip(&self) -> usize {
            match *self {}
        }

        pub(crate) async fn reconnected(&self) {
            match *self {}
        }

        pub(crate) fn serve<H>(
            self,
            _: &Arc<Executor<'static>>,
            _: Option<&Reactor>,
            _: &Arc<H>,
        ) -> Result<(), Error> {
            match self {}
        }
    }
}
