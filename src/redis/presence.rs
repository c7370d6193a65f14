//! What hubs say of their rooms, and the sum of it.

use std::collections::VecDeque;
use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::hub::reply::{Answer, Reply};
use crate::hub::shared_rooms::SharedRooms;

/// Hubs whose rooms are added up at most.
pub(crate) const HUBS_MAX: usize = 64;

/// Rooms that a hub says anything of at most, in the order of their names.
pub(crate) const ROOMS_MAX: usize = 4096;

/// Questions for the rooms of all hubs that wait for their answer at most; more are refused.
pub(crate) const SUMS_MAX: usize = 8;

/// The rooms of all other hubs, as they are added up for a page.
#[derive(Debug)]
pub(crate) struct Sum {
    pub(crate) after: String,
    pub(crate) limit: usize,
    pub(crate) reply: Reply<SharedRooms>,
    /// In the order of their names.
    pub(crate) rooms: Vec<(String, usize)>,
    pub(crate) hubs: usize,
    /// Whether the hubs are asked.
    pub(crate) is_queried: bool,
    /// Hubs that have not answered.
    pub(crate) left: usize,
}

impl Sum {
    pub(crate) fn new(after: String, limit: usize, reply: Reply<SharedRooms>) -> Self {
        Self { after, limit, reply, rooms: Vec::new(), hubs: 0, is_queried: false, left: 0 }
    }

    /// Adds what one hub says: names and counts in turn. Keeps the lowest names that fill the page.
    pub(crate) fn add(&mut self, fields: &[&[u8]]) {
        for pair in fields.chunks_exact(2) {
            let room = std::str::from_utf8(pair[0]).ok().filter(|room| **room > *self.after);
            let count = std::str::from_utf8(pair[1]).ok().and_then(|count| count.parse().ok());
            let (Some(room), Some(count)) = (room, count) else { continue };
            match self.rooms.binary_search_by(|(name, _)| (**name).cmp(room)) {
                Ok(at) => self.rooms[at].1 = self.rooms[at].1.saturating_add(count),
                Err(at) => self.rooms.insert(at, (room.to_owned(), count)),
            }
            // A name that has left the page does not come back: as many lower ones are there.
            self.rooms.truncate(self.limit);
        }
    }

    /// Answers.
    pub(crate) fn finish(self) {
        self.reply.answer(SharedRooms { rooms: self.rooms, hubs: self.hubs });
    }
}

/// The questions whose answers are on their way, in their order.
pub(crate) type Sums = VecDeque<Sum>;

/// The rooms of the hub, as the manager lists them in pages.
pub(crate) struct Listing {
    /// Those of the pages before.
    pub(crate) rooms: Vec<(Arc<str>, usize)>,
    pub(crate) answer: Answer<Vec<(Arc<str>, usize)>>,
    /// The page that has come. It is empty if the hub ends.
    pub(crate) page: Option<Vec<(Arc<str>, usize)>>,
}

impl Listing {
    /// Ready when a page has come.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.page.is_none() {
            let Poll::Ready(page) = Pin::new(&mut self.answer).poll(cx) else {
                return Poll::Pending;
            };
            self.page = Some(page.unwrap_or_default());
        }
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::reply::reply;

    #[test]
    fn a_page_has_the_whole_sum_of_its_rooms() {
        let mut sum = Sum::new("a".into(), 2, reply().0);
        sum.add(&[b"a", b"9", b"d", b"1", b"b", b"2"]);
        sum.add(&[b"c", b"4", b"d", b"8", b"b", b"3", b"e", b"x"]);
        let rooms: Vec<_> = sum.rooms.iter().map(|(room, count)| (&**room, *count)).collect();
        assert_eq!(rooms, [("b", 5), ("c", 4)]);
    }
}
