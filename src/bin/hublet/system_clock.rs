//! The clocks of the system, where the standard library has none that suffices.

use std::time::Duration;

#[cfg(all(target_arch = "mips", target_endian = "big"))]
use nix::time::{ClockId, clock_gettime};
#[cfg(not(all(target_arch = "mips", target_endian = "big")))]
use rustix::time::{ClockId, clock_gettime};

/// The time since the system started.
pub(crate) fn monotonic() -> Duration {
    #[cfg(not(all(target_arch = "mips", target_endian = "big")))]
    return read(ClockId::Monotonic);
    #[cfg(all(target_arch = "mips", target_endian = "big"))]
    read(ClockId::CLOCK_MONOTONIC)
}

/// The time since 1970; nothing, where the clock stands before. On 32 bits the clock of the standard
/// library ends with the year 2037.
#[cfg(target_pointer_width = "32")]
pub(crate) fn unix_time() -> Duration {
    #[cfg(not(all(target_arch = "mips", target_endian = "big")))]
    return read(ClockId::Realtime);
    #[cfg(all(target_arch = "mips", target_endian = "big"))]
    read(ClockId::CLOCK_REALTIME)
}

/// Rustix has 32 or 64 bits for the nanoseconds, as the C library of the target does.
#[cfg(not(all(target_arch = "mips", target_endian = "big")))]
fn read(clock: ClockId) -> Duration {
    clock_gettime(clock).try_into().unwrap_or_default()
}

/// By nix: rustix looks for the nanoseconds where the C library has nothing.
#[cfg(all(target_arch = "mips", target_endian = "big"))]
fn read(clock: ClockId) -> Duration {
    use nix::sys::time::TimeValLike as _;
    let time = clock_gettime(clock).map_or(0, |time| time.num_nanoseconds());
    time.try_into().map(Duration::from_nanos).unwrap_or_default()
}
