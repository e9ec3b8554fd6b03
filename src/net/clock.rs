//! The clocks: wall, since boot, and the one of a connection, which never goes backwards.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::model::UnixMicros;

/// Smallest step of the wall clock, or sleep of the machine, that is told.
const TELLING_STEP: Duration = Duration::from_millis(500);

/// What the machine's clocks say; a test stands in for it.
pub trait Clock: Send + Sync {
    /// The time of day, UTC.
    fn wall(&self) -> UnixMicros;

    /// Time since boot, counted through suspension, and which boot it was.
    fn boot(&self) -> BootReading;

    /// How long a look at them is sure to show neither a step nor a sleep: so long nobody need look.
    fn steady_for(&self) -> Duration {
        Duration::ZERO
    }
}

/// A reading that can be compared between two runs of the program on the same boot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BootReading {
    /// Names the boot; empty where the system does not say.
    pub boot_id: String,
    /// Time since then, suspension included.
    pub since_boot: Duration,
}

/// The clocks of this machine.
#[derive(Clone, Debug)]
pub struct SystemClock {
    boot_id: String,
}

impl SystemClock {
    /// Reads the name of the boot once.
    pub fn new() -> Self {
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Self { boot_id: boot_id.trim().to_owned() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn wall(&self) -> UnixMicros {
        let micros = |d: Duration| i64::try_from(d.as_micros()).unwrap_or(i64::MAX);
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(after) => UnixMicros(micros(after)),
            Err(before) => UnixMicros(-micros(before.duration())),
        }
    }

    fn boot(&self) -> BootReading {
        #[cfg(target_os = "linux")]
        let id = rustix::time::ClockId::Boottime;
        #[cfg(not(target_os = "linux"))]
        let id = rustix::time::ClockId::Monotonic;
        let now = rustix::time::clock_gettime(id);
        let secs = u64::try_from(now.tv_sec).unwrap_or(0);
        let nanos = u32::try_from(now.tv_nsec).unwrap_or(0);
        BootReading { boot_id: self.boot_id.clone(), since_boot: Duration::new(secs, nanos) }
    }
}

/// The monotonic clock, for waits; the runtime's own, so that a test's virtual time holds here too.
pub fn now() -> Instant {
    Instant::now()
}

/// Stamps what one connection receives: its wall clock at the opening plus monotonic time since.
///
/// So the order of stamps is the order of arrival whatever happens to the wall clock; that it
/// stepped is told by [`step`](Self::step) and belongs into the tape as a note.
pub struct ConnectionClock {
    wall: UnixMicros,
    since_boot: Duration,
    opened: Instant,
    stepped: AtomicI64,
    slept: AtomicI64,
}

impl ConnectionClock {
    /// Starts at the wall clock's present time.
    pub fn open(clock: &dyn Clock) -> Self {
        Self {
            wall: clock.wall(),
            since_boot: clock.boot().since_boot,
            opened: Instant::now(),
            stepped: AtomicI64::new(0),
            slept: AtomicI64::new(0),
        }
    }

    /// The wall clock at the opening.
    pub fn opened_at(&self) -> UnixMicros {
        self.wall
    }

    /// The present moment on this connection.
    pub fn received_at(&self) -> UnixMicros {
        self.wall.plus(self.opened.elapsed())
    }

    /// Microseconds by which the wall clock left monotonic time since the last time this told a step.
    ///
    /// Only more than 500 ms is told, and each step once. Monotonic time stands still while the
    /// machine sleeps, so a sleep shows here too; [`suspended`](Self::suspended) tells how long it was.
    pub fn step(&self, clock: &dyn Clock) -> Option<i64> {
        let apart = clock.wall().since(self.received_at());
        told(&self.stepped, apart)
    }

    /// How long the machine slept since the last time this told a sleep; only more than 500 ms is told.
    pub fn suspended(&self, clock: &dyn Clock) -> Option<Duration> {
        let boot = clock.boot().since_boot.saturating_sub(self.since_boot);
        let slept = boot.saturating_sub(self.opened.elapsed());
        let slept = told(&self.slept, i64::try_from(slept.as_micros()).unwrap_or(i64::MAX))?;
        Some(Duration::from_micros(u64::try_from(slept).ok()?))
    }
}

impl fmt::Debug for ConnectionClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionClock").field("opened_at", &self.wall).finish_non_exhaustive()
    }
}

/// The change of `apart` against what was told before, when it is worth telling.
fn told(before: &AtomicI64, apart: i64) -> Option<i64> {
    let change = apart.saturating_sub(before.load(Ordering::Relaxed));
    if u128::from(change.unsigned_abs()) <= TELLING_STEP.as_micros() {
        return None;
    }
    before.store(apart, Ordering::Relaxed);
    Some(change)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    struct Hands(Mutex<(i64, Duration)>);

    impl Clock for Hands {
        fn wall(&self) -> UnixMicros {
            UnixMicros(self.0.lock().unwrap().0)
        }

        fn boot(&self) -> BootReading {
            BootReading { boot_id: String::new(), since_boot: self.0.lock().unwrap().1 }
        }
    }

    #[test]
    fn the_machine_has_clocks() {
        let clock = SystemClock::new();
        assert!(clock.wall() > UnixMicros(1_600_000_000_000_000));
        let first = clock.boot();
        let second = clock.boot();
        assert_eq!(first.boot_id, second.boot_id);
        assert!(first.since_boot <= second.since_boot && second.since_boot > Duration::ZERO);
    }

    #[test]
    fn stamps_never_go_backwards_and_each_step_is_told_once() {
        let hour = 3_600_000_000_i64;
        let hands = Hands(Mutex::new((hour, Duration::from_secs(10))));
        let clock = ConnectionClock::open(&hands);
        let first = clock.received_at();
        assert!(first >= UnixMicros(hour));
        assert_eq!(clock.step(&hands), None);

        hands.0.lock().unwrap().0 = 0;
        let second = clock.received_at();
        assert!(second >= first, "the wall clock went back, the connection's did not");
        let step = clock.step(&hands).expect("an hour back is a step");
        assert!((step + hour).abs() < 1_000_000, "{step}");
        assert_eq!(clock.step(&hands), None, "told already");

        hands.0.lock().unwrap().0 = hour;
        let back = clock.step(&hands).expect("and an hour forward again");
        assert!((back - hour).abs() < 1_000_000, "{back}");
    }

    #[test]
    fn a_sleep_is_told_once() {
        let hands = Hands(Mutex::new((0, Duration::from_secs(10))));
        let clock = ConnectionClock::open(&hands);
        assert_eq!(clock.suspended(&hands), None);
        hands.0.lock().unwrap().1 = Duration::from_secs(70);
        let slept = clock.suspended(&hands).expect("a minute");
        assert!(slept > Duration::from_secs(58) && slept <= Duration::from_secs(60), "{slept:?}");
        assert_eq!(clock.suspended(&hands), None);
    }
}
