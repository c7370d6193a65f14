//! How often each address may publish by request.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::memory::budget::{Charge, MemoryBudget, allocation};
use crate::rate::Meter;

/// What each address has published in the last second, of at most so many addresses.
#[derive(Debug)]
pub(crate) struct PostRates {
    per_second: u32,
    /// Addresses that are remembered: as many as clients may be.
    addresses_max: usize,
    table: Mutex<Table>,
}

#[derive(Debug)]
struct Table {
    meters: HashMap<u128, Meter>,
    charge: Charge,
}

impl PostRates {
    pub(crate) fn new(
        per_second: usize,
        addresses_max: usize,
        memory: &Arc<MemoryBudget>,
    ) -> Box<Self> {
        let table = Table { meters: HashMap::new(), charge: memory.charge(0) };
        let per_second = u32::try_from(per_second).unwrap_or(u32::MAX);
        Box::new(Self { per_second, addresses_max: addresses_max.max(1), table: Mutex::new(table) })
    }

    /// How many messages a second an address may publish.
    pub(crate) fn per_second(&self) -> u32 {
        self.per_second
    }

    /// Counts messages of an address, of which the network is given.
    ///
    /// # Errors
    ///
    /// How long the address may publish nothing more; then nothing is counted.
    pub(crate) fn admit(
        &self,
        network: u128,
        messages: usize,
        now: Instant,
    ) -> Result<(), Duration> {
        self.with(network, now, |meter, per_second| {
            let wait = meter.wait(now, per_second);
            if wait.is_zero() {
                meter.count(now, messages, per_second);
                return Ok(());
            }
            Err(wait)
        })
    }

    /// Counts messages that were published already; returns how long the address may publish nothing
    /// more.
    pub(crate) fn count(&self, network: u128, messages: usize, now: Instant) -> Duration {
        self.with(network, now, |meter, per_second| {
            meter.count(now, messages, per_second);
            meter.wait(now, per_second)
        })
    }

    fn with<T>(&self, network: u128, now: Instant, act: impl FnOnce(&mut Meter, u32) -> T) -> T {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let Table { meters, charge } = &mut *table;
        if meters.len() >= self.addresses_max && !meters.contains_key(&network) {
            forget(meters, now);
        }
        let acted = act(meters.entry(network).or_insert_with(|| Meter::new(now)), self.per_second);
        charge.resize(allocation(meters.capacity() * size_of::<(u128, Meter)>()));
        acted
    }
}

/// Forgets the addresses that have published nothing of late; if they are few, also those that are the
/// nearest to that, half of all. So an address costs little, however many there are.
#[cold]
fn forget(meters: &mut HashMap<u128, Meter>, now: Instant) {
    let before = meters.len();
    meters.retain(|_, meter| !meter.is_paid(now));
    if meters.len() > before / 2 {
        let mut times: Vec<_> = meters.values().map(Meter::paid_until).collect();
        let (_, median, _) = times.select_nth_unstable(before / 2);
        let median = *median;
        meters.retain(|_, meter| meter.paid_until() > median);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_has_its_own_rate() {
        let (memory, now) = (Arc::<MemoryBudget>::default(), Instant::now());
        let rates = PostRates::new(2, 9, &memory);
        for network in [1, 2] {
            assert_eq!(
                [rates.admit(network, 1, now), rates.admit(network, 1, now)],
                [Ok(()), Ok(())]
            );
            assert_eq!(rates.admit(network, 1, now), Err(Duration::from_millis(500)));
        }
        let later = now + Duration::from_millis(500);
        assert_eq!(rates.admit(1, 1, later), Ok(()));
        assert_eq!(rates.admit(1, 1, later), Err(Duration::from_millis(500)));
        assert_eq!(rates.count(3, 7, now), Duration::from_secs(3));
        assert!(memory.charged() > 3 * 32);
        drop(rates);
        assert_eq!(memory.charged(), 0);
    }
    #[test]
    fn at_most_so_many_addresses_are_remembered_and_the_busiest_the_longest() {
        let (memory, now) = (Arc::<MemoryBudget>::default(), Instant::now());
        let rates = PostRates::new(10, 8, &memory);
        rates.count(0, 1000, now);
        for network in 1..1000 {
            assert_eq!(rates.admit(network, 1, now), Ok(()));
            assert!(rates.table.lock().expect("not poisoned").meters.len() <= 8);
        }
        assert!(rates.admit(0, 1, now).is_err(), "it is remembered");
        let later = now + Duration::from_secs(200);
        (1000..1008).for_each(|network| assert_eq!(rates.admit(network, 1, later), Ok(())));
        assert_eq!(rates.admit(0, 1, later), Ok(()));
    }
}
