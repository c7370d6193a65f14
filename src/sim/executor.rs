//! An executor whose order a seed chooses.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use fastrand::Rng;

/// Names a task of one executor.
pub(super) type TaskId = usize;

type Work = Pin<Box<dyn Future<Output = ()>>>;

/// Tasks, and those of them that were woken.
pub(super) struct Executor {
    tasks: BTreeMap<TaskId, (Work, Waker)>,
    next: TaskId,
    woken: Arc<Mutex<Vec<TaskId>>>,
    /// What is left of the round, if the order is fair: each task that was ready when it began.
    round: Vec<TaskId>,
    order: Order,
}

/// Which of the ready tasks runs next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// In rounds: every ready task runs once, in any order, and the manager last. So between two
    /// runs of the manager every task that was ready has run, as on a real executor.
    Fair,
    /// Any of them: some may be left waiting for very long.
    Wild,
}

/// The task that runs last in a round: the manager is spawned first.
const MANAGER: TaskId = 0;

struct Wakeup {
    task: TaskId,
    woken: Arc<Mutex<Vec<TaskId>>>,
}

impl Wake for Wakeup {
    fn wake(self: Arc<Self>) {
        let mut woken = self.woken.lock().expect("not poisoned");
        if !woken.contains(&self.task) {
            woken.push(self.task);
        }
    }
}

impl Executor {
    pub(super) fn new(order: Order) -> Self {
        let (tasks, woken) = (BTreeMap::new(), Arc::default());
        Self { tasks, next: MANAGER, woken, round: Vec::new(), order }
    }

    pub(super) fn spawn(&mut self, work: impl Future<Output = ()> + 'static) -> TaskId {
        let task = self.next;
        self.next += 1;
        let waker = Waker::from(Arc::new(Wakeup { task, woken: Arc::clone(&self.woken) }));
        waker.wake_by_ref();
        self.tasks.insert(task, (Box::pin(work), waker));
        task
    }

    /// Drops all tasks where they stand.
    pub(super) fn forget_all(&mut self) {
        self.tasks.clear();
        self.woken.lock().expect("not poisoned").clear();
        self.round.clear();
    }

    /// Spawns the manager of a process that has forgotten all tasks.
    pub(super) fn spawn_first(&mut self, manager: impl Future<Output = ()> + 'static) -> TaskId {
        let next = std::mem::replace(&mut self.next, MANAGER);
        let task = self.spawn(manager);
        self.next = next;
        task
    }

    /// Drops a task where it stands.
    pub(super) fn cancel(&mut self, task: TaskId) {
        drop(self.tasks.remove(&task));
    }

    pub(super) fn runs(&self, task: TaskId) -> bool {
        self.tasks.contains_key(&task)
    }

    pub(super) fn tasks(&self) -> usize {
        self.tasks.len()
    }

    /// Runs one task that was woken; `false` if none is.
    pub(super) fn tick(&mut self, rng: &mut Rng) -> bool {
        while let Some(task) = self.choose(rng) {
            let Some((work, waker)) = self.tasks.get_mut(&task) else { continue };
            let mut cx = Context::from_waker(waker);
            if let Poll::Ready(()) = work.as_mut().poll(&mut cx) {
                self.tasks.remove(&task);
            }
            return true;
        }
        false
    }

    fn choose(&mut self, rng: &mut Rng) -> Option<TaskId> {
        let mut woken = self.woken.lock().expect("not poisoned");
        if self.order == Order::Wild {
            let n = woken.len();
            return (n > 0).then(|| woken.swap_remove(rng.usize(..n)));
        }
        if self.round.is_empty() {
            self.round = std::mem::take(&mut *woken);
            rng.shuffle(&mut self.round);
            // Taken from the end.
            self.round.sort_by_key(|&task| task != MANAGER);
        }
        self.round.pop()
    }
}
